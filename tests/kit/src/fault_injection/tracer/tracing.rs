//! The ptrace loop: every process of the tree, from call to call.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::libc::SIGTRAP;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};
use serde::Serialize;

use super::call::Action;
use super::filter::Filter;
use super::place::Target;
use super::reading::reading;
use super::recorder::{list, record, record_failed};
use super::tracee::Tracee;
use crate::fault_injection::image::Image;

const USAGE: &str = "DIRECTORY record LOG PART... | list LOG | kill-before N | kill-after N | fail N ERROR
    | fail-from N ERROR | record-failing N DATA LOG PART... | record-killed N LOG PART... | list-reads LOG
    | fail-read N -- PROGRAM ARGUMENTS...
Calls that change DIRECTORY count, in the last two modes those of PROGRAM that read it; a PART is a directory in it,
whose content is recorded; ERROR is ENOSPC or EIO; record-failing lets call N fail with EIO, and the next syncfs(2) on
its file system; DATA is the directory in DIRECTORY that is one of its own; record-killed kills before call N";

/// What the tracer does with the program.
enum Mode {
    Record(BufWriter<File>),
    List(BufWriter<File>),
    KillBefore(usize),
    KillAfter(usize),
    Fail(usize, Errno),
    /// All calls from this one on fail, as far as the error concerns them.
    FailFrom(usize, Errno),
    /// Records, and lets one call fail with EIO.
    RecordFailing(BufWriter<File>, FailingSync),
    /// Records, and kills before this call.
    RecordKilled(BufWriter<File>, usize),
    /// Lists the calls that read.
    ListReads(BufWriter<File>),
    /// This call that reads fails with EIO.
    FailRead(usize),
}

impl Mode {
    /// Whether calls that read are counted, and only those of the program itself: another program answers for what it
    /// reads.
    fn is_of_reads(&self) -> bool {
        matches!(self, Self::ListReads(_) | Self::FailRead(_))
    }

    /// The log, which has to be complete when the tracer ends.
    fn log(&mut self) -> Option<&mut BufWriter<File>> {
        match self {
            Self::Record(log)
            | Self::List(log)
            | Self::RecordFailing(log, _)
            | Self::RecordKilled(log, _)
            | Self::ListReads(log) => Some(log),
            _ => None,
        }
    }
}

/// A sync that fails.
struct FailingSync {
    /// The number of the call.
    call: usize,
    /// A directory on a file system of its own.
    data: PathBuf,
    /// Whether the file that was not synced is below `data`, until an error was reported for the whole file system.
    unreported: Option<bool>,
}

/// An error that a call returns.
#[derive(Clone, Copy)]
enum Injected {
    /// The kernel skips the call.
    Instead(Errno),
    /// The call is made.
    Afterwards(Errno),
}

/// Runs the tracer.
///
/// # Errors
/// When the command line is invalid, or the program cannot be started or traced.
pub fn run(arguments: Vec<OsString>) -> Result<ExitCode> {
    let split = arguments.iter().position(|word| word == "--").context(USAGE)?;
    let (own, program) = (&arguments[..split], &arguments[split + 1..]);
    let [directory, mode @ ..] = own else { bail!(USAGE) };
    let directory = Path::new(directory).canonicalize().context("reading the directory failed")?;
    let mode = parse(mode, &directory)?;
    let root = start(program, if mode.is_of_reads() { Filter::of_reads() } else { Filter::of_changes() })?;
    Tracer { mode, directory, root, count: 0, tracees: BTreeMap::new() }.follow()
}

fn parse(words: &[OsString], directory: &Path) -> Result<Mode> {
    let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap_or_default()).collect();
    let number = |word: &str| word.parse().with_context(|| format!("invalid number {word:?}\n{USAGE}"));
    Ok(match words[..] {
        ["record", log, ref parts @ ..] if !parts.is_empty() => {
            Mode::Record(begin(log, &Image::of(directory, parts)?)?)
        }
        ["list", log] => Mode::List(begin(log, &Image::empty())?),
        ["kill-before", call] => Mode::KillBefore(number(call)?),
        ["kill-after", call] => Mode::KillAfter(number(call)?),
        ["fail", call, name] => Mode::Fail(number(call)?, error(name)?),
        ["fail-from", call, name] => Mode::FailFrom(number(call)?, error(name)?),
        ["record-failing", call, data, log, ref parts @ ..] if !parts.is_empty() => {
            let failing = FailingSync { call: number(call)?, data: directory.join(data), unreported: None };
            Mode::RecordFailing(begin(log, &Image::of(directory, parts)?)?, failing)
        }
        ["record-killed", call, log, ref parts @ ..] if !parts.is_empty() => {
            Mode::RecordKilled(begin(log, &Image::of(directory, parts)?)?, number(call)?)
        }
        ["list-reads", log] => Mode::ListReads(begin(log, &Image::empty())?),
        ["fail-read", call] => Mode::FailRead(number(call)?),
        _ => bail!(USAGE),
    })
}

fn error(name: &str) -> Result<Errno> {
    match name {
        "ENOSPC" => Ok(Errno::ENOSPC),
        "EIO" => Ok(Errno::EIO),
        _ => bail!("invalid error {name:?}\n{USAGE}"),
    }
}

/// Starts the log with the image of the recorded directories.
fn begin(log: &str, directory: &Image) -> Result<BufWriter<File>> {
    let mut log = BufWriter::new(File::create(log).with_context(|| format!("making the log {log} failed"))?);
    write(&mut log, directory)?;
    Ok(log)
}

fn write(log: &mut BufWriter<File>, line: &impl Serialize) -> Result<()> {
    serde_json::to_writer(&mut *log, line).context("writing the log failed")?;
    writeln!(log).context("writing the log failed")
}

/// The program with its arguments, as execvp(3) takes them. Made before the fork: it must not be allocated after it.
struct Words {
    /// Addresses in `_words`, and 0 at the end.
    pointers: Vec<usize>,
    _words: Vec<CString>,
}

impl Words {
    fn new(program: &[OsString]) -> Result<Self> {
        let words = program.iter().map(|word| CString::new(word.as_bytes())).collect::<Result<Vec<_>, _>>();
        let words = words.context("an argument contains a NUL")?;
        let pointers = words.iter().map(|word| word.as_ptr() as usize).chain([0]).collect();
        Ok(Self { pointers, _words: words })
    }

    /// Executes the program instead of this process, which ends with 127 if that fails.
    #[expect(unsafe_code, reason = "with the filter, std could not report that the program cannot be executed")]
    fn execute(&self) -> ! {
        // SAFETY: the words end with NUL, their list with a null pointer, and both are valid; _exit(2) does not return.
        unsafe {
            nix::libc::execvp(self.pointers[0] as *const _, self.pointers.as_ptr().cast());
            nix::libc::_exit(127)
        }
    }
}

/// Starts the program, stopped at its first instruction.
///
/// # Errors
/// When it cannot be executed. The filter stops the child at each write, and nothing resumes it yet: it cannot write
/// the reason to std's pipe, and would wait for ever. So it executes the program itself.
#[expect(unsafe_code, reason = "only the child can ask to be traced from its first instruction on")]
fn start(program: &[OsString], filter: Filter) -> Result<Pid> {
    let name = program.first().context(USAGE)?;
    let (words, mut command) = (Words::new(program)?, Command::new(name));
    let execute = move || {
        ptrace::traceme()?;
        filter.install()?;
        words.execute()
    };
    // SAFETY: between fork and exec only async-signal-safe functions may be called: these make bare system calls.
    unsafe { command.pre_exec(execute) };
    let shown = Path::new(name).display();
    let child = command.spawn().with_context(|| format!("starting {shown} failed"))?;
    let root = Pid::from_raw(child.id() as i32);
    let status = waitpid(root, None).context("waiting for the program to start failed")?;
    ensure!(
        matches!(status, WaitStatus::Stopped(..)),
        "starting {shown} failed: it is missing, busy or not executable"
    );
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACESECCOMP
        | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(root, options).context("tracing the children of the program failed")?;
    ptrace::cont(root, None).context("starting the program failed")?;
    Ok(root)
}

/// The progress of a process.
#[derive(Default)]
struct Progress {
    /// The counted call that the process is in, with its number, and the error that it returns.
    call: Option<(usize, Action, Option<Injected>)>,
}

struct Tracer {
    mode: Mode,
    directory: PathBuf,
    root: Pid,
    /// Calls counted so far, over all processes.
    count: usize,
    tracees: BTreeMap<Pid, Progress>,
}

impl FailingSync {
    /// The error of call number `count`.
    ///
    /// Linux reports a write that was lost to the next sync of the whole file system too, through any file descriptor
    /// (syncfs(2), since 5.8; a test of the kit shows it). That sync writes everything else.
    fn error_of(&mut self, count: usize, action: &Action) -> Option<Injected> {
        let is_data = |target: &Target| target.shown.starts_with(&self.data);
        match action {
            Action::Sync(target) if count == self.call => {
                self.unreported = Some(is_data(target));
                Some(Injected::Instead(Errno::EIO))
            }
            _ if count == self.call => Some(Injected::Instead(Errno::EIO)),
            Action::SyncFileSystem(target) if self.unreported == Some(is_data(target)) => {
                self.unreported = None;
                Some(Injected::Afterwards(Errno::EIO))
            }
            _ => None,
        }
    }
}

impl Tracer {
    /// Follows all processes until they have ended; returns the exit status of the first.
    fn follow(mut self) -> Result<ExitCode> {
        self.tracees.insert(self.root, Progress::default());
        let mut end = ExitCode::FAILURE;
        loop {
            let status = match waitpid(None, Some(WaitPidFlag::__WALL)) {
                Err(Errno::ECHILD) => break,
                Err(Errno::EINTR) => continue,
                status => status.context("waiting for a process failed")?,
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
                        end = ExitCode::from(128 + signal as u8); // as a shell reports it
                    }
                }
                // Another process may have killed this one meanwhile.
                WaitStatus::PtraceEvent(pid, _, event) if event == Event::PTRACE_EVENT_SECCOMP as i32 => {
                    unless_ended(self.entered(Tracee(pid)), pid)?;
                    self.resume(pid, None)?;
                }
                WaitStatus::PtraceSyscall(pid) => {
                    unless_ended(self.left(Tracee(pid)), pid)?;
                    self.resume(pid, None)?;
                }
                WaitStatus::Stopped(pid, signal) => {
                    let new = !self.tracees.contains_key(&pid);
                    self.tracees.entry(pid).or_default();
                    // A new tracee starts with a SIGSTOP from ptrace, which must not be passed on.
                    self.resume(pid, (!(new && signal == Signal::SIGSTOP)).then_some(signal))?;
                }
                WaitStatus::PtraceEvent(pid, signal, _) => {
                    self.resume(pid, (signal as i32 != SIGTRAP).then_some(signal))?;
                }
                _ => {}
            }
        }
        self.flush()?;
        Ok(end)
    }

    /// Handles the entry of a call at which the filter has stopped the process.
    fn entered(&mut self, tracee: Tracee) -> Result<()> {
        let (number, arguments) = tracee.call()?;
        let action = match self.mode.is_of_reads() {
            true if tracee.0 != self.root => None,
            true => reading(tracee, number, arguments, &self.directory)?,
            false => Action::of(tracee, number, arguments, &self.directory)?,
        };
        let Some(action) = action else { return Ok(()) };
        self.count += 1;
        if matches!(self.mode, Mode::KillBefore(call) | Mode::RecordKilled(_, call) if call == self.count) {
            self.flush()?;
            self.kill_all();
        }
        let error = self.error_of(&action);
        if let Some(Injected::Instead(_)) = error {
            tracee.skip_call()?;
        }
        self.tracees.entry(tracee.0).or_default().call = Some((self.count, action, error));
        Ok(())
    }

    /// The error that the call of `action`, which is counted already, has to return.
    fn error_of(&mut self, action: &Action) -> Option<Injected> {
        let error = match &mut self.mode {
            Mode::Fail(call, error) if *call == self.count => Some(*error),
            Mode::FailRead(call) if *call == self.count => Some(Errno::EIO),
            Mode::RecordFailing(_, failing) => return failing.error_of(self.count, action),
            // A full file system stays full, for what needs space.
            Mode::FailFrom(call, Errno::ENOSPC) if *call <= self.count => {
                (*call == self.count || action.needs_space()).then_some(Errno::ENOSPC)
            }
            // After an I/O error, the kernel makes the file system read-only.
            Mode::FailFrom(call, error) if *call <= self.count && !matches!(action, Action::SyncAll) => {
                Some(if *call == self.count || action.is_sync() { *error } else { Errno::EROFS })
            }
            _ => None,
        };
        error.map(Injected::Instead)
    }

    /// Handles the exit of a counted call.
    fn left(&mut self, tracee: Tracee) -> Result<()> {
        let Some((number, action, error)) = self.tracees.entry(tracee.0).or_default().call.take() else {
            return Ok(());
        };
        match &mut self.mode {
            Mode::KillAfter(call) if *call == number => self.kill_all(),
            Mode::Record(log) | Mode::RecordFailing(log, _) | Mode::RecordKilled(log, _) => {
                let call = match error {
                    Some(Injected::Instead(_)) => record_failed(&action, &self.directory)?,
                    _ => record(tracee, &action, tracee.result()?, &self.directory)?,
                };
                write(log, &call)?;
            }
            Mode::List(log) | Mode::ListReads(log) => write(log, &list(&action, tracee.result()?, &self.directory)?)?,
            _ => {}
        }
        match error {
            Some(Injected::Instead(error) | Injected::Afterwards(error)) => tracee.set_error(error),
            None => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<()> {
        self.mode.log().map_or(Ok(()), |log| log.flush().context("writing the log failed"))
    }

    /// Lets the process run: to the end of the counted call that it is in, or else to the next call of the filter.
    fn resume(&self, pid: Pid, signal: Option<Signal>) -> Result<()> {
        let in_call = self.tracees.get(&pid).is_some_and(|progress| progress.call.is_some());
        let resumed = if in_call { ptrace::syscall(pid, signal) } else { ptrace::cont(pid, signal) };
        unless_ended(resumed.context("resuming a process failed"), pid)
    }

    /// Kills every process, as a power loss does, and then the tracer itself, so that the client sees it.
    fn kill_all(&self) {
        // A process that has ended already is not an error.
        for &pid in self.tracees.keys() {
            let _ = kill(pid, Signal::SIGKILL);
        }
        // Wait until all calls have ended, so that the files do not change any more. A process that was being forked
        // appears only here.
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

/// Ignores an error if the process has ended.
fn unless_ended(done: Result<()>, pid: Pid) -> Result<()> {
    match done {
        Err(error) if error.downcast_ref() != Some(&Errno::ESRCH) && kill(pid, None).is_ok() => Err(error),
        _ => Ok(()),
    }
}
