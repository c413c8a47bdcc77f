//! Mender Update Module `deb`: installs and removes Debian packages, and rolls that back exactly.
//!
//! What a rollback could not restore is refused before anything is changed ([`touched`]). Every path that an update touches is
//! recorded ([`record`]), and so are the tables of dpkg and apt ([`tables`]): a rollback restores them, and fails with a list
//! if one of them is not what it was ([`rollback`]).
//!
//! It takes the payload of Mender's own module of this name, bare `.deb` files; packages whose names an artifact cannot
//! hold come renamed, or in a tar archive. What they are called really, they say themselves.

mod archive;
mod contents;
mod control;
mod database;
mod dpkg;
mod extras;
mod form;
mod former;
mod hooks;
mod locks;
mod marks;
mod original;
mod places;
mod plan;
mod policy;
mod rebuild;
mod record;
mod rollback;
mod settings;
mod shield;
mod staged;
mod state_files;
mod strays;
mod tables;
mod touched;
mod upgrade;
mod was;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use mender_update_module::{InTransactions, Payloads, Transactional, WorkTree, log};

use settings::{MetaData, Settings, Wishes};
use staged::Staging;
use upgrade::Upgrade;

struct Deb;

impl Transactional for Deb {
    const NAME: &'static str = "deb";

    type Update = Upgrade;

    fn plan(&self, tree: &WorkTree, _payloads: &mut Payloads) -> Result<Upgrade> {
        let settings: Settings = mender_update_module::settings::load(Self::NAME)?;
        let meta_data: MetaData = tree.meta_data()?.unwrap_or_default();
        Ok(Upgrade::new(tree.state_folder(Self::NAME), Wishes::of(settings, meta_data)))
    }

    fn stage(&self, upgrade: &mut Upgrade, payloads: &mut Payloads) -> Result<()> {
        let mut staging = Staging::make(&upgrade.staging(), upgrade.reserve())?;
        upgrade.note_staging()?;
        for payload in payloads {
            staging.take(payload?)?;
        }
        ensure!(
            staging.packages() > 0 || upgrade.removes(),
            "the artifact has neither a package to install nor, as remove in its meta-data, one to remove"
        );
        log!("{} packages staged in {}", staging.packages(), upgrade.staging().display());
        staging.complete()
    }
}

fn main() -> ExitCode {
    mender_update_module::run(InTransactions(Deb))
}
