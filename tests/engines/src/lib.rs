//! What the module `container` does with real engines: Debian 13 with systemd, podman, docker and both compose providers,
//! booted in namespaces of this machine, driven by the real Mender client. A device is there in two seconds.
//!
//! Every scenario has a device of its own for each engine that it is for. Where one fails, what the device had written and
//! the error stay in `target/engines/<scenario>/<setup>/`. It takes root.

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

/// One thing that happens to a device.
pub struct Scenario {
    /// Its name on the command line and of its directory.
    pub name: &'static str,
    /// What is shown.
    pub says: &'static str,
    /// What it runs on.
    pub on: &'static [Setup],
    play: fn(&mut Device) -> Result<()>,
}

/// What the scenarios are run with.
pub struct Suite {
    /// The Debian tree, see [`system::ensure`].
    pub system: PathBuf,
    /// The module's executable.
    pub module: PathBuf,
    /// The server in the containers' images: a static executable.
    pub server: Vec<u8>,
    /// The directory that keeps what failed.
    pub directory: PathBuf,
}

/// Every scenario with every setup that it is for, of those whose `scenario` or `scenario/setup` is among `names`; all where
/// no name is given.
///
/// # Errors
/// For a name that none has: the names that are there.
pub fn choose(names: &[String]) -> Result<Vec<(&'static Scenario, Setup)>> {
    let all =
        || scenarios::all().flat_map(|scenario| scenario.on.iter().map(move |setup| (scenario, *setup)));
    let is = |name: &str, scenario: &Scenario, setup: Setup| {
        name == scenario.name || name == format!("{}/{setup}", scenario.name)
    };
    for name in names {
        ensure!(
            all().any(|(scenario, setup)| is(name, scenario, setup)),
            "no such scenario: {name}: choose from {}",
            scenarios::all().map(|scenario| scenario.name).collect::<Vec<_>>().join(", ")
        );
    }
    let chosen = |(scenario, setup): &(&Scenario, Setup)| {
        names.is_empty() || names.iter().any(|name| is(name, scenario, *setup))
    };
    Ok(all().filter(chosen).collect())
}

/// Of `all`, each scenario with one of its setups, taken in turn.
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
    /// Runs `scenario` on a fresh device with `setup`; its directory goes when it has succeeded.
    ///
    /// # Errors
    /// When it fails: what was expected, what was seen, and where the rest is kept.
    pub fn play(&self, scenario: &Scenario, setup: Setup) -> Result<()> {
        let name = format!("{}/{setup}", scenario.name);
        let directory = self.directory.join(&name);
        directory::empty(&directory)?;
        let group = format!("mender-engines-{}-{}-{setup}", std::process::id(), scenario.name);
        let played = status::step(&name, |step| {
            let mut device = Device::new(self, setup, &directory, &group, step)?;
            device.power_on()?;
            (scenario.play)(&mut device)
        });
        if let Err(error) = &played {
            let path = directory.join("error");
            fs::write(&path, format!("{error:#}\n"))
                .with_context(|| format!("writing {}", path.display()))?;
        }
        played.with_context(|| format!("{name}: {}: kept in {}", scenario.says, directory.display()))?;
        directory::remove(&directory)
    }
}
