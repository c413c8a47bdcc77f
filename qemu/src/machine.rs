//! A running machine.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail, ensure};
use host::status::Step;

use crate::command::{self, Sockets, Start};
use crate::console::{Console, Waited};
use crate::disk::Overlay;
use crate::image::Image;
use crate::limit::{self, Limit};
use crate::saved;
use crate::ssh::{Background, Output, Ssh, quote};

/// What the guest's `ready.service` says when commands can be run.
const READY: &str = "pi: ready";
/// How the kernel's last line begins: "Power down", or on a Pi without its power driver "Power off not available:
/// System halted instead". All is written and unmounted by then.
const POWERED_DOWN: &str = "reboot: Power";
/// Lines of the console that errors show.
const TAIL: usize = 50;

/// An emulated Raspberry Pi under way. Dropping it is a power loss.
pub struct Machine {
    qemu: Child,
    console: Console,
    ssh: Ssh,
    directory: PathBuf,
}

impl Machine {
    /// Switches a machine with `image` and `overlay` on, and returns when commands can be run: 15 s on
    /// `raspi3b`, 37 s on `raspi2b`.
    ///
    /// Everything about the run goes to `directory`: `command` (QEMU's exact command line), `console.log`,
    /// `qemu.log`, and `ssh_config` for a person. What an earlier boot left there is kept as `….previous`.
    ///
    /// # Errors
    /// When QEMU does not start, the limit `BOOT` or `CONNECT` expires, or the console shows trouble: with the
    /// console's last lines.
    pub fn boot(step: &Step, image: &Image, overlay: &Overlay, directory: &Path) -> Result<Self> {
        let machine = Self::start(image, overlay, directory, Start::PowerOn)?;
        machine.wait(step, READY, limit::BOOT).context("the machine did not come up")?;
        machine.ssh.connect().map_err(|error| machine.explain(error))?;
        Ok(machine)
    }

    /// Goes on with a machine where it was saved, and returns when commands can be run: 8 s on either board.
    ///
    /// `overlay` is [`Saved::overlay`](crate::Saved::overlay). The rest is as for [`boot`](Self::boot).
    ///
    /// # Errors
    /// As [`boot`](Self::boot), with the limit `RESUME`.
    pub fn resume(step: &Step, image: &Image, overlay: &Overlay, directory: &Path) -> Result<Self> {
        let machine = Self::start(image, overlay, directory, Start::Resume)?;
        saved::wake(&machine.sockets()).map_err(|error| machine.explain(error))?;
        machine.wait(step, saved::PLUGGED, limit::RESUME).context("the machine did not go on")?;
        machine.ssh.connect().map_err(|error| machine.explain(error))?;
        // Its clock stood still while it was a file.
        machine.check(&format!("date -s @{}", now()?), limit::CONNECT)?;
        Ok(machine)
    }

    /// Starts QEMU, and returns at once.
    pub(crate) fn start(image: &Image, overlay: &Overlay, directory: &Path, start: Start) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
        let port = command::free_port()?;
        let ssh = Ssh::new(port, &image.ssh_key(), directory)?;
        let sockets = Sockets::in_directory(ssh.sockets());
        let mut command = command::qemu(image, overlay, port, start, &sockets, now()?);
        let line = format!("{command:?}\n");
        log(directory, "command")?.write_all(line.as_bytes()).context("writing QEMU's command line")?;
        let mut qemu = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log(directory, "qemu.log")?)
            .spawn()
            .with_context(|| format!("starting {}: is it installed?", image.board().qemu))?;
        // The console is QEMU's standard output: it is there before the machine runs its first instruction.
        let stream = qemu.stdout.take().context("QEMU's standard output is piped")?;
        let console = Console::follow(stream, log(directory, "console.log")?);
        Ok(Self { qemu, console, ssh, directory: directory.to_owned() })
    }

    /// Where QEMU itself takes commands.
    pub(crate) fn sockets(&self) -> Sockets {
        Sockets::in_directory(self.ssh.sockets())
    }

    /// Runs `command`, a line for the machine's shell, as root, and returns what it answered, whatever its
    /// exit status.
    ///
    /// # Errors
    /// When `limit` expires, the connection breaks, or the console shows trouble: with the console's last lines.
    pub fn run(&self, command: &str, limit: Limit) -> Result<Output> {
        self.finish(self.spawn(command)?, limit)
    }

    /// As [`Machine::run`] for a command that must exit with 0; returns its standard output.
    ///
    /// # Errors
    /// As [`Machine::run`], and for any other exit status: with what the command said.
    pub fn check(&self, command: &str, limit: Limit) -> Result<String> {
        let output = self.run(command, limit)?;
        ensure!(output.success(), "{command}\nexit status {}\n{}", output.status, output.text());
        Ok(output.stdout)
    }

    /// Starts `command` and returns at once; several may run beside each other.
    ///
    /// # Errors
    /// When ssh cannot be started on the host.
    pub fn spawn(&self, command: &str) -> Result<Background> {
        self.ssh.start(command, Stdio::null(), Stdio::piped())
    }

    /// Waits for the end of `background`, as [`Machine::run`] does.
    ///
    /// # Errors
    /// As [`Machine::run`].
    pub fn finish(&self, background: Background, limit: Limit) -> Result<Output> {
        let output = background.wait_while(limit, || self.healthy()).map_err(|error| self.explain(error))?;
        self.healthy().map_err(|error| self.explain(error))?;
        Ok(output)
    }

    /// Copies the host's file `from` to the path `to` in the machine: about 200 KB/s.
    ///
    /// # Errors
    /// When the file cannot be read or written, or the limit for its size expires.
    pub fn copy_in(&self, from: &Path, to: &str) -> Result<()> {
        let context = || format!("copying {} to {to} in the machine", from.display());
        let file = File::open(from).with_context(context)?;
        let limit = limit::copy(file.metadata().with_context(context)?.len());
        let copy = self.ssh.start(&format!("cat >{}", quote(to)), file.into(), Stdio::piped())?;
        let output = self.finish(copy, limit).with_context(context)?;
        ensure!(output.success(), "{}: {}", context(), output.text());
        Ok(())
    }

    /// Copies the machine's file `from` to the host's path `to`: about 100 KB/s.
    ///
    /// # Errors
    /// When the file cannot be read or written, or the limit for its size expires.
    pub fn copy_out(&self, from: &str, to: &Path) -> Result<()> {
        let context = || format!("copying {from} of the machine to {}", to.display());
        let size =
            self.check(&format!("stat -L -c %s {}", quote(from)), limit::CONNECT).with_context(context)?;
        let limit = limit::copy(size.trim().parse().with_context(context)?);
        let file = File::create(to).with_context(context)?;
        let copy = self.ssh.start(&format!("cat {}", quote(from)), Stdio::null(), file.into())?;
        let output = self.finish(copy, limit).with_context(context)?;
        ensure!(output.success(), "{}: {}", context(), output.text());
        Ok(())
    }

    /// Cuts the power: QEMU gets SIGKILL. What the machine had not written to its card yet, such as its page
    /// cache, is lost; what the card had acknowledged stays. The overlay can be booted again.
    ///
    /// # Errors
    /// When the host cannot end its own child.
    pub fn power_cut(mut self) -> Result<()> {
        self.kill().map(drop)
    }

    /// Shuts the machine down in order.
    ///
    /// # Errors
    /// When the limit `POWER_OFF` expires or the console shows trouble: with the console's last lines.
    pub fn power_off(mut self, step: &Step) -> Result<()> {
        // The connection may break before the command has answered: the console has the last word.
        let mut command = self.spawn("systemctl poweroff")?;
        self.wait(step, POWERED_DOWN, limit::POWER_OFF).context("the machine did not shut down")?;
        command.kill();
        self.kill().map(drop)
    }

    /// The console's last `lines` lines, of at most 500.
    pub fn console_tail(&self, lines: usize) -> String {
        self.console.tail(lines)
    }

    /// ssh's settings for this machine, as host `pi`: for a person's `ssh -F` and `scp -F`.
    pub fn ssh_config(&self) -> &Path {
        self.ssh.config()
    }

    /// A shell at the person's terminal, until they leave it.
    ///
    /// # Errors
    /// When ssh cannot be started.
    pub fn shell(&self) -> Result<ExitStatus> {
        self.ssh.ssh().args(["-t", "pi"]).status().context("starting ssh")
    }

    /// Fails when the console has shown trouble.
    fn healthy(&self) -> Result<()> {
        match self.console.trouble() {
            Some(line) => bail!("the console shows trouble: {line}"),
            None => Ok(()),
        }
    }

    /// Waits for `line` on the console.
    pub(crate) fn wait(&self, step: &Step, line: &str, limit: Limit) -> Result<()> {
        let error = match self.console.wait_for(line, limit, |newest| step.detail(newest.trim())) {
            Waited::Seen => return Ok(()),
            Waited::Trouble(line) => anyhow!("the console shows trouble: {line}"),
            Waited::Closed => {
                let log = fs::read_to_string(self.directory.join("qemu.log")).unwrap_or_default();
                anyhow!("QEMU has ended: {}", log.trim())
            }
            Waited::Expired => anyhow!("{limit} expired"),
        };
        Err(self.explain(error))
    }

    /// `error` with the console's last lines and where everything lies.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let tail = self.console.tail(TAIL);
        anyhow!("{error:#}\nThe console's last lines, all of it in {}:\n{tail}", self.directory.display())
    }

    fn kill(&mut self) -> Result<ExitStatus> {
        self.qemu.kill().context("ending QEMU")?;
        self.qemu.wait().context("waiting for QEMU's end")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// The host's time in seconds since 1970, for a machine that has no clock of its own.
fn now() -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the host's clock is before 1970")?;
    Ok(now.as_secs())
}

/// The file `name` in `directory`, empty; an earlier one is kept beside it.
fn log(directory: &Path, name: &str) -> Result<File> {
    let path = directory.join(name);
    if path.exists() {
        let kept = directory.join(format!("{name}.previous"));
        fs::rename(&path, &kept)
            .with_context(|| format!("renaming {} to {}", path.display(), kept.display()))?;
    }
    File::create(&path).with_context(|| format!("creating {}", path.display()))
}
