//! Commands and files in the machine, over one ssh connection that all of them share.
//!
//! The first connection costs an emulated CPU half a second of arithmetic; every command after it 0.2 s.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::limit::{CONNECT, Limit};

/// How often a running command is looked at; far below what a command takes.
const PAUSE: Duration = Duration::from_millis(10);
/// ssh's own exit status for "there is no connection".
const NO_CONNECTION: i32 = 255;

/// What a command in the machine has answered.
#[derive(Debug)]
pub struct Output {
    /// Its exit status; 128 + N when signal N ended it.
    pub status: i32,
    /// Its standard output, bytes that are no UTF-8 replaced.
    pub stdout: String,
    /// Its standard error, likewise.
    pub stderr: String,
}

impl Output {
    /// Whether the exit status is 0.
    pub fn success(&self) -> bool {
        self.status == 0
    }

    /// Standard output, then standard error.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// The connection to one machine.
pub(crate) struct Ssh {
    /// ssh's settings for this machine, under the host name `pi`.
    config: PathBuf,
    /// Holds sockets, whose paths may have no more than about 100 bytes.
    sockets: TempDir,
}

impl Ssh {
    /// Settings for the machine whose ssh answers at `port` of this host, written into `directory`.
    pub(crate) fn new(port: u16, key: &Path, directory: &Path) -> Result<Self> {
        let sockets = tempfile::Builder::new()
            .prefix("pi-")
            .tempdir_in("/tmp")
            .context("making a directory in /tmp")?;
        let config = directory.join("ssh_config");
        // The key of the machine is as disposable as the machine, and the connection never leaves this host.
        let text = format!(
            "Host pi\n HostName 127.0.0.1\n Port {port}\n User root\n IdentityFile \"{}\"\n IdentitiesOnly yes\n \
             BatchMode yes\n StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n LogLevel ERROR\n \
             ConnectTimeout 30\n ServerAliveInterval 15\n ServerAliveCountMax 20\n ControlPath \"{}/%C\"\n",
            key.display(),
            sockets.path().display()
        );
        std::fs::write(&config, text).with_context(|| format!("writing {}", config.display()))?;
        Ok(Self { config, sockets })
    }

    /// The settings' file: `ssh -F FILE pi`, `scp -F FILE … pi:…`.
    pub(crate) fn config(&self) -> &Path {
        &self.config
    }

    /// A directory for sockets, of this machine alone, that goes with it.
    pub(crate) fn sockets(&self) -> &Path {
        self.sockets.path()
    }

    /// Opens the shared connection, trying again until [`CONNECT`] expires: the server may be a moment later
    /// than the machine's word that it is ready.
    pub(crate) fn connect(&self) -> Result<()> {
        let deadline = Instant::now() + CONNECT.duration();
        loop {
            let log = self.config.with_file_name("ssh.log");
            let status = self
                .ssh()
                .args(["-M", "-f", "-N", "pi"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(File::create(&log).with_context(|| format!("creating {}", log.display()))?)
                .status()
                .context("starting ssh")?;
            if status.success() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                bail!("the machine does not answer ssh: {CONNECT} expired: {}", said.trim());
            }
            thread::sleep(PAUSE * 20);
        }
    }

    /// Starts `command`, a line for the machine's shell. What it prints is collected where `stdout` is piped.
    pub(crate) fn start(&self, command: &str, stdin: Stdio, stdout: Stdio) -> Result<Background> {
        let mut child = self
            .ssh()
            .args(["pi", command])
            .stdin(stdin)
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .context("starting ssh")?;
        let stdout = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        Ok(Background { command: command.to_owned(), child, stdout, stderr })
    }

    /// ssh with this machine's settings; the host is `pi`.
    pub(crate) fn ssh(&self) -> Command {
        let mut command = Command::new("ssh");
        command.arg("-F").arg(&self.config);
        command
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        // The shared connection's own process; it would also end by itself when the machine is gone.
        let _ = self.ssh().args(["-O", "exit", "pi"]).stderr(Stdio::null()).stdout(Stdio::null()).status();
    }
}

/// A command under way in the machine. Dropping it ends the connection to it, not always the command.
pub struct Background {
    command: String,
    child: Child,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
}

impl Background {
    /// Whether it is still under way.
    ///
    /// # Errors
    /// When the host cannot say.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait().context("asking for ssh's status")?.is_none())
    }

    /// Waits for its end, and fails early with what `trouble` returns.
    pub(crate) fn wait_while(mut self, limit: Limit, trouble: impl Fn() -> Result<()>) -> Result<Output> {
        let deadline = Instant::now() + limit.duration();
        while self.is_running()? {
            trouble().with_context(|| format!("while running: {}", self.command))?;
            if Instant::now() > deadline {
                bail!("{limit} expired while running: {}", self.command);
            }
            thread::sleep(PAUSE);
        }
        let status = self.child.wait()?.code().unwrap_or(NO_CONNECTION);
        let output = Output { status, stdout: text(self.stdout), stderr: text(self.stderr) };
        if status == NO_CONNECTION {
            bail!("the connection broke while running: {}\n{}", self.command, output.text());
        }
        Ok(output)
    }

    /// Ends the connection: for one that hangs.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(stream: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What was read before an error is still worth showing.
            let _ = stream.read_to_end(&mut bytes);
        }
        bytes
    })
}

fn text(collected: JoinHandle<Vec<u8>>) -> String {
    String::from_utf8_lossy(&collected.join().unwrap_or_default()).into_owned()
}

/// `word` as one word for the machine's shell.
pub(crate) fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_survives_quotes() {
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("it's"), "'it'\\''s'");
    }
}
