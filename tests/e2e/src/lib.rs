//! End-to-end scenarios: the project's own packages on an emulated Raspberry Pi, driven by the real Mender client.
//!
//! Every scenario has a disposable overlay of its own. When one fails, its overlay, console, QEMU's command line and the
//! error with the client's words stay in `target/e2e/<machine>/<scenario>/`.

mod artifact;
pub mod cost;
mod lab;
mod scenarios;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use host::status::Step;
use host::{directory, status};
use qemu::{Image, Saved};
use xshell::Shell;

pub use artifact::Artifact;
use lab::Lab;
pub use scenarios::container::MACHINE as CONTAINER_MACHINE;

/// Debian packages of the host that the scenarios need beside QEMU's.
pub const HOST_PACKAGES: &[&str] = &["mender-artifact"];

/// The directory of the saved device, beside those of the scenarios.
const SAVED: &str = "saved-device";

/// One thing that happens to a device, from power-on to what must be true in the end.
pub struct Scenario {
    /// Its name on the command line and of its directory.
    pub name: &'static str,
    /// What is shown.
    pub says: &'static str,
    play: fn(&mut Lab) -> Result<()>,
}

impl Scenario {
    /// Whether it is for the machine that QEMU calls `machine`.
    pub fn is_for(&self, machine: &str) -> bool {
        scenarios::is_for(self, machine)
    }

    /// Whether an everyday run plays it on `machine`: `cargo xtask test`, which is to end within the hour.
    pub fn is_everyday(&self, machine: &str) -> bool {
        scenarios::is_everyday(self, machine)
    }
}

/// What the scenarios of one machine are played with.
pub struct Stage {
    /// The image that they start from.
    pub image: Image,
    /// The `.deb` files under test, for this machine's architecture.
    pub packages: Vec<PathBuf>,
    /// The server of containers' images, for this machine.
    pub server: PathBuf,
    /// The directory that keeps what failed: `target/e2e/<machine>`.
    pub directory: PathBuf,
    /// A device with all packages, for the scenarios that begin with one; without it they install the one they need.
    pub saved: Option<Saved>,
}

/// The scenarios called `names`, all of them where no name is given.
///
/// # Errors
/// For a name that none has: the names that are there.
pub fn choose(names: &[String]) -> Result<Vec<&'static Scenario>> {
    for name in names {
        ensure!(
            scenarios::all().any(|scenario| scenario.name == name),
            "there is no scenario {name}; there are: {}",
            scenarios::all().map(|scenario| scenario.name).collect::<Vec<_>>().join(", ")
        );
    }
    let chosen = |scenario: &&Scenario| names.is_empty() || names.iter().any(|name| name == scenario.name);
    Ok(scenarios::all().filter(chosen).collect())
}

impl Stage {
    /// Boots a device, installs the packages, and saves it for [`Stage::saved`]: minutes once, for a minute in every scenario
    /// that begins so. Where that fails it says why, and every scenario boots.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub fn save_device(&self) -> Result<Option<Saved>> {
        let directory = self.directory.join(SAVED);
        directory::empty(&directory)?;
        let machine = self.image.board().machine;
        status::step(format!("{machine}: saving a device with the packages"), |step| {
            let saved = self.device_with_packages(&directory, step);
            if let Err(error) = &saved {
                step.note(format!("every scenario boots instead: {error:#}"));
            }
            Ok(saved.ok())
        })
    }

    fn device_with_packages(&self, directory: &Path, step: &Step) -> Result<Saved> {
        let sh = &Shell::new()?;
        let mut lab = Lab::new(sh, self, directory, step)?;
        lab.power_on()?;
        let mut modules = scenarios::modules(self.image.board().machine);
        modules.try_for_each(|module| lab.install_package(module))?;
        lab.save()
    }

    /// Removes the saved device.
    ///
    /// # Errors
    /// When the directory cannot be removed.
    pub fn forget_device(&mut self) -> Result<()> {
        match self.saved.take() {
            Some(_) => directory::remove(&self.directory.join(SAVED)),
            None => Ok(()),
        }
    }

    /// Plays `scenario`; its directory goes when it has succeeded.
    ///
    /// # Errors
    /// When it fails: what was expected, what was seen, and where the rest is kept.
    pub fn play(&self, scenario: &Scenario) -> Result<()> {
        let sh = &Shell::new()?;
        let directory = self.directory.join(scenario.name);
        directory::empty(&directory)?;
        let machine = self.image.board().machine;
        let played = status::step(format!("{machine}: {}", scenario.name), |step| {
            (scenario.play)(&mut Lab::new(sh, self, &directory, step)?)
        });
        if let Err(error) = &played {
            let path = directory.join("error");
            fs::write(&path, format!("{error:#}\n"))
                .with_context(|| format!("writing {}", path.display()))?;
        }
        played.with_context(|| format!("{}: kept in {}", scenario.says, directory.display()))?;
        directory::remove(&directory)
    }
}
