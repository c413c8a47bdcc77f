//! The ptrace loop: every process of the tree, from call to call.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use crash::image::Image;
use nix::errno::Errno;
use nix::libc::{PTRACE_SYSCALL_INFO_ENTRY, SIGTRAP};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};
use serde::Serialize;

use crate::call::Action;
use crate::recorder::{list, record};
use crate::tracee::Tracee;

const USAGE: &str =
    "crash-tracer DIRECTORY record LOG | list LOG | kill-before N | kill-after N | fail N ERROR -- PROGRAM ARGUMENTS...
DIRECTORY is what is watched; ERROR is ENOSPC or EIO";

/// What is done to the program.
enum Mode {
    Record(BufWriter<File>),
    List(BufWriter<File>),
    KillBefore(usize),
    KillAfter(usize),
    Fail(usize, Errno),
}

/// Does what the command line says.
///
/// # Errors
/// For a wrong command line, and when the program cannot be started or traced.
pub fn run(arguments: Vec<OsString>) -> Result<ExitCode> {
    let split = arguments.iter().position(|word| word == "--").context(USAGE)?;
    let (own, program) = (&arguments[..split], &arguments[split + 1..]);
    let [directory, mode @ ..] = own else { bail!(USAGE) };
    let directory = Path::new(directory).canonicalize().context("the directory that is watched")?;
    let mode = parse(mode, &directory)?;
    let root = start(program)?;
    Tracer { mode, directory, root, count: 0, tracees: BTreeMap::new() }.follow()
}

fn parse(words: &[OsString], directory: &Path) -> Result<Mode> {
    let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap_or_default()).collect();
    let number = |word: &str| word.parse().with_context(|| format!("{word:?} is no number\n{USAGE}"));
    Ok(match words[..] {
        ["record", log] => Mode::Record(begin(log, &Image::of(directory)?)?),
        ["list", log] => Mode::List(begin(log, &Image::empty())?),
        ["kill-before", call] => Mode::KillBefore(number(call)?),
        ["kill-after", call] => Mode::KillAfter(number(call)?),
        ["fail", call, "ENOSPC"] => Mode::Fail(number(call)?, Errno::ENOSPC),
        ["fail", call, "EIO"] => Mode::Fail(number(call)?, Errno::EIO),
        _ => bail!(USAGE),
    })
}

/// Begins the log with the directory as it is now.
fn begin(log: &str, directory: &Image) -> Result<BufWriter<File>> {
    let mut log = BufWriter::new(File::create(log).with_context(|| format!("making the log {log}"))?);
    write(&mut log, directory)?;
    Ok(log)
}

fn write(log: &mut BufWriter<File>, line: &impl Serialize) -> Result<()> {
    serde_json::to_writer(&mut *log, line).context("writing the log")?;
    writeln!(log).context("writing the log")
}

/// Starts the program; it waits at its first instruction.
#[expect(unsafe_code, reason = "only the child itself can ask to be traced from its first instruction on")]
fn start(program: &[OsString]) -> Result<Pid> {
    let [name, arguments @ ..] = program else { bail!(USAGE) };
    let mut command = Command::new(name);
    command.args(arguments);
    // SAFETY: between fork and exec only async-signal-safe functions may be called; ptrace(2) is a bare system call.
    unsafe { command.pre_exec(|| Ok(ptrace::traceme()?)) };
    let child = command.spawn().with_context(|| format!("starting {}", Path::new(name).display()))?;
    let root = Pid::from_raw(child.id() as i32);
    waitpid(root, None).context("waiting for the program to start")?;
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(root, options).context("following the program's children")?;
    ptrace::syscall(root, None).context("starting the program")?;
    Ok(root)
}

/// Where a process is.
#[derive(Default)]
struct Progress {
    /// The counted call that it is in, with its number.
    call: Option<(usize, Action)>,
}

struct Tracer {
    mode: Mode,
    directory: PathBuf,
    root: Pid,
    /// Calls counted so far, over all processes.
    count: usize,
    tracees: BTreeMap<Pid, Progress>,
}

impl Tracer {
    /// Follows the processes until the last has gone; then the first one's exit status.
    fn follow(mut self) -> Result<ExitCode> {
        self.tracees.insert(self.root, Progress::default());
        let mut end = ExitCode::FAILURE;
        loop {
            let status = match waitpid(None, Some(WaitPidFlag::__WALL)) {
                Err(Errno::ECHILD) => break,
                Err(Errno::EINTR) => continue,
                status => status.context("waiting for a process")?,
            };
            match status {
                WaitStatus::Exited(pid, code) => {
                    self.tracees.remove(&pid);
                    if pid == self.root {
                        end = ExitCode::from(code as u8);
                    }
                }
                WaitStatus::Signaled(pid, signal, _) => {
                    self.tracees.remove(&pid);
                    if pid == self.root {
                        end = ExitCode::from(128 + signal as u8); // as a shell tells it
                    }
                }
                WaitStatus::PtraceSyscall(pid) => {
                    // A process that another one has killed meanwhile is not there to be asked.
                    gone_is_fine(self.at_call(Tracee(pid)), pid)?;
                    go_on(pid, None)?;
                }
                WaitStatus::Stopped(pid, signal) => {
                    let new = !self.tracees.contains_key(&pid);
                    self.tracees.entry(pid).or_default();
                    // A process starts its traced life with a SIGSTOP that nobody has sent.
                    go_on(pid, (!(new && signal == Signal::SIGSTOP)).then_some(signal))?;
                }
                WaitStatus::PtraceEvent(pid, signal, _) => {
                    go_on(pid, (signal as i32 != SIGTRAP).then_some(signal))?;
                }
                _ => {}
            }
        }
        if let Mode::Record(log) | Mode::List(log) = &mut self.mode {
            log.flush().context("writing the log")?;
        }
        Ok(end)
    }

    /// A process enters or leaves a call.
    fn at_call(&mut self, tracee: Tracee) -> Result<()> {
        let stop = ptrace::syscall_info(tracee.0).context("asking for a process's call")?;
        if stop.op == PTRACE_SYSCALL_INFO_ENTRY { self.entered(tracee) } else { self.left(tracee) }
    }

    fn entered(&mut self, tracee: Tracee) -> Result<()> {
        let (number, arguments) = tracee.call()?;
        let Some(action) = Action::of(tracee, number, arguments, &self.directory)? else { return Ok(()) };
        self.count += 1;
        match self.mode {
            Mode::KillBefore(call) if call == self.count => self.cut(),
            Mode::Fail(call, _) if call == self.count => tracee.skip_call()?,
            _ => {}
        }
        self.tracees.entry(tracee.0).or_default().call = Some((self.count, action));
        Ok(())
    }

    fn left(&mut self, tracee: Tracee) -> Result<()> {
        let Some((number, action)) = self.tracees.entry(tracee.0).or_default().call.take() else {
            return Ok(());
        };
        match &mut self.mode {
            Mode::KillAfter(call) if *call == number => self.cut(),
            Mode::Fail(call, error) if *call == number => tracee.set_error(*error)?,
            Mode::Record(log) => {
                write(log, &record(tracee, &action, tracee.result()?, &self.directory)?)?;
            }
            Mode::List(log) => write(log, &list(&action, tracee.result()?, &self.directory)?)?,
            _ => {}
        }
        Ok(())
    }

    /// Ends every process at once, as a power loss does, and this one as the sign of it.
    fn cut(&self) {
        // One that is gone already is what is wanted, so errors are none.
        for &pid in self.tracees.keys() {
            let _ = kill(pid, Signal::SIGKILL);
        }
        // What another process was in the middle of is over before anybody looks at the files; one that has just
        // been forked shows itself only now.
        loop {
            match waitpid(None, Some(WaitPidFlag::__WALL)) {
                Err(Errno::ECHILD) => break,
                Ok(status) => drop(status.pid().map(|pid| kill(pid, Signal::SIGKILL))),
                Err(_) => {}
            }
        }
        let _ = kill(getpid(), Signal::SIGKILL);
    }
}

fn go_on(pid: Pid, signal: Option<Signal>) -> Result<()> {
    gone_is_fine(ptrace::syscall(pid, signal).context("letting a process go on"), pid)
}

/// Takes an error for success when the process is no longer there.
fn gone_is_fine(done: Result<()>, pid: Pid) -> Result<()> {
    match done {
        Err(error) if error.downcast_ref() != Some(&Errno::ESRCH) && kill(pid, None).is_ok() => Err(error),
        _ => Ok(()),
    }
}
