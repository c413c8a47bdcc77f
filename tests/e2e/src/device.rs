//! A device under test: its disk, its power, and the commands that a scenario runs on it.

mod client;
mod power;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use host::status::Step;
use qemu::{Limit, Machine, Output, Overlay, Snapshot};
use test_image::Mode;
use test_report::{Kind, Timeline};
use xshell::Shell;

use crate::Setup;
use crate::artifact::{self, Artifact, Generated};
use crate::record::Recorder;
use client::Running;

/// A command that changes nothing. podman's first command reads its whole executable from a slow card.
const QUERY: Limit = Limit::new("QUERY", 600);

/// `apt-get` or `dpkg`.
const PACKAGE: Limit = Limit::new("PACKAGE", 1800);

/// Until a condition is true.
const CONDITION: Limit = Limit::new("CONDITION", 1800);

/// Reading the journal for the report: measured 0.5 s. The report is complete without it.
const JOURNAL: Limit = Limit::new("JOURNAL", 120);

/// The end of the journal of this boot. The report does not show more of it.
const READ_JOURNAL: &str = "journalctl --boot --no-pager --output short-precise | tail -c 250000";

/// apt without questions.
const APT: &str = "DEBIAN_FRONTEND=noninteractive apt-get";

/// One device.
pub struct Device<'a> {
    sh: &'a Shell,
    setup: &'a Setup,
    directory: &'a Path,
    step: &'a Step,
    overlay: Overlay,
    machine: Option<Machine>,
    recorder: Recorder,
    /// A client that was started and not waited for. It ends with a power loss.
    client: Option<Running>,
    /// Whether the client under test still has to replace that of the image.
    replaces_client: bool,
}

impl<'a> Device<'a> {
    /// A new device, without power.
    pub fn new(sh: &'a Shell, setup: &'a Setup, directory: &'a Path, step: &'a Step) -> Result<Self> {
        let overlay = Overlay::create(step, &setup.image, &directory.join("card.qcow2"))?;
        let (recorder, replaces_client) = (Recorder::new(), setup.replacement.is_some());
        Ok(Self { sh, setup, directory, step, overlay, machine: None, recorder, client: None, replaces_client })
    }

    /// Boots the device. Returns when commands can be run.
    pub fn power_on(&mut self) -> Result<()> {
        self.step.detail("booting");
        let boot = || Machine::boot(self.step, &self.setup.image, &self.overlay, self.directory);
        let machine = self.recorder.during(Kind::Boot, "boot", boot);
        self.machine = Some(machine.inspect_err(|_| self.record_console())?);
        if let Some(packages) = self.setup.replacement.as_ref().filter(|_| self.replaces_client) {
            self.replace_client(packages)?;
            self.replaces_client = false;
        }
        Ok(())
    }

    /// Starts a device that has the package of `module`, from the snapshot if there is one.
    pub fn power_on_with_package(&mut self, module: &str) -> Result<()> {
        let Some(snapshot) = &self.setup.snapshot else {
            self.power_on()?;
            return self.install_package(module);
        };
        self.step.detail("resuming the snapshot");
        self.replaces_client = false;
        self.overlay = snapshot.copy(&self.directory.join("card.qcow2"))?;
        let resume = || Snapshot::resume(self.step, &self.setup.image, &self.overlay, self.directory);
        match self.recorder.during(Kind::Boot, "resume the snapshot", resume) {
            Ok(machine) => self.machine = Some(machine),
            // The card of the snapshot has the packages, too.
            Err(error) => {
                self.record_console();
                let error = format!("{error:#}");
                let cause = error.lines().next().unwrap_or_default();
                self.step.note(format!("resuming the snapshot failed; booting instead: {cause}"));
                self.power_on()?;
            }
        }
        Ok(())
    }

    /// Saves the device as a snapshot for other devices.
    pub fn into_snapshot(self) -> Result<Snapshot> {
        self.step.detail("creating the snapshot");
        let machine = self.machine.context("the device has no power")?;
        Snapshot::create(self.step, machine, &self.setup.image, self.overlay, self.directory)
    }

    /// Makes the device lose power.
    pub fn power_loss(&mut self) -> Result<()> {
        self.step.detail("power loss");
        self.machine.take().context("the device has no power")?.power_loss()?;
        let now = Instant::now();
        self.end_client(now);
        self.recorder.add(Kind::PowerLoss, "power loss", now, now);
        self.record_console();
        Ok(())
    }

    /// Records the console of a machine that has ended.
    fn record_console(&self) {
        self.recorder.console(&self.directory.join("console.log"));
    }

    /// The record of the scenario, with the console and the journal of a device that still has power.
    pub fn into_timeline(mut self) -> Timeline {
        self.end_client(Instant::now());
        let Some(machine) = self.machine.take() else { return self.recorder.finish(String::new()) };
        self.step.detail("reading the journal");
        let journal = machine.run(READ_JOURNAL, JOURNAL).map(|output| output.text()).unwrap_or_else(|error| {
            // The rest of the error is the console, which the report has.
            format!("reading the journal failed: {}", format!("{error:#}").lines().next().unwrap_or_default())
        });
        drop(machine);
        self.record_console();
        self.recorder.finish(journal)
    }

    /// Waits until the device reboots by itself, and boots it.
    pub fn reboot(&mut self) -> Result<()> {
        self.step.detail("waiting for a reboot");
        let machine = self.machine.take().context("the device has no power")?;
        let result = self.recorder.during(Kind::Command, "wait for a reboot", || machine.reboots(self.step));
        self.record_console();
        result?;
        self.power_on()
    }

    /// Makes the device lose power and boots it again.
    pub fn reboot_by_power_loss(&mut self) -> Result<()> {
        self.power_loss()?;
        self.power_on()
    }

    fn machine(&self) -> Result<&Machine> {
        self.machine.as_ref().context("the device has no power")
    }

    fn run(&self, command: &str, limit: Limit) -> Result<Output> {
        self.step.detail(command.lines().next().unwrap_or_default());
        let machine = self.machine()?;
        self.recorder.during(Kind::Command, command, || machine.run(command, limit))
    }

    /// Runs `command`, fails unless it exits with `status`, and returns its output.
    fn expect(&self, command: &str, limit: Limit, status: i32) -> Result<Output> {
        let output = self.run(command, limit)?;
        has_status(command, output.status, &[status], &output.text())?;
        Ok(output)
    }

    /// Runs `command`, which must succeed, and returns its standard output.
    pub fn ok(&self, command: &str) -> Result<String> {
        Ok(self.expect(command, QUERY, 0)?.stdout)
    }

    /// Runs `command`, which must fail with an output that contains `text`.
    pub fn fails(&self, command: &str, text: &str) -> Result<()> {
        let output = self.run(command, PACKAGE)?;
        ensure!(
            output.status != 0 && output.text().contains(text),
            "command on the device did not fail with {text:?}: {command}: exit status {}\n{}",
            output.status,
            output.text()
        );
        Ok(())
    }

    /// Copies the package of `module` to the device and installs it with dpkg, which on a slow card is much faster than
    /// apt.
    pub fn install_package(&self, module: &str) -> Result<()> {
        self.install_with("dpkg --install", module)
    }

    /// Copies the package of `module` to the device and installs it with apt, as the README describes.
    pub fn install_package_with_apt(&self, module: &str) -> Result<()> {
        self.install_with(&format!("{APT} install --yes"), module)
    }

    fn install_with(&self, command: &str, module: &str) -> Result<()> {
        let path = self.copy_in(self.package_of(module)?)?;
        self.package(&format!("{command} {path}"))
    }

    /// The package of `module` under test.
    fn package_of(&self, module: &str) -> Result<&'a Path> {
        let prefix = format!("mender-update-module-{module}_");
        let is_it = |path: &&PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix));
        let package = self.setup.packages.iter().find(is_it);
        package.map(PathBuf::as_path).with_context(|| format!("no package of the module {module}"))
    }

    /// Runs `command`, an operation on packages.
    pub fn package(&self, command: &str) -> Result<()> {
        self.expect(command, PACKAGE, 0).map(drop)
    }

    /// Runs apt-get with `arguments`.
    pub fn apt(&self, arguments: &str) -> Result<()> {
        self.package(&format!("{APT} {arguments}"))
    }

    /// The compatible device type of artifacts for this device.
    pub fn device_type(&self) -> &'static str {
        self.setup.image.board().device_type
    }

    /// Returns when `condition` of this process is true.
    pub fn wait_for(&self, name: &str, limit: Limit, condition: impl FnMut() -> Result<bool>) -> Result<()> {
        self.step.detail(name);
        let machine = self.machine()?;
        self.recorder.during(Kind::Command, name, || machine.wait_until(limit, condition))
    }

    /// The directory of the scenario on this host.
    pub fn directory(&self) -> &'a Path {
        self.directory
    }

    /// The directory of the signed APT repository on this host.
    pub fn repository(&self) -> &'a Path {
        &self.setup.repository
    }

    /// Removes `package` and its settings.
    pub fn purge_package(&self, package: &str) -> Result<()> {
        self.apt(&format!("purge --yes {package}"))
    }

    /// Copies a file of the host to the device and returns its path there.
    pub fn copy_in(&self, path: &Path) -> Result<String> {
        let name = path.file_name().with_context(|| format!("path without a file name: {}", path.display()))?;
        let destination = format!("/root/{}", name.to_string_lossy());
        let machine = self.machine()?;
        let command = format!("copy {} to the device", name.to_string_lossy());
        self.recorder.during(Kind::Command, &command, || machine.copy_in(path, &destination))?;
        Ok(destination)
    }

    /// Writes a file called `name` to the device and returns its path there.
    pub fn write_file(&self, name: &str, content: &[u8]) -> Result<String> {
        let path = self.directory.join(name);
        fs::write(&path, content).with_context(|| format!("writing {} failed", path.display()))?;
        self.copy_in(&path)
    }

    /// Writes the package of `module` with this version, and returns its path.
    pub fn package_with_version(&self, module: &str, version: &str) -> Result<PathBuf> {
        let directory = self.directory.join(format!("{module}-{version}"));
        artifact::with_version(self.sh, self.package_of(module)?, &directory, |_| version.to_owned())
    }

    /// Makes an artifact for this device, copies it there, and returns its path there.
    pub fn artifact(
        &self,
        module: &str,
        name: &str,
        files: Vec<(&str, Vec<u8>)>,
        meta_data: Option<String>,
    ) -> Result<String> {
        self.copy_artifact(&Artifact { module, name, device_type: self.device_type(), files, meta_data })
    }

    /// Makes an artifact for this device with the generator of `module`, copies it there, and returns its path there.
    pub fn generate(&self, module: &str, name: &str, options: &[&str], files: Vec<(&str, Vec<u8>)>) -> Result<String> {
        self.copy_in(&self.generate_on_host(module, name, options, files)?)
    }

    /// Makes an artifact for this device with the generator of `module`, and returns its path on the host.
    pub fn generate_on_host(
        &self,
        module: &str,
        name: &str,
        options: &[&str],
        files: Vec<(&str, Vec<u8>)>,
    ) -> Result<PathBuf> {
        let generated = Generated { module, name, device_type: self.device_type(), options, files };
        generated.write(self.sh, &self.setup.generator, self.directory)
    }

    /// Makes `artifact`, copies it to the device, and returns its path there.
    pub fn copy_artifact(&self, artifact: &Artifact) -> Result<String> {
        self.copy_in(&artifact.write(self.sh, self.directory)?)
    }

    /// A tar archive of `files`.
    pub fn archive(&self, files: &[(&str, &str)]) -> Result<Vec<u8>> {
        artifact::archive(self.sh, self.directory, files)
    }

    /// An image of the test server for this device. `padding` bytes after the executable make it larger; they depend on
    /// `version`, so that two versions share no layer.
    pub fn image(&self, reference: &str, version: &str, mode: Mode, padding: usize) -> Result<test_image::Archive> {
        let path = &self.setup.server;
        let mut executable = fs::read(path).with_context(|| format!("reading {} failed", path.display()))?;
        executable.extend(random(version, padding));
        let executable = executable.as_slice();
        let architecture = self.setup.image.board().architecture;
        Ok(test_image::Image { reference, version, mode, architecture, executable }.archive())
    }

    /// Returns when the shell command `condition` succeeds on the device.
    pub fn wait_until(&self, condition: &str) -> Result<()> {
        let wait = format!("until {condition}; do sleep 0.2; done");
        self.expect(&wait, CONDITION, 0).map(drop)
    }

    /// Everything in `directory` that an update may change, as text.
    pub fn contents(&self, directory: &str) -> Result<String> {
        self.ok(&format!(
            "if [ -e '{directory}' ]; then cd '{directory}' && find . -printf '%y %m %U:%G %T@ %s %p %l\\n' | sort \
             && find . -type f -exec sha256sum {{}} + | sort && getfattr -R -d -m - . ; else echo missing; fi"
        ))
    }

    /// Fails unless `directory` has the same contents as `before`.
    pub fn is_unchanged(&self, directory: &str, before: &str) -> Result<()> {
        let now = self.contents(directory)?;
        ensure!(now == before, "{directory} was changed: before:\n{before}\nnow:\n{now}");
        Ok(())
    }

    /// Fails unless neither the journal of `module` nor one of `paths` exists: an update has left nothing behind.
    pub fn is_clean(&self, module: &str, paths: &[&str]) -> Result<()> {
        let journal = journal(module);
        let missing = [&[journal.as_str()], paths].concat();
        let test = missing.iter().map(|path| format!("test ! -e '{path}'")).collect::<Vec<_>>();
        self.ok(&test.join(" && ")).context("the update has left files behind").map(drop)
    }
}

/// `length` bytes that depend on `name` and cannot be compressed.
pub fn random(name: &str, length: usize) -> Vec<u8> {
    // Marsaglia's xorshift.
    let seed = 0x9e37_79b9_7f4a_7c15;
    let mut random = name.bytes().fold(seed, |seed: u64, byte| seed.rotate_left(8) ^ u64::from(byte));
    let bytes = (0..length).map(|_| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as u8
    });
    bytes.collect()
}

/// Fails unless the exit status of `command` is one of `expected`.
fn has_status(command: &str, status: i32, expected: &[i32], output: &str) -> Result<()> {
    ensure!(
        expected.contains(&status),
        "unexpected exit status on the device: {command}: {status} instead of {expected:?}
{output}"
    );
    Ok(())
}

/// The directory of `module` on the device.
pub fn module_directory(module: &str) -> String {
    format!("/data/mender/update-modules/{module}")
}

/// The journal of `module` on the device.
pub fn journal(module: &str) -> String {
    format!("{}/journal.json", module_directory(module))
}
