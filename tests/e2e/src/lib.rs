//! End-to-end scenarios: the project's packages on emulated Raspberry Pis, with the real Mender client.
//!
//! Every scenario has a disposable disk. When a scenario fails, its directory `target/e2e/<machine>/<scenario>/` is
//! kept, with the disk, the console, QEMU's command line, and the error with the client's output.

mod artifact;
mod client;
pub mod cost;
mod device;
mod managed;
pub mod power_loss;
mod record;
mod renamed;
mod replacement;
mod scenarios;
mod states;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use host::status::Step;
use host::{directory, status};
use qemu::{Image, Limit, Snapshot};
use test_report::Timeline;
use xshell::Shell;

pub use artifact::Artifact;
use client::{CLIENTS, Client};
use device::Device;
pub use renamed::write as write_renamed_client;
pub use replacement::Packages;
pub use scenarios::container::MACHINE as CONTAINER_MACHINE;

/// The Debian packages that the host needs for the scenarios, in addition to those of QEMU.
pub const HOST_PACKAGES: &[&str] = &["mender-artifact"];

/// The deadline of a scenario, from its first boot to its last check. It ends a scenario that hangs: the limits of
/// single waits are up to 30 minutes each. In CI, the time of `--within` and this one have to be less than 90 minutes.
/// On an idle host the slowest scenario took 411 s. `power-loss-install`, which takes 90 s there, took 2128 s beside
/// `stress-ng --cpu 4`.
pub const SCENARIO: Limit = Limit::new("SCENARIO", 2400);

/// The name of the snapshot's directory, beside those of the scenarios.
const SNAPSHOT: &str = "snapshot";

/// A scenario: what happens to one device, from power-on to the last check.
pub struct Scenario {
    /// Its name on the command line and of its directory.
    pub name: &'static str,
    /// What it shows.
    pub description: &'static str,
    run: fn(&mut Device) -> Result<()>,
}

impl Scenario {
    /// Whether the scenario runs on QEMU's machine `machine`.
    pub fn runs_on(&self, machine: &str) -> bool {
        scenarios::runs_on(self, machine)
    }

    /// Whether `cargo xtask test` runs the scenario on `machine` without `--full`. Some scenarios take turns: `offset`
    /// chooses one of them.
    pub fn is_in_sample(&self, machine: &str, offset: usize) -> bool {
        scenarios::is_in_sample(self, machine, offset)
    }
}

/// Everything that the scenarios of one machine need.
pub struct Setup {
    /// The image of their device.
    pub image: Image,
    /// The `.deb` files under test, for the architecture of this machine.
    pub packages: Vec<PathBuf>,
    /// The executable of the generators of artifacts, for this host.
    pub generator: PathBuf,
    /// A signed APT repository of these packages.
    pub repository: PathBuf,
    /// The executable of the server in container images, for this machine.
    pub server: PathBuf,
    /// Another client, which replaces that of the image.
    pub replacement: Option<Packages>,
    /// The directory of the scenarios' directories: `target/e2e/<machine>`.
    pub directory: PathBuf,
    /// A device with all packages, from which most scenarios start. Without it they boot and install a package.
    pub snapshot: Option<Snapshot>,
}

/// The scenarios called `names`, or all of them if `names` is empty.
///
/// # Errors
/// A name is unknown. The error lists the known ones.
pub fn choose(names: &[String]) -> Result<Vec<&'static Scenario>> {
    for name in names {
        ensure!(
            scenarios::all().any(|scenario| scenario.name == name),
            "no such scenario: {name}: use one of {}",
            scenarios::all().map(|scenario| scenario.name).collect::<Vec<_>>().join(", ")
        );
    }
    let chosen = |scenario: &&Scenario| names.is_empty() || names.iter().any(|name| name == scenario.name);
    Ok(scenarios::all().filter(chosen).collect())
}

impl Setup {
    /// The generation of the client on the device.
    fn client(&self) -> &'static Client {
        self.replacement.as_ref().map_or(&CLIENTS[0], |packages| packages.client)
    }

    /// Boots a device, installs the packages, and makes a snapshot for [`Setup::snapshot`]. Returns `None` after a note
    /// with the cause if that fails.
    pub fn create_snapshot(&self) -> Result<Option<Snapshot>> {
        self.create_prepared_snapshot(|_| Ok(()))
    }

    /// As [`Setup::create_snapshot`], and calls `prepare` on the device before the snapshot is made.
    fn create_prepared_snapshot(&self, prepare: impl Fn(&Device) -> Result<()>) -> Result<Option<Snapshot>> {
        let directory = self.directory.join(SNAPSHOT);
        directory::empty(&directory)?;
        let machine = self.image.board().machine;
        status::step(format!("{machine}: snapshot of a device with the packages"), |step| {
            let snapshot = qemu::with_deadline(SCENARIO, || self.device_with_packages(&directory, step, prepare));
            if let Err(error) = &snapshot {
                step.note(format!("creating a snapshot failed; every scenario boots: {error:#}"));
            }
            Ok(snapshot.ok())
        })
    }

    fn device_with_packages(
        &self,
        directory: &Path,
        step: &Step,
        prepare: impl Fn(&Device) -> Result<()>,
    ) -> Result<Snapshot> {
        let sh = &Shell::new()?;
        let mut device = Device::new(sh, self, directory, step)?;
        device.power_on()?;
        let mut modules = scenarios::modules(self.image.board().machine);
        modules.try_for_each(|module| device.install_package(module))?;
        prepare(&device)?;
        device.into_snapshot()
    }

    /// Removes the snapshot.
    pub fn remove_snapshot(&mut self) -> Result<()> {
        match self.snapshot.take() {
            Some(_) => directory::remove(&self.directory.join(SNAPSHOT)),
            None => Ok(()),
        }
    }

    /// Runs `scenario`, and records it in `timeline`, also if it fails. Removes its directory if it succeeds.
    pub fn run(&self, scenario: &Scenario, timeline: &mut Timeline) -> Result<()> {
        let sh = &Shell::new()?;
        let directory = self.directory.join(scenario.name);
        directory::empty(&directory)?;
        let machine = self.image.board().machine;
        let result = status::step(format!("{machine}: {}", scenario.name), |step| {
            let mut device = Device::new(sh, self, &directory, step)?;
            let result = qemu::with_deadline(SCENARIO, || (scenario.run)(&mut device));
            *timeline = device.into_timeline();
            result
        });
        if let Err(error) = &result {
            let path = directory.join("error");
            fs::write(&path, format!("{error:#}\n")).with_context(|| format!("writing {} failed", path.display()))?;
        }
        result.with_context(|| {
            let Scenario { name, description, .. } = scenario;
            format!("scenario failed: {name} on {machine} ({description}), see {}", directory.display())
        })?;
        directory::remove(&directory)
    }
}
