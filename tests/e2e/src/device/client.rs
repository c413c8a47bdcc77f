//! The client of a device: which one it has, and its commands.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use host::apt::Root;
use qemu::{Background, Limit};
use test_report::Kind;
use xshell::cmd;

use super::{APT, Device, QUERY, has_status};
use crate::artifact;
use crate::client::{CLIENTS, Client};
use crate::replacement::Packages;
use crate::states;

/// The client's `install`, `commit` or `rollback`.
pub(super) const CLIENT: Limit = Limit::new("CLIENT", 1800);

/// A client in the background.
pub(super) struct Running {
    command: String,
    start: Instant,
    background: Background,
}

impl Device<'_> {
    /// Replaces the client of the image by that of `packages`. Its services are masked, as that of the image is.
    pub(super) fn replace_client(&self, packages: &Packages) -> Result<()> {
        self.step.detail("replacing the client");
        let copies: Result<Vec<_>> =
            packages.others.iter().chain([&packages.main]).map(|deb| self.copy_in(deb)).collect();
        let copies = copies?.join(" ");
        for service in packages.client.services {
            self.ok(&format!("ln -sf /dev/null /etc/systemd/system/{service}"))?;
        }
        self.package(&format!("dpkg --remove {}", CLIENTS[0].package))?;
        // The image has settings that the packages have, too.
        self.package(&format!("{APT} -o Dpkg::Options::=--force-confold install --yes {copies}"))?;
        self.ok(&format!("rm {copies} && sync")).map(drop)
    }

    /// Records the client in the background, which has ended at `end`, and keeps its output.
    pub(super) fn end_client(&mut self, end: Instant) {
        let Some(Running { command, start, background }) = self.client.take() else { return };
        let lines = background.stderr();
        self.recorder.add(Kind::Command, &command, start, end);
        self.recorder.client(&lines, end);
        let output: String = lines.into_iter().map(|line| line.text).collect();
        // The file helps to understand a failure. Its absence does not fail a scenario.
        let _ = fs::write(self.directory.join("client.log"), output);
    }

    /// The generation of the client.
    pub fn generation(&self) -> &'static Client {
        self.setup.client()
    }

    /// A private key for the device in managed mode, in a file on this host.
    pub fn key(&self) -> Result<PathBuf> {
        let path = self.directory.join("mender-agent.pem");
        let passphrase = "";
        let create = cmd!(self.sh, "ssh-keygen -q -t rsa -b 2048 -m PEM -N {passphrase} -f {path}");
        create.quiet().run().context("creating a key for the device failed")?;
        Ok(path)
    }

    /// The last lines that the client's daemon has logged, for errors.
    pub fn daemon_log(&self) -> String {
        let units = self.setup.client().services.iter().map(|unit| format!(" --unit {unit}")).collect::<String>();
        let read = self.run(&format!("journalctl --no-pager --lines 60{units}"), QUERY);
        read.map(|output| output.text()).unwrap_or_else(|error| format!("reading the journal failed: {error:#}"))
    }

    /// The package with the client's command, in a version that is newer than the installed one.
    pub fn newer_client(&self) -> Result<Vec<u8>> {
        let newer = |present: &str| format!("{present}+newer");
        let write = |deb: &Path| -> Result<Vec<u8>> {
            let path = artifact::with_version(self.sh, deb, &self.directory.join("newer"), newer)?;
            fs::read(&path).with_context(|| format!("reading {} failed", path.display()))
        };
        if let Some(packages) = &self.setup.replacement {
            return write(&packages.main);
        }
        let release = self.ok(". /etc/os-release && echo $VERSION_CODENAME")?;
        let apt = self.directory.join("apt");
        let apt = Root::new(self.sh, self.step, &apt, release.trim(), self.setup.image.board().architecture)?;
        let package = self.generation().package;
        let debs = apt.download(self.step, &[package])?;
        write(debs.first().with_context(|| format!("apt-get downloaded no package of {package}"))?)
    }

    /// Runs the client, which must exit with `status`, and returns its output.
    pub fn client(&self, arguments: &str, status: i32) -> Result<String> {
        self.client_with_one_of(arguments, &[status])
    }

    fn client_with_one_of(&self, arguments: &str, statuses: &[i32]) -> Result<String> {
        let name = self.client_name(arguments);
        self.step.detail(&name);
        let (machine, command) = (self.machine()?, self.setup.client().command_line(arguments));
        let output = self.recorder.during(Kind::Command, &name, || machine.run(&command, CLIENT))?;
        self.recorder.client(&output.stderr, Instant::now());
        let text = states::without_debug_lines(&output.text());
        has_status(&name, output.status, statuses, &text)?;
        Ok(text)
    }

    /// Installs `artifact` with the client.
    pub fn install(&self, artifact: &str) -> Result<()> {
        self.client(&format!("install {artifact}"), 0).map(drop)
    }

    /// Installs `artifact` with the client and commits it.
    pub fn install_and_commit(&self, artifact: &str) -> Result<()> {
        self.install(artifact)?;
        self.client("commit", 0).map(drop)
    }

    /// Asks the client for a rollback after a boot that has recovered an interrupted install: there is nothing to roll
    /// back.
    pub fn has_no_update_to_roll_back(&self) -> Result<()> {
        let statuses = self.setup.client().rollback_after_recovery;
        self.client_with_one_of("rollback", statuses).context("a rollback after the recovery").map(drop)
    }

    /// The command of the client with `arguments`, for messages.
    fn client_name(&self, arguments: &str) -> String {
        format!("{} {arguments}", self.setup.client().command)
    }

    /// Starts the client, and delays the module's call number `number` of the system call `call` by an hour, which
    /// leaves time for a power loss. Returns when the shell command `condition` succeeds on the device.
    pub fn start_client_delayed(&mut self, arguments: &str, call: &str, number: usize, condition: &str) -> Result<()> {
        let tracer =
            format!("strace -f -qq -o /dev/null -e trace={call} -e inject={call}:delay_enter=3600s:when={number}");
        self.start_client(&tracer, arguments, condition)
            .with_context(|| format!("{} did not reach call {number} of {call}", self.client_name(arguments)))
    }

    /// Starts the client. Returns when the shell command `condition` succeeds on the device.
    pub fn start_client_until(&mut self, arguments: &str, condition: &str) -> Result<()> {
        self.start_client("", arguments, condition)
            .with_context(|| format!("{} did not reach the condition", self.client_name(arguments)))
    }

    fn start_client(&mut self, tracer: &str, arguments: &str, condition: &str) -> Result<()> {
        let background =
            self.machine()?.spawn(&format!("{tracer} {} 1>&2", self.setup.client().command_line(arguments)))?;
        self.client = Some(Running { command: self.client_name(arguments), start: Instant::now(), background });
        self.wait_until(condition)
    }
}
