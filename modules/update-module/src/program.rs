//! The one way in which a module runs a program of the device.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::panic::resume_unwind;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How often a running program is looked at.
const POLL: Duration = Duration::from_millis(20);

/// A program, its arguments, and the longest that it may take: it is killed after that.
///
/// It has no standard input, unless it is [fed](Self::feed). What it says goes to the deployment log as it says it; only
/// its standard output may be [captured](Self::output).
pub struct Program {
    command: Command,
    limit: Duration,
}

impl Program {
    /// `program`, a path or a name to be looked for in `PATH`, for at most `limit`.
    pub fn new(program: impl AsRef<OsStr>, limit: Duration) -> Self {
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
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
        // Standard output of a module is for answers to queries.
        let log = io::stderr().as_fd().try_clone_to_owned().context("duplicating standard error")?;
        self.command.stdout(log);
        let mut child = self.spawn()?;
        self.wait(&mut child)
    }

    /// Runs it and returns what it wrote to standard output.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn output(mut self) -> Result<Vec<u8>> {
        let (status, output) = self.answer()?;
        self.succeeded(status)?;
        Ok(output)
    }

    /// Runs it and returns how it ended and what it wrote to standard output, for programs that say there why they
    /// fail.
    ///
    /// # Errors
    /// As [`status`](Self::status).
    pub fn answer(&mut self) -> Result<(ExitStatus, Vec<u8>)> {
        self.command.stdout(Stdio::piped());
        let mut child = self.spawn()?;
        let said = Said::by(&mut child)?;
        let status = self.wait(&mut child)?;
        Ok((status, said.whole().with_context(|| format!("reading what {self} says"))?))
    }

    /// Runs it and lets `read` have what it writes to standard output, however much, while it does. The limit counts from
    /// the end of that on.
    ///
    /// # Errors
    /// Those of `read`, else as [`run`](Self::run).
    pub fn stream<T>(mut self, read: impl FnOnce(&mut ChildStdout) -> Result<T>) -> Result<T> {
        self.command.stdout(Stdio::piped());
        let mut child = self.spawn()?;
        let mut stdout = child.stdout.take().context("the program has no standard output")?;
        let taken = read(&mut stdout);
        // A program that cannot get rid of the rest would fail for that.
        let rest = if taken.is_ok() { io::copy(&mut stdout, &mut io::sink()) } else { Ok(0) };
        drop(stdout);
        let status = self.wait(&mut child)?;
        let taken = taken?;
        rest.with_context(|| format!("reading what {self} says"))?;
        self.succeeded(status)?;
        Ok(taken)
    }

    /// Runs it with all of `from` as its standard input, and returns what it wrote to standard output. The limit counts
    /// from the end of `from` on, which may come from a slow network.
    ///
    /// # Errors
    /// As [`run`](Self::run), and when `from` fails. `from` may not have been read to its end then.
    pub fn feed(mut self, from: &mut impl Read) -> Result<Vec<u8>> {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = self.spawn()?;
        let said = Said::by(&mut child)?;
        let mut stdin = child.stdin.take().context("the program has no standard input")?;
        let fed = io::copy(from, &mut stdin);
        drop(stdin);
        let captured = self.captured(&mut child, said);
        match fed {
            // The program's own words say better why it did not want more.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                captured.and_then(|_| bail!("{self} did not read all that it was given"))
            }
            Err(error) => Err(error).with_context(|| format!("handing the payload to {self}")),
            Ok(_) => captured,
        }
    }

    fn spawn(&mut self) -> Result<Child> {
        let program = self.command.get_program().to_owned();
        self.command.spawn().with_context(|| format!("starting {program:?}: is it installed?"))
    }

    fn captured(&self, child: &mut Child, said: Said) -> Result<Vec<u8>> {
        let status = self.wait(child)?;
        self.succeeded(status)?;
        said.whole().with_context(|| format!("reading what {self} says"))
    }

    fn wait(&self, child: &mut Child) -> Result<ExitStatus> {
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait().with_context(|| format!("waiting for {self}"))? {
                return Ok(status);
            }
            if begun.elapsed() >= self.limit {
                child.kill().and_then(|()| child.wait()).with_context(|| format!("killing {self}"))?;
                bail!("{self} did not end within {} s and was killed", self.limit.as_secs_f32());
            }
            thread::sleep(POLL);
        }
    }

    fn succeeded(&self, status: ExitStatus) -> Result<()> {
        ensure!(status.success(), "{self} failed: {status}");
        Ok(())
    }
}

/// What a program says on standard output, read while it runs: it would wait for ever once a pipe is full.
struct Said(JoinHandle<io::Result<Vec<u8>>>);

impl Said {
    fn by(child: &mut Child) -> Result<Self> {
        let mut stdout = child.stdout.take().context("the program has no standard output")?;
        Ok(Self(thread::spawn(move || {
            let mut said = Vec::new();
            stdout.read_to_end(&mut said).map(|_| said)
        })))
    }

    fn whole(self) -> io::Result<Vec<u8>> {
        self.0.join().unwrap_or_else(|panic| resume_unwind(panic))
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
        let first = |stdout: &mut ChildStdout| {
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
}
