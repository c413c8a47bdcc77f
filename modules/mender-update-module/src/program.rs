//! Runs programs of the device.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::output::{Captured, Log};
use crate::processes;

/// The longest pause between two polls of a running program.
const POLL: Duration = Duration::from_millis(20);

/// The first pause. Each is twice as long as the one before it: most programs end within milliseconds.
const FIRST_POLL: Duration = Duration::from_millis(1);

/// A program with its arguments and a time limit. At the limit it is killed, with all processes that it has started.
///
/// It has no standard input, unless it is [fed](Self::feed). Its output goes to the deployment log, line by line;
/// standard output can be [captured](Self::output) instead. It never gets the client's pipes: a background process
/// could keep them open, and the client would wait for it.
///
/// ```
/// use std::time::Duration;
/// use mender_update_module::Program;
///
/// let limit = Duration::from_secs(60);
/// assert_eq!(Program::new("echo", limit).arg("text").output()?, b"text\n");
/// assert!(Program::new("false", limit).run().is_err());
/// # anyhow::Ok(())
/// ```
pub struct Program {
    command: Command,
    limit: Duration,
}

/// A running program, and the children that this process had before.
struct Running {
    child: Child,
    _log: Log,
    before: Vec<u32>,
}

impl Drop for Running {
    fn drop(&mut self) {
        processes::ended(self.child.id());
    }
}

impl Program {
    /// The program `program`, a path or a name in `PATH`, with the time limit `limit`.
    pub fn new(program: impl AsRef<OsStr>, limit: Duration) -> Self {
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        // A process group of its own: a signal for the module must not reach, for example, a running dpkg.
        command.process_group(0);
        end_with_module(&mut command);
        Self { command, limit }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs the program, which has to succeed.
    ///
    /// # Errors
    /// When it cannot be started, fails, or reaches the time limit.
    pub fn run(mut self) -> Result<()> {
        let status = self.status()?;
        self.succeeded(status)
    }

    /// Runs the program and returns its exit status.
    ///
    /// # Errors
    /// When it cannot be started, or reaches the time limit.
    pub fn status(&mut self) -> Result<ExitStatus> {
        let running = self.start(Stdout::Logged)?;
        self.wait(running)
    }

    /// Runs the program, which has to succeed, and returns its standard output.
    ///
    /// # Errors
    /// As [`run`](Self::run), and when the output is larger than 8 MiB.
    pub fn output(mut self) -> Result<Vec<u8>> {
        let (status, output) = self.answer()?;
        self.succeeded(status)?;
        Ok(output)
    }

    /// Runs the program and returns its exit status and its standard output.
    ///
    /// # Errors
    /// As [`status`](Self::status), and when the output is larger than 8 MiB.
    pub fn answer(&mut self) -> Result<(ExitStatus, Vec<u8>)> {
        let mut running = self.start(Stdout::Piped)?;
        let captured = Captured::from(take_stdout(&mut running)?);
        let status = self.wait(running)?;
        Ok((status, captured.whole().with_context(|| format!("reading the output of {self} failed"))?))
    }

    /// Runs the program, which has to succeed, and passes its standard output, of any size, to `read`. The time limit
    /// starts again with each output.
    ///
    /// # Errors
    /// As [`run`](Self::run), and when `read` fails.
    pub fn stream<T>(mut self, read: impl FnOnce(&mut dyn Read) -> Result<T>) -> Result<T> {
        let mut running = self.start(Stdout::Piped)?;
        let stdout = take_stdout(&mut running)?;
        let mut stdout = UntilExit { stdout, child: &mut running.child, limit: self.limit, since: Instant::now() };
        let result = read(&mut stdout);
        // Read the rest, so that the program does not fail on a closed pipe.
        let rest = if result.is_ok() { io::copy(&mut stdout, &mut io::sink()) } else { Ok(0) };
        drop(stdout);
        let status = self.wait(running)?;
        let result = result?;
        rest.with_context(|| format!("reading the output of {self} failed"))?;
        self.succeeded(status)?;
        Ok(result)
    }

    /// Runs the program with all of `from` as its standard input, and returns its standard output. The time limit
    /// starts at the end of `from`, which may come from a slow network.
    ///
    /// # Errors
    /// As [`output`](Self::output), and when `from` fails. `from` may then be read in part.
    pub fn feed(mut self, from: &mut impl Read) -> Result<Vec<u8>> {
        self.command.stdin(Stdio::piped());
        let mut running = self.start(Stdout::Piped)?;
        let captured = Captured::from(take_stdout(&mut running)?);
        let mut stdin = running.child.stdin.take().context("no standard input")?;
        let fed = io::copy(from, &mut stdin);
        drop(stdin);
        let status = self.wait(running)?;
        let output = self
            .succeeded(status)
            .and_then(|()| captured.whole().with_context(|| format!("reading the output of {self} failed")));
        match fed {
            // If the program failed, its own error is more useful.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                output.and_then(|_| bail!("{self} failed: it did not read all of its input"))
            }
            Err(error) => Err(error).with_context(|| format!("writing the payload to {self} failed")),
            Ok(_) => output,
        }
    }

    fn start(&mut self, stdout: Stdout) -> Result<Running> {
        let program = self.command.get_program().to_owned();
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).context("making a pipe failed")?;
        match stdout {
            // The module's standard output is for answers to queries.
            Stdout::Logged => self.command.stdout(writer.try_clone().context("duplicating a pipe failed")?),
            Stdout::Piped => self.command.stdout(Stdio::piped()),
        };
        self.command.stderr(writer);
        let before = processes::children();
        let child = processes::spawn(&mut self.command);
        // The command would keep its ends of the pipes open, and the reader would never see their end.
        self.command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = child.with_context(|| format!("starting {program:?} failed: install it if it is missing"))?;
        Ok(Running { child, _log: Log::from(reader), before })
    }

    fn wait(&self, mut running: Running) -> Result<ExitStatus> {
        let (begun, mut pause) = (Instant::now(), FIRST_POLL);
        loop {
            processes::block_if_ending();
            let ended = running.child.try_wait().with_context(|| format!("waiting for {self} failed"))?;
            processes::block_if_ending();
            if let Some(status) = ended {
                return Ok(status);
            }
            if begun.elapsed() >= self.limit {
                processes::kill_program(running.child.id(), &running.before);
                running.child.wait().with_context(|| format!("killing {self} failed"))?;
                bail!(
                    "{self} failed: it was killed at its time limit of {} s, with its child processes",
                    self.limit.as_secs_f32()
                );
            }
            thread::sleep(pause);
            pause = (2 * pause).min(POLL);
        }
    }

    fn succeeded(&self, status: ExitStatus) -> Result<()> {
        ensure!(status.success(), "{self} failed: {status}");
        Ok(())
    }
}

/// The target of a program's standard output.
enum Stdout {
    Logged,
    Piped,
}

fn take_stdout(running: &mut Running) -> Result<ChildStdout> {
    running.child.stdout.take().context("no standard output")
}

/// Makes the kernel kill the program if the module is killed, for example by the client at its time limit.
#[expect(unsafe_code, reason = "only the child itself can ask for the signal")]
fn end_with_module(command: &mut Command) {
    // SAFETY: between fork and exec only async-signal-safe functions may be called; prctl(2) is a bare system call.
    unsafe { command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?)) };
}

/// The output of a program until it exits: a background process may keep the pipe open.
struct UntilExit<'a> {
    stdout: ChildStdout,
    child: &'a mut Child,
    /// The time limit, and the time of the last output.
    limit: Duration,
    since: Instant,
}

impl Read for UntilExit<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // Checked before the pipe, so that everything that the program wrote before its end is in the pipe.
            let ended = self.child.try_wait()?.is_some();
            let limit = Timespec { tv_sec: 0, tv_nsec: if ended { 0 } else { i64::from(POLL.subsec_nanos()) } as _ };
            if poll(&mut [PollFd::new(&self.stdout, PollFlags::IN)], Some(&limit))? > 0 {
                self.since = Instant::now();
                return self.stdout.read(buffer);
            }
            if ended {
                return Ok(0);
            }
            if self.since.elapsed() >= self.limit {
                let silent = format!("no output for {} s", self.limit.as_secs_f32());
                return Err(io::Error::new(io::ErrorKind::TimedOut, silent));
            }
        }
    }
}

/// The command line, with quotation marks.
impl fmt::Display for Program {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.command.get_program())?;
        self.command.get_args().try_for_each(|argument| write!(formatter, " {argument:?}"))
    }
}

#[cfg(test)]
mod tests;
