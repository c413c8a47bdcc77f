//! Scenarios of the module `container` with real engines: Debian 13 with systemd, podman, docker and both compose
//! providers, booted in namespaces of this machine and driven by the real Mender client. A device boots in two seconds.
//!
//! Every scenario runs on a new device for each of its setups. When it fails, the device's files and the error are
//! kept in `target/engines/<scenario>/<setup>/`. The scenarios need root.

mod device;
mod release;
mod scenarios;
mod setup;
pub mod system;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use host::{directory, status};

use device::Device;
pub use setup::Setup;

/// Debian packages of the host that the scenarios need.
pub const HOST_PACKAGES: &[&str] =
    &["debian-archive-keyring", "e2fsprogs", "mender-artifact", "mmdebstrap", "util-linux"];

/// A scenario: what happens to a device, and the expected results.
pub struct Scenario {
    /// The name on the command line, and of the directory.
    pub name: &'static str,
    /// What the scenario shows, in one line.
    pub summary: &'static str,
    /// The setups that it runs on.
    pub on: &'static [Setup],
    run: fn(&mut Device) -> Result<()>,
}

/// The files that all scenarios use.
pub struct Suite {
    /// The Debian tree, see [`system::ensure`].
    pub system: PathBuf,
    /// The module's executable.
    pub module: PathBuf,
    /// The server in the images: a static executable.
    pub server: Vec<u8>,
    /// The directory for devices; those of failed scenarios are kept.
    pub directory: PathBuf,
}

/// The scenarios in `names`, each `scenario` or `scenario/setup`, with their setups; all of them if `names` is empty.
///
/// # Errors
/// For an unknown name: the known ones.
pub fn choose(names: &[String]) -> Result<Vec<(&'static Scenario, Setup)>> {
    let all = || scenarios::all().flat_map(|scenario| scenario.on.iter().map(move |setup| (scenario, *setup)));
    let matches = |name: &str, scenario: &Scenario, setup: Setup| {
        name == scenario.name || name == format!("{}/{setup}", scenario.name)
    };
    for name in names {
        ensure!(
            all().any(|(scenario, setup)| matches(name, scenario, setup)),
            "no such scenario: {name}: choose from {}",
            scenarios::all().map(|scenario| scenario.name).collect::<Vec<_>>().join(", ")
        );
    }
    let chosen = |(scenario, setup): &(&Scenario, Setup)| {
        names.is_empty() || names.iter().any(|name| matches(name, scenario, *setup))
    };
    Ok(all().filter(chosen).collect())
}

/// Each scenario in `all` with one of its setups, another one for each scenario.
pub fn sample(all: &[(&'static Scenario, Setup)]) -> Vec<(&'static Scenario, Setup)> {
    let mut sample = Vec::new();
    let mut rest = all;
    while let Some((scenario, _)) = rest.first() {
        let end = rest.iter().position(|(other, _)| other.name != scenario.name).unwrap_or(rest.len());
        let (of_one, others) = rest.split_at(end);
        sample.extend(of_one.get(sample.len() % of_one.len()));
        rest = others;
    }
    sample
}

impl Suite {
    /// Runs `scenario` on a new device with `setup`. The directory of a successful one is removed.
    ///
    /// # Errors
    /// When it fails: the difference, and the directory of the device.
    pub fn run(&self, scenario: &Scenario, setup: Setup) -> Result<()> {
        let name = format!("{}/{setup}", scenario.name);
        let directory = self.directory.join(&name);
        directory::empty(&directory)?;
        let group = format!("mender-engines-{}-{}-{setup}", std::process::id(), scenario.name);
        let result = status::step(&name, |step| {
            let mut device = Device::new(self, setup, &directory, &group, step)?;
            device.power_on()?;
            (scenario.run)(&mut device)
        });
        if let Err(error) = &result {
            let path = directory.join("error");
            fs::write(&path, format!("{error:#}\n")).with_context(|| format!("writing {} failed", path.display()))?;
        }
        result.with_context(|| format!("{name} failed: {}: see {}", scenario.summary, directory.display()))?;
        directory::remove(&directory)
    }
}
