//! A device on the bench: its overlay, its power, and what a scenario does to it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use host::apt::Root;
use host::status::Step;
use qemu::{Background, Limit, Machine, Output, Overlay, Saved};
use test_image::Mode;
use xshell::Shell;

use crate::Stage;
use crate::artifact::{self, Artifact};

/// A command in the guest that only looks: podman's first one reads all of podman from a slow card.
const LOOK: Limit = Limit::new("LOOK", 180);

/// `apt-get` or `dpkg` in the guest.
const PACKAGE: Limit = Limit::new("PACKAGE", 600);

/// `mender install`, `commit` or `rollback` in the guest.
const CLIENT: Limit = Limit::new("CLIENT", 600);

/// Until a call that strace holds has been reached.
const HELD: Limit = Limit::new("HELD", 600);

/// apt, asking nothing.
const APT: &str = "DEBIAN_FRONTEND=noninteractive apt-get";

/// One device.
pub struct Lab<'a> {
    sh: &'a Shell,
    stage: &'a Stage,
    directory: &'a Path,
    step: &'a Step,
    overlay: Overlay,
    machine: Option<Machine>,
    /// A client that strace holds, for as long as there is power.
    held: Option<Background>,
}

impl<'a> Lab<'a> {
    /// A device that has never been switched on.
    pub fn new(sh: &'a Shell, stage: &'a Stage, directory: &'a Path, step: &'a Step) -> Result<Self> {
        let overlay = Overlay::create(step, &stage.image, &directory.join("card.qcow2"))?;
        Ok(Self { sh, stage, directory, step, overlay, machine: None, held: None })
    }

    /// Switches the device on, and returns when it takes commands.
    pub fn power_on(&mut self) -> Result<()> {
        self.step.detail("booting");
        self.machine = Some(Machine::boot(self.step, &self.stage.image, &self.overlay, self.directory)?);
        Ok(())
    }

    /// Switches on a device that has the package of `module`. Where one was saved with all packages, it goes on from there.
    pub fn power_on_with(&mut self, module: &str) -> Result<()> {
        let Some(saved) = &self.stage.saved else {
            self.power_on()?;
            return self.install_package(module);
        };
        self.step.detail("going on with the saved device");
        self.overlay = saved.overlay(&self.directory.join("card.qcow2"))?;
        match Machine::resume(self.step, &self.stage.image, &self.overlay, self.directory) {
            Ok(machine) => self.machine = Some(machine),
            // QEMU promises it for none of these boards, and a scenario is about what comes after: its card has the packages.
            Err(error) => {
                let why = format!("{error:#}");
                self.step.note(format!("booted instead: {}", why.lines().next().unwrap_or_default()));
                self.power_on()?;
            }
        }
        Ok(())
    }

    /// Saves the device as it is, for others to go on with.
    pub fn save(self) -> Result<Saved> {
        self.step.detail("saving the device");
        let machine = self.machine.context("the device is not on")?;
        Saved::of(self.step, machine, &self.stage.image, self.overlay, self.directory)
    }

    /// Pulls the plug.
    pub fn power_cut(&mut self) -> Result<()> {
        self.step.detail("power loss");
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

    /// Copies the package of `module` in and installs it with dpkg, which on a slow card is much faster than apt.
    pub fn install_package(&self, module: &str) -> Result<()> {
        self.install_with("dpkg --install", module)
    }

    /// Copies the package of `module` in and installs it with apt, as its README says.
    pub fn install_package_with_apt(&self, module: &str) -> Result<()> {
        self.install_with(&format!("{APT} install --yes"), module)
    }

    fn install_with(&self, command: &str, module: &str) -> Result<()> {
        let begins = format!("mender-update-module-{module}_");
        let is_it = |path: &&PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&begins))
        };
        let package = self.stage.packages.iter().find(is_it);
        let path = self.copy_in(package.with_context(|| format!("there is no package of {module}"))?)?;
        self.expect(&format!("{command} {path}"), PACKAGE, 0).map(drop)
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

    /// Puts a file called `name` with `content` into the device and returns where it is there.
    pub fn put(&self, name: &str, content: &[u8]) -> Result<String> {
        let path = self.directory.join(name);
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        self.copy_in(&path)
    }

    /// Debian's mender-client for this device, in a version that is newer than the one it has.
    pub fn newer_client(&self) -> Result<Vec<u8>> {
        let release = self.ok(". /etc/os-release && echo $VERSION_CODENAME")?;
        let apt = self.directory.join("apt");
        let apt = Root::new(self.sh, self.step, &apt, release.trim(), self.stage.image.board().architecture)?;
        let debs = apt.download(self.step, &["mender-client"])?;
        let deb = debs.first().context("nothing was downloaded")?;
        artifact::newer(self.sh, deb, &self.directory.join("mender-client"))
    }

    /// Makes an artifact of text files for this device and `module`, and copies it in.
    pub fn artifact(&self, module: &str, name: &str, files: &[(&str, &str)]) -> Result<String> {
        let files = files.iter().map(|(name, content)| (*name, content.as_bytes().to_vec())).collect();
        self.copy_in(&self.artifact_on_host(Artifact {
            module,
            name,
            device_type: self.device_type(),
            files,
            meta_data: None,
        })?)
    }

    /// Makes an artifact and leaves it on the host.
    pub fn artifact_on_host(&self, artifact: Artifact) -> Result<PathBuf> {
        artifact.write(self.sh, self.directory)
    }

    /// An archive of `files`.
    pub fn archive(&self, files: &[(&str, &str)]) -> Result<Vec<u8>> {
        artifact::archive(self.sh, self.directory, files)
    }

    /// An image of the tests' server for this device, with `noise` bytes behind it that are nothing else's.
    pub fn image(
        &self,
        reference: &str,
        version: &str,
        mode: Mode,
        noise: usize,
    ) -> Result<test_image::Archive> {
        let path = &self.stage.server;
        let mut executable = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        // xorshift, Marsaglia's generator: layers that share nothing, for two versions.
        let seed = 0x9e37_79b9_7f4a_7c15;
        let mut state = version.bytes().fold(seed, |state: u64, byte| state.rotate_left(8) ^ u64::from(byte));
        executable.extend((0..noise).map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        }));
        let executable = executable.as_slice();
        let architecture = self.stage.image.board().architecture;
        Ok(test_image::Image { reference, version, mode, architecture, executable }.archive())
    }

    /// What kind of device this is to the client.
    pub fn device_type(&self) -> &'static str {
        self.stage.image.board().device_type
    }

    /// Runs the client, has to see it exit with `status`, and returns what it said.
    pub fn client(&self, arguments: &str, status: i32) -> Result<String> {
        Ok(self.expect(&format!("mender --no-syslog {arguments}"), CLIENT, status)?.text())
    }

    /// Runs `command`, which has to fail and say `words`.
    pub fn fails(&self, command: &str, words: &str) -> Result<()> {
        let output = self.run(command, PACKAGE)?;
        ensure!(
            output.status != 0 && output.text().contains(words),
            "in the device, {command:?} exited with {} and did not say {words:?}:\n{}",
            output.status,
            output.text()
        );
        Ok(())
    }

    /// Starts the client and holds the module's call number `number` of the system call `call`, for ever: the moment for
    /// a power loss. Returns when `reached` succeeds in the device.
    pub fn client_held(&mut self, arguments: &str, call: &str, number: usize, reached: &str) -> Result<()> {
        let tracer = format!(
            "strace -f -qq -o /dev/null -e trace={call} -e inject={call}:delay_enter=3600s:when={number}"
        );
        self.start_client(&tracer, arguments, reached)
            .with_context(|| format!("mender {arguments} never came to its {call} number {number}"))
    }

    /// Starts the client, and returns when `reached` succeeds in the device.
    pub fn client_until(&mut self, arguments: &str, reached: &str) -> Result<()> {
        self.start_client("", arguments, reached)
            .with_context(|| format!("mender {arguments} never came to it"))
    }

    fn start_client(&mut self, tracer: &str, arguments: &str, reached: &str) -> Result<()> {
        let command = format!("{tracer} mender --no-syslog {arguments} > /root/held.log 2>&1");
        self.held = Some(self.machine()?.spawn(&command)?);
        self.wait(reached)
    }

    /// Returns when `reached` succeeds in the device.
    pub fn wait(&self, reached: &str) -> Result<()> {
        let wait = format!("until {reached}; do sleep 0.2; done");
        self.expect(&wait, HELD, 0).map(drop)
    }

    /// All of `directory` that an update may change, as text.
    pub fn snapshot(&self, directory: &str) -> Result<String> {
        self.ok(&format!(
            "if [ -e '{directory}' ]; then cd '{directory}' && find . -printf '%y %m %U:%G %T@ %s %p %l\\n' | sort \
             && find . -type f -exec sha256sum {{}} + | sort && getfattr -R -d -m - . ; else echo missing; fi"
        ))
    }

    /// Has to find `directory` as it was when the snapshot `before` was taken.
    pub fn is_as_before(&self, directory: &str, before: &str) -> Result<()> {
        let now = self.snapshot(directory)?;
        ensure!(now == before, "{directory} is not what it was.\nbefore:\n{before}\nnow:\n{now}");
        Ok(())
    }
}
