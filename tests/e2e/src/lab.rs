//! A device on the bench: its overlay, its power, and what a scenario does to it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use host::status::Step;
use qemu::{Background, Limit, Machine, Output, Overlay};
use xshell::Shell;

use crate::Stage;
use crate::artifact::Artifact;

/// A command in the guest that only looks.
const LOOK: Limit = Limit::new("LOOK", 60);

/// `apt-get` or `dpkg` in the guest.
const PACKAGE: Limit = Limit::new("PACKAGE", 240);

/// `mender install`, `commit` or `rollback` in the guest.
const CLIENT: Limit = Limit::new("CLIENT", 240);

/// Until a call that strace holds has been reached.
const HELD: Limit = Limit::new("HELD", 240);

/// apt, asking nothing.
const APT: &str = "DEBIAN_FRONTEND=noninteractive apt-get";

/// One device.
pub struct Lab<'a> {
    sh: &'a Shell,
    stage: &'a Stage,
    folder: &'a Path,
    step: &'a Step,
    overlay: Overlay,
    machine: Option<Machine>,
    /// A client that strace holds, for as long as there is power.
    held: Option<Background>,
}

impl<'a> Lab<'a> {
    /// A device that has never been switched on.
    pub fn new(sh: &'a Shell, stage: &'a Stage, folder: &'a Path, step: &'a Step) -> Result<Self> {
        let overlay = Overlay::create(step, &stage.image, &folder.join("card.qcow2"))?;
        Ok(Self { sh, stage, folder, step, overlay, machine: None, held: None })
    }

    /// Switches the device on, and returns when it takes commands.
    pub fn power_on(&mut self) -> Result<()> {
        self.step.detail("booting");
        self.machine = Some(Machine::boot(self.step, &self.stage.image, &self.overlay, self.folder)?);
        Ok(())
    }

    /// Pulls the plug.
    pub fn power_cut(&mut self) -> Result<()> {
        self.step.detail("power cut");
        self.machine.take().context("the device is not on")?.power_cut()?;
        self.held = None;
        Ok(())
    }

    fn machine(&self) -> Result<&Machine> {
        self.machine.as_ref().context("the device is not on")
    }

    fn run(&self, command: &str, limit: Limit) -> Result<Output> {
        self.step.detail(command.lines().next().unwrap_or_default());
        self.machine()?.run(command, limit)
    }

    /// Runs `command`, has to see it exit with `status`, and returns what it said on standard output and error.
    fn expect(&self, command: &str, limit: Limit, status: i32) -> Result<Output> {
        let output = self.run(command, limit)?;
        ensure!(
            output.status == status,
            "in the device, {command:?} exited with {} instead of {status}:\n{}",
            output.status,
            output.text()
        );
        Ok(output)
    }

    /// Runs `command`, which has to succeed, and returns its standard output.
    pub fn ok(&self, command: &str) -> Result<String> {
        Ok(self.expect(command, LOOK, 0)?.stdout)
    }

    /// Copies the packages under test in and installs them with dpkg, which on a slow card is much faster than apt.
    pub fn install_packages(&self) -> Result<()> {
        self.install_with("dpkg --install")
    }

    /// Copies the packages under test in and installs them with apt, as their README says.
    pub fn install_packages_with_apt(&self) -> Result<()> {
        self.install_with(&format!("{APT} install --yes"))
    }

    fn install_with(&self, command: &str) -> Result<()> {
        for package in &self.stage.packages {
            let path = self.copy_in(package)?;
            self.expect(&format!("{command} {path}"), PACKAGE, 0)?;
        }
        Ok(())
    }

    /// Removes `package` with its settings.
    pub fn purge_package(&self, package: &str) -> Result<()> {
        self.expect(&format!("{APT} purge --yes {package}"), PACKAGE, 0).map(drop)
    }

    /// Copies a file of the host into the device and returns where it is there.
    pub fn copy_in(&self, path: &Path) -> Result<String> {
        let name = path.file_name().with_context(|| format!("{} has no file name", path.display()))?;
        let there = format!("/root/{}", name.to_string_lossy());
        self.machine()?.copy_in(path, &there)?;
        Ok(there)
    }

    /// Makes an artifact for this device and copies it in.
    pub fn artifact(&self, name: &str, files: &[(&str, &str)]) -> Result<String> {
        let device_type = self.stage.image.board().device_type;
        let path = self.artifact_on_host(name, device_type, files)?;
        self.copy_in(&path)
    }

    /// Makes an artifact and leaves it on the host.
    pub fn artifact_on_host(&self, name: &str, device_type: &str, files: &[(&str, &str)]) -> Result<PathBuf> {
        Artifact { module: "web-file", name, device_type, files }.write(self.sh, self.folder)
    }

    /// Runs the client, has to see it exit with `status`, and returns what it said.
    pub fn client(&self, arguments: &str, status: i32) -> Result<String> {
        Ok(self.expect(&format!("mender --no-syslog {arguments}"), CLIENT, status)?.text())
    }

    /// Starts the client and holds the module's call number `number` of the system call `call`, for ever: the moment for
    /// a power cut. Returns when `reached` succeeds in the device.
    pub fn client_held(&mut self, arguments: &str, call: &str, number: usize, reached: &str) -> Result<()> {
        let command = format!(
            "strace -f -qq -o /dev/null -e trace={call} -e inject={call}:delay_enter=3600s:when={number} \
             mender --no-syslog {arguments} > /root/held.log 2>&1"
        );
        self.held = Some(self.machine()?.spawn(&command)?);
        let wait = format!("until {reached}; do sleep 0.2; done");
        self.expect(&wait, HELD, 0)
            .with_context(|| format!("mender {arguments} never came to its {call} number {number}"))
            .map(drop)
    }

    /// All of `folder` that an update may change, as text.
    pub fn snapshot(&self, folder: &str) -> Result<String> {
        self.ok(&format!(
            "if [ -e {folder} ]; then cd {folder} && find . -printf '%y %m %U:%G %T@ %s %p %l\\n' | sort \
             && find . -type f -exec sha256sum {{}} + | sort && getfattr -R -d -m - . ; else echo missing; fi"
        ))
    }
}
