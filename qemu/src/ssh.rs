//! Commands and files in the machine, over one shared ssh connection.
//!
//! The key exchange of a connection takes the emulated CPU half a second, each command over it 0.2 s.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::limit::{CONNECT, Limit};

/// The interval at which the status of a running command is polled.
const PAUSE: Duration = Duration::from_millis(10);
/// ssh's exit status when the connection failed.
const NO_CONNECTION: i32 = 255;

/// The output of a command in the machine.
#[derive(Debug)]
pub struct Output {
    /// Its exit status, or 128 + N if signal N ended it.
    pub status: i32,
    /// Its standard output. Invalid UTF-8 is replaced.
    pub stdout: String,
    /// Its standard error, line by line.
    pub stderr: Vec<Line>,
}

/// A line of output.
#[derive(Clone, Debug)]
pub struct Line {
    /// When the host received it.
    pub received: Instant,
    /// Its text, with the line end if it has one. Invalid UTF-8 is replaced.
    pub text: String,
}

impl Output {
    /// Whether the exit status is 0.
    pub fn success(&self) -> bool {
        self.status == 0
    }

    /// Its standard output, followed by its standard error.
    pub fn text(&self) -> String {
        self.stderr.iter().fold(self.stdout.clone(), |text, line| text + &line.text)
    }
}

/// The connection to one machine.
pub(crate) struct Ssh {
    /// The ssh configuration of this machine, with the host name `pi`.
    config: PathBuf,
    /// The directory of the control socket. The path of a socket is limited to about 100 bytes, hence `/tmp`.
    _sockets: TempDir,
}

impl Ssh {
    /// Writes the ssh configuration into `directory`. Port `port` of the host leads to the machine's ssh server.
    pub(crate) fn new(port: u16, key: &Path, directory: &Path) -> Result<Self> {
        let sockets =
            tempfile::Builder::new().prefix("pi-").tempdir_in("/tmp").context("creating a directory in /tmp failed")?;
        let config = directory.join("ssh_config");
        // The host key is not checked: the machine is disposable, and the connection does not leave this host.
        let text = format!(
            "Host pi\n HostName 127.0.0.1\n Port {port}\n User root\n IdentityFile \"{}\"\n IdentitiesOnly yes\n \
             BatchMode yes\n StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n LogLevel ERROR\n \
             ConnectTimeout 30\n ServerAliveInterval 15\n ServerAliveCountMax 20\n ControlPath \"{}/%C\"\n",
            key.display(),
            sockets.path().display()
        );
        std::fs::write(&config, text).with_context(|| format!("writing {} failed", config.display()))?;
        Ok(Self { config, _sockets: sockets })
    }

    /// The configuration file: `ssh -F FILE pi`, `scp -F FILE … pi:…`.
    pub(crate) fn config(&self) -> &Path {
        &self.config
    }

    /// Opens the shared connection. Tries again until [`CONNECT`] expires, because the server may start shortly after
    /// the machine reports that it is ready.
    pub(crate) fn connect(&self) -> Result<()> {
        let wait = CONNECT.start();
        loop {
            let log = self.config.with_file_name("ssh.log");
            let status = self
                .ssh()
                .args(["-M", "-f", "-N", "pi"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(File::create(&log).with_context(|| format!("creating {} failed", log.display()))?)
                .status()
                .context("starting ssh failed")?;
            if status.success() {
                return Ok(());
            }
            if wait.left().is_none() {
                let output = std::fs::read_to_string(&log).unwrap_or_default();
                bail!("connecting by ssh failed: {wait} expired: {}", output.trim());
            }
            thread::sleep(PAUSE * 20);
        }
    }

    /// Starts `command`, a line for the machine's shell. Its standard output is collected if `stdout` is a pipe.
    pub(crate) fn start(&self, command: &str, stdin: Stdio, stdout: Stdio) -> Result<Background> {
        let mut child = self
            .ssh()
            .args(["pi", command])
            .stdin(stdin)
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .context("starting ssh failed")?;
        let stdout = collect(child.stdout.take());
        let stderr = Lines::default();
        let stderr_reader = stderr.collect(child.stderr.take());
        Ok(Background { command: command.to_owned(), child, stdout, stderr, stderr_reader })
    }

    /// ssh with this machine's configuration. The host name is `pi`.
    pub(crate) fn ssh(&self) -> Command {
        let mut command = Command::new("ssh");
        command.arg("-F").arg(&self.config);
        command
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        // Ends the background process of the shared connection.
        let _ = self.ssh().args(["-O", "exit", "pi"]).stderr(Stdio::null()).stdout(Stdio::null()).status();
    }
}

/// A running command in the machine. Dropping it closes the connection, which may leave the command running.
pub struct Background {
    command: String,
    child: Child,
    stdout: JoinHandle<Vec<u8>>,
    stderr: Lines,
    stderr_reader: JoinHandle<()>,
}

impl Background {
    /// Whether the command is still running.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().context("reading the status of ssh failed")?.is_none())
    }

    /// Waits for the end of the command, and fails early if `check` fails.
    pub(crate) fn wait_while(mut self, limit: Limit, check: impl Fn() -> Result<()>) -> Result<Output> {
        let wait = limit.start();
        while self.is_running()? {
            check().with_context(|| format!("running {}", self.command))?;
            wait.check().with_context(|| format!("command did not end: {}", self.command))?;
            thread::sleep(PAUSE);
        }
        let status = self.child.wait()?.code().unwrap_or(NO_CONNECTION);
        // A reader ends with its stream, and does not panic.
        let _ = self.stderr_reader.join();
        let output = Output { status, stdout: text(self.stdout), stderr: self.stderr.get().clone() };
        if status == NO_CONNECTION {
            bail!("connection lost: running {}\n{}", self.command, output.text());
        }
        Ok(output)
    }

    /// The lines of standard error that the host has received until now.
    pub fn stderr(&self) -> Vec<Line> {
        self.stderr.get().clone()
    }

    /// Closes the connection without waiting for the command.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of a stream. A thread adds to them until the stream ends.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<Line>>>);

impl Lines {
    fn collect(&self, stream: Option<impl Read + Send + 'static>) -> JoinHandle<()> {
        let lines = self.clone();
        thread::spawn(move || {
            let Some(mut stream) = stream.map(BufReader::new) else { return };
            let mut line = Vec::new();
            // Lines before an error are kept.
            while stream.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
                let text = String::from_utf8_lossy(&line).into_owned();
                lines.get().push(Line { received: Instant::now(), text });
                line.clear();
            }
        })
    }

    fn get(&self) -> MutexGuard<'_, Vec<Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn collect(stream: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // Output before an error is kept.
            let _ = stream.read_to_end(&mut bytes);
        }
        bytes
    })
}

fn text(collected: JoinHandle<Vec<u8>>) -> String {
    String::from_utf8_lossy(&collected.join().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::with_deadline;

    #[test]
    fn a_command_ends_at_the_deadline() {
        // It ends when its standard input is closed, which is when the command is dropped.
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdout, stderr) = (collect(child.stdout.take()), Lines::default());
        let stderr_reader = stderr.collect(None::<File>);
        let background = Background { command: "cat".to_owned(), child, stdout, stderr, stderr_reader };
        let (past, minute) = (Limit::new("PAST", 0), Limit::new("MINUTE", 60));
        let error = with_deadline(past, || background.wait_while(minute, || Ok(()))).unwrap_err();
        assert!(format!("{error:#}").starts_with("command did not end: cat: deadline PAST (0 s"), "{error:#}");
    }

    #[test]
    fn lines_are_complete_and_in_order() {
        let lines = Lines::default();
        lines.collect(Some(&b"one\ntwo\xff\n\nlast"[..])).join().unwrap();
        let output = Output { status: 0, stdout: "out\n".to_owned(), stderr: lines.get().clone() };
        assert_eq!(output.text(), "out\none\ntwo\u{fffd}\n\nlast");
        assert!(output.stderr.is_sorted_by_key(|line| line.received));
    }
}
