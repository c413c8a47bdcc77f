//! Mender Update Module `deb`: installs and removes Debian packages, and rolls that back exactly.
//!
//! An update goes through these directories:
//!
//! 1. `payload` stages the packages and reads what is in them.
//! 2. `checks` refuses what a rollback could not restore, before anything is changed.
//! 3. `backup` keeps the previous packages, copies of files, and a record of every path and table that the
//!    update affects.
//! 4. `apt` installs and removes the packages.
//! 5. `rollback` restores the backup, and fails with a list of differences if anything is not as recorded.
//!
//! The payload is that of Mender's own module of this name: `.deb` files. `mender-artifact` refuses some
//! names of packages; these come renamed, or in a tar archive. The module reads the real name from the
//! package.

mod apt;
pub mod artifact;
mod backup;
mod checks;
mod configuration;
mod dpkg;
mod file_systems;
#[doc(hidden)]
pub mod fuzzing;
mod layout;
mod options;
mod path_json;
mod paths;
mod payload;
mod relations;
mod restart_inhibitor;
mod rollback;
#[cfg(test)]
mod test_device;
mod update;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use mender_update_module::{InTransactions, Payloads, Transactional, WorkTree, log};

use options::{MetaData, Options, Settings};
use payload::staging::{Staging, require_packages};
use update::PackageUpdate;

struct Deb;

impl Transactional for Deb {
    const NAME: &'static str = "deb";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    type Update = PackageUpdate;

    fn check_settings(&self, file: &Path) -> Result<()> {
        mender_update_module::settings::check::<Settings>(file).map(drop)
    }

    fn plan(&self, tree: &WorkTree, _payloads: &mut Payloads) -> Result<PackageUpdate> {
        let settings: Settings = mender_update_module::settings::load(Self::NAME)?;
        let meta_data: MetaData = tree.meta_data()?.unwrap_or_default();
        Ok(PackageUpdate::new(tree.state_directory(Self::NAME), Options::new(settings, meta_data)))
    }

    fn stage(&self, update: &mut PackageUpdate, payloads: &mut Payloads) -> Result<()> {
        let directory = update.staging();
        let mut staging = Staging::create(&directory, update.reserve())?;
        update.record_staging()?;
        for payload in payloads {
            staging.receive(payload?)?;
        }
        require_packages(staging.packages(), update.removes_packages())?;
        log!("{} packages staged in {}", staging.packages(), directory.display());
        staging.sync()
    }
}

/// Runs the module: the `main` of its executable.
pub fn main() -> ExitCode {
    mender_update_module::run(InTransactions(Deb))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_device::{on_device, write};

    #[test]
    fn mistakes_in_the_settings_are_found() {
        on_device(|| {
            let check = |text: &str| {
                write("/etc/mender-modules/deb.toml", text);
                Deb.check_settings(Path::new("/etc/mender-modules/deb.toml"))
            };
            check("lock_seconds = 1").unwrap();
            assert!(check("lock_second = 1").is_err());
        });
    }
}
