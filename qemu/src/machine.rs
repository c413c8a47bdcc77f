//! A running machine.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail, ensure};
use host::script::quoted;
use host::status::Step;

use crate::command::{self, Options};
use crate::console::{Console, Waited};
use crate::image::Image;
use crate::limit::{self, Limit};
use crate::overlay::Overlay;
use crate::ssh::{Background, Output, Ssh};

/// The line of the guest's `ready.service` when commands can be run.
const READY: &str = "pi: ready";
/// The start of the kernel's last line: "Power down", or without a power driver "Power off not available: System
/// halted instead". By then everything is written and unmounted.
const POWERED_DOWN: &str = "reboot: Power";
/// The start of the kernel's last line before a reboot. Everything is written and unmounted.
const REBOOTS: &str = "reboot: Restarting system";
/// The pause between two polls of a condition of the caller.
const PAUSE: Duration = Duration::from_millis(50);
/// The number of lines of the console that errors show.
const TAIL: usize = 50;

/// A running emulated Raspberry Pi. Dropping it is a power loss.
pub struct Machine {
    qemu: Child,
    console: Console,
    ssh: Ssh,
    directory: PathBuf,
}

impl Machine {
    /// Boots a machine with `image` and `overlay`. Returns when commands can be run, after 15 s on `raspi3b` and 37 s
    /// on `raspi2b`.
    ///
    /// Writes to `directory`: `command` (QEMU's command line), `console.log`, `qemu.log`, and `ssh_config` for ssh and
    /// scp of a user. Files of an earlier boot are kept there as `NAME.previous`.
    ///
    /// # Errors
    /// QEMU does not start, the limit `BOOT` or `CONNECT` expires, or an error is printed on the console. The error has
    /// the last lines of the console.
    pub fn boot(step: &Step, image: &Image, overlay: &Overlay, directory: &Path) -> Result<Self> {
        let machine = Self::start(image, overlay, directory, &Options::boot())?;
        machine.wait(step, READY, limit::BOOT).context("booting the machine")?;
        machine.connect()?;
        Ok(machine)
    }

    /// Starts to boot a machine, and returns immediately: no command can be run yet.
    pub fn power_on(image: &Image, overlay: &Overlay, directory: &Path) -> Result<Self> {
        Self::start(image, overlay, directory, &Options::boot())
    }

    /// Starts QEMU and returns immediately.
    pub(crate) fn start(image: &Image, overlay: &Overlay, directory: &Path, options: &Options) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("creating {} failed", directory.display()))?;
        let port = command::free_port()?;
        let ssh = Ssh::new(port, &image.ssh_key(), directory)?;
        let mut command = command::qemu(image, overlay, port, options, now()?);
        let line = format!("{command:?}\n");
        log(directory, "command")?.write_all(line.as_bytes()).context("writing QEMU's command line failed")?;
        let mut qemu = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log(directory, "qemu.log")?)
            .spawn()
            .with_context(|| format!("starting {} failed", image.board().qemu))?;
        // The console is QEMU's standard output, so that no line is lost.
        let stream = qemu.stdout.take().context("QEMU's standard output is not piped")?;
        let console = Console::follow(stream, log(directory, "console.log")?);
        Ok(Self { qemu, console, ssh, directory: directory.to_owned() })
    }

    /// Opens the ssh connection.
    pub(crate) fn connect(&self) -> Result<()> {
        self.ssh.connect().map_err(|error| self.explain(error))
    }

    /// Sets the machine's clock to the host's time.
    pub(crate) fn set_clock(&self) -> Result<()> {
        self.check(&format!("date -s @{}", now()?), limit::CONNECT).map(drop)
    }

    /// Runs `command`, a line for the machine's shell, as root, and returns its output, whatever its exit status is.
    ///
    /// # Errors
    /// `limit` expires, the connection is lost, or an error is printed on the console. The error has the last lines of
    /// the console.
    pub fn run(&self, command: &str, limit: Limit) -> Result<Output> {
        self.finish(self.spawn(command)?, limit)
    }

    /// Runs `command` as [`Machine::run`] does, fails unless it exits with 0, and returns its standard output.
    pub fn check(&self, command: &str, limit: Limit) -> Result<String> {
        let output = self.run(command, limit)?;
        ensure!(output.success(), "command failed: {command}: exit status {}\n{}", output.status, output.text());
        Ok(output.stdout)
    }

    /// Starts `command` and returns immediately. Several commands can run in parallel.
    pub fn spawn(&self, command: &str) -> Result<Background> {
        self.ssh.start(command, Stdio::null(), Stdio::piped())
    }

    /// Waits for the end of `background`, as [`Machine::run`] does.
    pub fn finish(&self, background: Background, limit: Limit) -> Result<Output> {
        let output = background.wait_while(limit, || self.check_console()).map_err(|error| self.explain(error))?;
        self.check_console().map_err(|error| self.explain(error))?;
        Ok(output)
    }

    /// Copies the host's file `from` to the path `to` in the machine, at about 200 KB/s.
    pub fn copy_in(&self, from: &Path, to: &str) -> Result<()> {
        let context = || format!("copying {} to {to} in the machine", from.display());
        let file = File::open(from).with_context(context)?;
        let limit = limit::copy(file.metadata().with_context(context)?.len());
        let copy = self.ssh.start(&format!("cat >{}", quoted(to)), file.into(), Stdio::piped())?;
        let output = self.finish(copy, limit).with_context(context)?;
        ensure!(output.success(), "{}: {}", context(), output.text());
        Ok(())
    }

    /// Makes the machine lose power: QEMU gets SIGKILL. Data that the machine had not written to its card, such as its
    /// page cache, is lost. Data that the card had acknowledged is kept. The overlay can be booted again.
    pub fn power_loss(mut self) -> Result<()> {
        self.kill().map(drop)
    }

    /// Shuts the machine down.
    pub fn power_off(mut self, step: &Step) -> Result<()> {
        // The connection may be lost before the command ends. The console shows that the shutdown is complete.
        let mut command = self.spawn("systemctl poweroff")?;
        self.wait(step, POWERED_DOWN, limit::POWER_OFF).context("shutting down the machine")?;
        command.kill();
        self.kill().map(drop)
    }

    /// Waits until `condition`, of the caller, is true. It is polled, and its error ends the wait.
    ///
    /// # Errors
    /// As [`Machine::run`].
    pub fn wait_until(&self, limit: Limit, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
        let wait = limit.start();
        while !condition()? {
            self.check_console().map_err(|error| self.explain(error))?;
            wait.check()?;
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Waits until a line that contains `text` is on the console, also if it was printed before.
    ///
    /// # Errors
    /// `limit` expires, QEMU ends, or an error is printed on the console.
    pub fn wait_for_line(&self, step: &Step, text: &str, limit: Limit) -> Result<()> {
        self.wait(step, text, limit).with_context(|| format!("waiting for {text:?} on the console"))
    }

    /// Waits until the machine reboots by itself, and ends it. The overlay can be booted.
    pub fn reboots(mut self, step: &Step) -> Result<()> {
        self.wait(step, REBOOTS, limit::REBOOT).context("waiting for a reboot")?;
        self.kill().map(drop)
    }

    /// The last `lines` lines of the console, at most 500.
    pub fn console_tail(&self, lines: usize) -> String {
        self.console.tail(lines)
    }

    /// The ssh configuration of this machine, with the host name `pi`, for `ssh -F` and `scp -F`.
    pub fn ssh_config(&self) -> &Path {
        self.ssh.config()
    }

    /// Runs an interactive shell of the machine in the user's terminal.
    pub fn shell(&self) -> Result<ExitStatus> {
        self.ssh.ssh().args(["-t", "pi"]).status().context("starting ssh failed")
    }

    /// Fails if an error was printed on the console.
    fn check_console(&self) -> Result<()> {
        match self.console.error() {
            Some(line) => bail!("error on the console: {line}"),
            None => Ok(()),
        }
    }

    /// Waits for `line` on the console.
    pub(crate) fn wait(&self, step: &Step, line: &str, limit: Limit) -> Result<()> {
        let wait = limit.start();
        let error = match self.console.wait_for(line, wait, |newest| step.detail(newest.trim())) {
            Waited::Seen => return Ok(()),
            Waited::Error(line) => anyhow!("error on the console: {line}"),
            Waited::Closed => {
                let log = fs::read_to_string(self.directory.join("qemu.log")).unwrap_or_default();
                anyhow!("QEMU ended: {}", log.trim())
            }
            Waited::Expired => anyhow!("{wait} expired"),
        };
        Err(self.explain(error))
    }

    /// Adds the last lines of the console and the path of the whole log to `error`.
    pub(crate) fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let tail = self.console.tail(TAIL);
        let log = self.directory.join("console.log");
        anyhow!("{error:#}\nlast lines of the console (complete log: {}):\n{tail}", log.display())
    }

    fn kill(&mut self) -> Result<ExitStatus> {
        self.qemu.kill().context("killing QEMU")?;
        self.qemu.wait().context("waiting for the end of QEMU")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// The host's time in seconds since 1970. The machine has no real-time clock.
fn now() -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the host's clock is before 1970")?;
    Ok(now.as_secs())
}

/// Creates the file `name` in `directory`. An existing one is renamed to `NAME.previous`.
fn log(directory: &Path, name: &str) -> Result<File> {
    let path = directory.join(name);
    if path.exists() {
        let previous = directory.join(format!("{name}.previous"));
        fs::rename(&path, &previous)
            .with_context(|| format!("renaming {} to {} failed", path.display(), previous.display()))?;
    }
    File::create(&path).with_context(|| format!("creating {} failed", path.display()))
}
