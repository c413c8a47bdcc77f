//! A module in transactions: it replaces one file and rolls back to the previous one. Units are stopped and started,
//! and a health check runs, where the settings or the artifact's meta-data have the tables `units` and `health`:
//!
//! ```toml
//! # /etc/mender-modules/one-file.toml
//! file = "/etc/app/app.conf"
//!
//! [units]
//! restart = ["app.service"]
//!
//! [health]
//! tcp = "127.0.0.1:8080"
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use mender_update_module::anyhow::{Context, Result, ensure};
use mender_update_module::durable::{Destination, Staging, Times};
use mender_update_module::{
    FileName, InTransactions, Payloads, Transactional, Trigger, Update, WorkTree, log, run, settings,
};
use serde::{Deserialize, Serialize};

struct OneFile;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The file that is replaced.
    file: PathBuf,
}

/// The update, which the journal holds: after a power loss, the next process has nothing else.
#[derive(Serialize, Deserialize)]
struct Replacement {
    directory: Destination,
    name: FileName,
    staging: Staging,
}

/// What `prepare` finds out. Fault injection lays out a device again, where files have other inode numbers: it replaces
/// those in the journal, under keys that end with `inode`.
#[derive(Serialize, Deserialize)]
struct Prepared {
    /// The inode of the file that is replaced, if there is one.
    previous_inode: Option<u64>,
    /// The inode of the new file.
    new_inode: Option<u64>,
    /// The directory's times, where it is there: a rollback restores them too.
    times: Option<Times>,
}

impl Transactional for OneFile {
    const NAME: &'static str = "one-file";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type Update = Replacement;

    fn check_settings(&self, file: &Path) -> Result<()> {
        settings::check::<Settings>(file).map(drop)
    }

    fn plan(&self, _tree: &WorkTree, _payloads: &mut Payloads) -> Result<Replacement> {
        let Settings { file } = settings::load(Self::NAME)?;
        let directory = Destination::find(file.parent().context("file has no directory")?)?;
        let name = FileName::new(file.file_name().context("file has no name")?)?;
        let staging = Staging::beside(&directory, Self::NAME)?;
        Ok(Replacement { directory, name, staging })
    }

    fn stage(&self, update: &mut Replacement, payloads: &mut Payloads) -> Result<()> {
        let staging = update.staging.open()?;
        let mut payload = payloads.next().context("the artifact has no file")??;
        io::copy(&mut payload, &mut staging.create_file(&new()?)?).context("writing the payload")?;
        ensure!(payloads.next().is_none(), "the artifact has more than one file");
        staging.sync_filesystem()
    }
}

impl Update for Replacement {
    type Prepared = Prepared;

    fn make_staging(&mut self) -> Result<()> {
        self.staging.create(&[])
    }

    fn prepare(&mut self) -> Result<Prepared> {
        let mut prepared =
            Prepared { previous_inode: None, new_inode: self.staging.open()?.inode_of(&new()?)?, times: None };
        if let Some(directory) = self.directory.open_as_found()? {
            prepared.previous_inode = directory.inode_of(&self.name)?;
            prepared.times = Some(directory.times()?);
        }
        Ok(prepared)
    }

    fn make_destination(&mut self, _prepared: &Prepared) -> Result<bool> {
        self.directory.make()
    }

    fn activate(&self, prepared: &Prepared) -> Result<()> {
        let directory = self.directory.open()?.context("the directory of the file is missing")?;
        let staging = self.staging.open()?;
        if prepared.previous_inode.is_some() {
            // A second name for the previous file, durable before it loses its first.
            directory.link_as(&self.name, &staging, &previous()?)?;
            staging.sync()?;
            staging.rename(&new()?, &directory, &self.name)?;
        } else {
            staging.rename_to_free(&new()?, &directory, &self.name)?;
        }
        directory.sync()?;
        log!("activated: {}", directory.path().join(&self.name).display());
        staging.sync()
    }

    fn roll_back(&self, prepared: &Prepared, _trigger: Trigger) -> Result<()> {
        // Interrupted before it was made, it is not there.
        let Some(directory) = self.directory.open()? else { return self.directory.remove_made() };
        let staging = self.staging.open()?;
        if staging.kind(&previous()?)?.is_some() {
            staging.rename(&previous()?, &directory, &self.name)?;
        } else if prepared.previous_inode.is_none() && staging.kind(&new()?)?.is_none() {
            directory.remove(&self.name)?;
        }
        if let Some(times) = prepared.times {
            directory.set_times(times)?;
        }
        directory.sync()?;
        let active = directory.inode_of(&self.name)?;
        ensure!(
            active != prepared.new_inode && active.is_some() == prepared.previous_inode.is_some(),
            "rollback incomplete: {}: not the previous file",
            directory.path().join(&self.name).display()
        );
        log!("rollback complete: {}", directory.path().join(&self.name).display());
        self.directory.remove_made()
    }

    fn discard(&self, _prepared: Option<&Prepared>) -> Result<()> {
        self.staging.remove()
    }
}

fn new() -> Result<FileName> {
    FileName::new("new")
}

fn previous() -> Result<FileName> {
    FileName::new("previous")
}

fn main() -> ExitCode {
    run(InTransactions(OneFile))
}
