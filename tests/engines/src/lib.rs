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
    /// The executable of the generators of artifacts.
    pub generator: PathBuf,
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

/// Orders `all` by rounds, each of them every scenario with another one of its setups: if a run ends early, every
/// scenario has run.
pub fn by_rounds(all: &mut [(&'static Scenario, Setup)]) {
    let mut names: Vec<_> = all.iter().map(|(scenario, _)| scenario.name).collect();
    names.dedup();
    all.sort_by_key(|(scenario, setup)| {
        let turn = names.iter().position(|name| *name == scenario.name).unwrap_or_default();
        let place = scenario.on.iter().position(|on| on == setup).unwrap_or_default();
        (place + turn) % scenario.on.len()
    });
}

impl Scenario {
    /// Whether `cargo xtask test` runs the scenario with `setup` without `--full`.
    pub fn is_in_sample(&self, setup: Setup) -> bool {
        SAMPLE.contains(&(self.name, setup))
    }
}

/// What `cargo xtask test` runs: an install and a rollback with each engine.
const SAMPLE: &[(&str, Setup)] = &[("install", Setup::Podman), ("install", Setup::Docker)];

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_is_in_the_first_round() {
        let mut all = choose(&[]).unwrap();
        by_rounds(&mut all);
        let count = scenarios::all().count();
        let mut first: Vec<_> = all[..count].iter().map(|(scenario, _)| scenario.name).collect();
        first.sort_unstable();
        first.dedup();
        assert_eq!(first.len(), count);
    }

    #[test]
    fn scenarios_of_the_sample_exist() {
        let all = choose(&[]).unwrap();
        let found = all.iter().filter(|(scenario, setup)| scenario.is_in_sample(*setup)).count();
        assert_eq!(found, SAMPLE.len());
    }
}
