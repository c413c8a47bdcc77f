//! The one way in which a module runs a program of the device.

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

/// How often a running program is looked at.
const POLL: Duration = Duration::from_millis(20);

/// A program, its arguments, and the longest that it may take: it is killed after that, with all that it has started.
///
/// It has no standard input, unless it is [fed](Self::feed). What it writes goes to the deployment log, line by line; only
/// its standard output may be [captured](Self::output). It never has the client's own pipes: something that it leaves
/// running in the background could keep those open, and the client would wait for it.
pub struct Program {
    command: Command,
    limit: Duration,
}

/// A program that runs, with the processes that were this one's children before.
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
    /// `program`, a path or a name to be looked for in `PATH`, for at most `limit`.
    pub fn new(program: impl AsRef<OsStr>, limit: Duration) -> Self {
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        // A group of its own: what ends it ends all of it, and a signal for the module is not one for a half-done dpkg.
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

    /// Sets one variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it, and has to see it succeed.
    ///
    /// # Errors
    /// When it cannot be started, exits with anything but 0, or had to be killed.
    pub fn run(mut self) -> Result<()> {
        let status = self.status()?;
        self.succeeded(status)
    }

    /// Runs it and says how it ended, for programs whose exit status is an answer.
    ///
    /// # Errors
    /// When it cannot be started or had to be killed.
    pub fn status(&mut self) -> Result<ExitStatus> {
        let running = self.start(Stdout::Logged)?;
        self.wait(running)
    }

    /// Runs it and returns what it wrote to standard output.
    ///
    /// # Errors
    /// As [`run`](Self::run), and when that was more than 8 MiB.
    pub fn output(mut self) -> Result<Vec<u8>> {
        let (status, output) = self.answer()?;
        self.succeeded(status)?;
        Ok(output)
    }

    /// Runs it and returns how it ended and what it wrote to standard output, for programs that say there why they
    /// fail.
    ///
    /// # Errors
    /// As [`status`](Self::status), and when it wrote more than 8 MiB.
    pub fn answer(&mut self) -> Result<(ExitStatus, Vec<u8>)> {
        let mut running = self.start(Stdout::Piped)?;
        let captured = Captured::from(take_stdout(&mut running)?);
        let status = self.wait(running)?;
        Ok((status, captured.whole().with_context(|| format!("reading the output of {self}"))?))
    }

    /// Runs it and lets `read` have what it writes to standard output, however much, while it does. The limit counts from
    /// what it wrote last.
    ///
    /// # Errors
    /// Those of `read`, else as [`run`](Self::run).
    pub fn stream<T>(mut self, read: impl FnOnce(&mut dyn Read) -> Result<T>) -> Result<T> {
        let mut running = self.start(Stdout::Piped)?;
        let stdout = take_stdout(&mut running)?;
        let mut stdout =
            UntilExit { stdout, child: &mut running.child, limit: self.limit, since: Instant::now() };
        let taken = read(&mut stdout);
        // A program that cannot get rid of the rest would fail for that.
        let rest = if taken.is_ok() { io::copy(&mut stdout, &mut io::sink()) } else { Ok(0) };
        drop(stdout);
        let status = self.wait(running)?;
        let taken = taken?;
        rest.with_context(|| format!("reading the output of {self}"))?;
        self.succeeded(status)?;
        Ok(taken)
    }

    /// Runs it with all of `from` as its standard input, and returns what it wrote to standard output. The limit counts
    /// from the end of `from` on, which may come from a slow network.
    ///
    /// # Errors
    /// As [`output`](Self::output), and when `from` fails. `from` may not have been read to its end then.
    pub fn feed(mut self, from: &mut impl Read) -> Result<Vec<u8>> {
        self.command.stdin(Stdio::piped());
        let mut running = self.start(Stdout::Piped)?;
        let captured = Captured::from(take_stdout(&mut running)?);
        let mut stdin = running.child.stdin.take().context("the program has no standard input")?;
        let fed = io::copy(from, &mut stdin);
        drop(stdin);
        let status = self.wait(running)?;
        let output = self
            .succeeded(status)
            .and_then(|()| captured.whole().with_context(|| format!("reading the output of {self}")));
        match fed {
            // The program's own words say better why it did not want more.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                output.and_then(|_| bail!("{self} did not read all that it was given"))
            }
            Err(error) => Err(error).with_context(|| format!("handing the payload to {self}")),
            Ok(_) => output,
        }
    }

    fn start(&mut self, stdout: Stdout) -> Result<Running> {
        let program = self.command.get_program().to_owned();
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).context("making a pipe for a program's log")?;
        match stdout {
            // Standard output of a module is for answers to queries.
            Stdout::Logged => self.command.stdout(writer.try_clone().context("duplicating a pipe")?),
            Stdout::Piped => self.command.stdout(Stdio::piped()),
        };
        self.command.stderr(writer);
        let before = processes::children();
        let child = processes::spawn(&mut self.command);
        // The command holds its pipes open, and their end would never come.
        self.command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = child.with_context(|| format!("starting {program:?}: is it installed?"))?;
        Ok(Running { child, _log: Log::from(reader), before })
    }

    fn wait(&self, mut running: Running) -> Result<ExitStatus> {
        let begun = Instant::now();
        loop {
            processes::wait_for_the_end_if_near();
            let ended = running.child.try_wait().with_context(|| format!("waiting for {self}"))?;
            processes::wait_for_the_end_if_near();
            if let Some(status) = ended {
                return Ok(status);
            }
            if begun.elapsed() >= self.limit {
                processes::kill_program(running.child.id(), &running.before);
                running.child.wait().with_context(|| format!("killing {self}"))?;
                bail!(
                    "{self} did not end within {} s and was killed, with all that it had started",
                    self.limit.as_secs_f32()
                );
            }
            thread::sleep(POLL);
        }
    }

    fn succeeded(&self, status: ExitStatus) -> Result<()> {
        ensure!(status.success(), "{self} failed: {status}");
        Ok(())
    }
}

/// Where a program's standard output goes.
enum Stdout {
    Logged,
    Piped,
}

fn take_stdout(running: &mut Running) -> Result<ChildStdout> {
    running.child.stdout.take().context("the program has no standard output")
}

/// Makes the kernel kill the program when the module dies without having ended it: killed by the client, say, at the end
/// of its patience.
#[expect(unsafe_code, reason = "only the child itself can ask for the signal")]
fn end_with_module(command: &mut Command) {
    // SAFETY: between fork and exec only async-signal-safe functions may be called; prctl(2) is a bare system call.
    unsafe { command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?)) };
}

/// What a program writes, until it exits: something that it leaves running may keep its output open for ever.
struct UntilExit<'a> {
    stdout: ChildStdout,
    child: &'a mut Child,
    /// How long it may be silent, and since when it is.
    limit: Duration,
    since: Instant,
}

impl Read for UntilExit<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // Looked at before the pipe: what the program wrote before it ended is there then.
            let ended = self.child.try_wait()?.is_some();
            let limit =
                Timespec { tv_sec: 0, tv_nsec: if ended { 0 } else { i64::from(POLL.subsec_nanos()) } as _ };
            if poll(&mut [PollFd::new(&self.stdout, PollFlags::IN)], Some(&limit))? > 0 {
                self.since = Instant::now();
                return self.stdout.read(buffer);
            }
            if ended {
                return Ok(0);
            }
            if self.since.elapsed() >= self.limit {
                let silent = format!("it has written nothing for {} s", self.limit.as_secs_f32());
                return Err(io::Error::new(io::ErrorKind::TimedOut, silent));
            }
        }
    }
}

/// The program and its arguments as one would type them, with quotation marks.
impl fmt::Display for Program {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.command.get_program())?;
        self.command.get_args().try_for_each(|argument| write!(formatter, " {argument:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn shell(script: &str) -> Program {
        Program::new("sh", LIMIT).args(["-c", script])
    }

    fn said<T: fmt::Debug>(result: Result<T>) -> String {
        format!("{:#}", result.unwrap_err())
    }

    #[test]
    fn failures_say_what_was_run_and_how_it_ended() {
        Program::new("true", LIMIT).run().unwrap();
        assert!(said(shell("exit 3").run()).contains("exit status: 3"));
        assert_eq!(shell("exit 3").status().unwrap().code(), Some(3));
        assert!(said(Program::new("/no/such/program", LIMIT).arg("x").run()).contains("/no/such/program"));
        let killed = said(Program::new("sleep", Duration::from_millis(100)).arg("600").run());
        assert!(killed.contains("sleep") && killed.contains("killed"), "{killed}");
    }

    #[test]
    fn output_is_captured_however_long() {
        let long = shell("yes | head -c 200000; echo $WORD").env("WORD", "end").output().unwrap();
        assert!(long.len() > 200_000 && long.ends_with(b"end\n"));
        assert!(said(shell("echo no; exit 4").output()).contains("exit status: 4"));
        let (status, words) = shell("echo because; exit 4").answer().unwrap();
        assert_eq!((status.code(), words.as_slice()), (Some(4), &b"because\n"[..]));
    }

    #[test]
    fn output_is_read_while_it_comes_and_need_not_be_read_whole() {
        let first = |stdout: &mut dyn Read| {
            let mut byte = [0];
            stdout.read_exact(&mut byte)?;
            Ok(byte[0])
        };
        assert_eq!(shell("yes | head -c 200000").stream(first).unwrap(), b'y');
        assert!(said(shell("echo x; exit 6").stream(first)).contains("exit status: 6"));
        assert!(said(shell("yes").stream(|_| -> Result<()> { bail!("no more") })).contains("no more"));
    }

    #[test]
    fn what_is_fed_arrives_whole_or_is_an_error() {
        let mut payload = io::repeat(7).take(300_000);
        assert_eq!(shell("cat").feed(&mut payload).unwrap().len(), 300_000);
        let refused = said(shell("exit 5").feed(&mut io::repeat(7).take(300_000)));
        assert!(refused.contains("exit status: 5"), "{refused}");
        let careless = said(shell("exec <&-; exit 0").feed(&mut io::repeat(7).take(300_000)));
        assert!(careless.contains("did not read all"), "{careless}");
    }

    #[test]
    fn a_background_child_does_not_keep_a_program_from_ending() {
        let begun = Instant::now();
        shell("sleep 600 & echo done").run().unwrap();
        assert_eq!(shell("sleep 600 & echo done").output().unwrap(), b"done\n");
        let all = |stdout: &mut dyn Read| Ok(io::read_to_string(stdout)?);
        assert_eq!(shell("sleep 600 & echo done").stream(all).unwrap(), "done\n");
        assert_eq!(shell("sleep 600 & cat").feed(&mut &b"x"[..]).unwrap(), b"x");
        assert!(begun.elapsed() < LIMIT, "the background child was waited for");
    }

    #[test]
    fn a_limit_ends_everything_that_a_program_has_started() {
        let marks = ["3001.25", "3002.25", "3003.25"];
        // A child, one in a session of its own as dpkg is below apt, and an orphan.
        let script = "sleep 3001.25 & setsid sleep 3002.25 & (setsid sleep 3003.25 &) ; wait; sleep 600";
        processes::adopt_orphans();
        let killed = said(Program::new("sh", Duration::from_secs(1)).args(["-c", script]).run());
        assert!(killed.contains("was killed"), "{killed}");
        for mark in marks {
            let left = Command::new("pgrep").args(["-f", &format!("^sleep {mark}")]).output().unwrap().stdout;
            assert!(left.is_empty(), "sleep {mark} is left: {}", String::from_utf8_lossy(&left));
        }
    }

    #[test]
    fn a_program_that_falls_silent_is_ended() {
        let all = |stdout: &mut dyn Read| Ok(io::read_to_string(stdout)?);
        let silent = Program::new("sh", Duration::from_millis(300)).args(["-c", "echo x; exec sleep 600"]);
        assert!(said(silent.stream(all)).contains("killed"));
    }

    #[test]
    fn output_is_bounded() {
        let endless = said(shell("yes").output());
        assert!(endless.contains("more than"), "{endless}");
    }
}
