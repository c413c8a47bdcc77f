//! Mender Update Module `fireplace`: installs the one file of the artifact, and can roll back to the previous file.
//!
//! Change it step by step. The library calls these methods in the right order and keeps the journal. After each step,
//! run `@CHECK@`. It shows whether an interruption at any system call still ends with
//! exactly the previous or exactly the new version.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use mender_update_module::durable::{Destination, Dir, Kind, Staging, Times};
use mender_update_module::{
    FileName, InTransactions, Payloads, Replaces, Transactional, Trigger, Update, WorkTree, log,
    require_harmless, settings,
};
use serde::{Deserialize, Serialize};

/// The permissions of the installed file: readable by everybody. A secret needs others.
const MODE: u32 = 0o644;

/// The space that an update leaves free, in bytes.
const RESERVE: u64 = 4 << 20;

struct Module;

/// The device's settings, `/etc/mender-modules/fireplace.toml`. Every key has a default.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// The file that updates replace: an absolute path.
    file: PathBuf,
}

impl Default for Settings {
    fn default() -> Self {
        Self { file: "/etc/fireplace/fireplace.conf".into() }
    }
}

/// One update, as it is stored in the journal. After a power loss, another process continues with it.
#[derive(Serialize, Deserialize)]
struct OneFile {
    /// The directory of the file. The library checks in every call that it is still the same directory.
    directory: Destination,
    name: FileName,
    /// The staging directory, on the file system of `directory`. It contains `new`, the downloaded file, and
    /// `previous`, a hard link to the file that is replaced.
    staging: Staging,
}

/// The device as `prepare` found it, for activation and rollback.
#[derive(Serialize, Deserialize)]
struct Before {
    /// The inode of the previous file, if there is one.
    #[serde(rename = "previous_inode")]
    file: Option<u64>,
    /// The inode of the new file.
    #[serde(rename = "new_inode")]
    new: Option<u64>,
    /// The times of the directory, if it existed: a rollback restores them.
    times: Option<Times>,
}

impl Transactional for Module {
    const NAME: &'static str = "fireplace";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    type Update = OneFile;

    fn check_settings(&self, file: &Path) -> Result<()> {
        settings::check::<Settings>(file).map(drop)
    }

    fn plan(&self, tree: &WorkTree, _payloads: &mut Payloads) -> Result<OneFile> {
        let Settings { file } = settings::load(Self::NAME)?;
        let directory = file.parent().context("invalid settings: file: not an absolute path")?;
        let name = FileName::new(file.file_name().context("invalid settings: file: no file name")?)?;
        let directory = Destination::find(directory).context("invalid settings: file")?;
        require_harmless(&directory.path(), Replaces::Files, tree)?;
        if let Some(found) = directory.open()? {
            find_file(&found, &name)?;
        }
        let staging = Staging::beside(&directory, Self::NAME).context("invalid settings: file")?;
        staging.parent()?.require_writable()?;
        staging.parent()?.check_space(0, RESERVE)?;
        Ok(OneFile { directory, name, staging })
    }

    fn stage(&self, update: &mut OneFile, payloads: &mut Payloads) -> Result<()> {
        let staging = update.staging.open()?;
        let mut payload = payloads.next().context("invalid artifact: no file: add one")??;
        staging.check_space(payload.size.unwrap_or(0), RESERVE)?;
        let mut file = staging.create_file(&new_name()?)?;
        let writing = || format!("writing the payload to {} failed", staging.path().display());
        io::copy(&mut payload, &mut file).with_context(writing)?;
        file.set_permissions(Permissions::from_mode(MODE)).with_context(writing)?;
        if let Some(more) = payloads.next() {
            bail!("invalid artifact: second file {}: leave one", more?.name);
        }
        staging.sync_filesystem()
    }
}

impl Update for OneFile {
    type Prepared = Before;

    fn make_staging(&mut self) -> Result<()> {
        self.staging.create(&[])
    }

    fn prepare(&mut self) -> Result<Before> {
        let staging = self.staging.open()?;
        let mut before = Before { file: None, new: staging.inode_of(&new_name()?)?, times: None };
        if let Some(directory) = self.directory.open_as_found()? {
            directory.require_same_mount(&staging)?;
            directory.require_changeable()?;
            before.file = find_file(&directory, &self.name)?;
            before.times = Some(directory.times()?);
        }
        Ok(before)
    }

    fn make_destination(&mut self, _before: &Before) -> Result<bool> {
        self.directory.make()
    }

    fn kept_in(&self) -> Option<PathBuf> {
        Some(self.staging.path())
    }

    fn conflicts_with(&self, unrestored: &Self) -> bool {
        (self.directory.path(), &self.name) == (unrestored.directory.path(), &unrestored.name)
    }

    fn activate(&self, before: &Before) -> Result<()> {
        let directory =
            self.directory.open()?.context("activation failed: the directory of the file does not exist")?;
        let staging = self.staging.open()?;
        if before.file.is_some() {
            // The hard link is durable before the previous file loses its name, so that one rename restores it.
            directory.link_as(&self.name, &staging, &previous_name()?)?;
            staging.sync()?;
            staging.rename(&new_name()?, &directory, &self.name)?;
        } else {
            staging.rename_to_free(&new_name()?, &directory, &self.name)?;
        }
        staging.sync()?;
        directory.sync()?;
        log!("activated: {} in {}", self.name, directory.path().display());
        Ok(())
    }

    fn roll_back(&self, before: &Before, _trigger: Trigger) -> Result<()> {
        let Before { file, new, times } = before;
        // The update may have been interrupted before it made the directory.
        let Some(directory) = self.directory.open()? else { return self.directory.remove_made() };
        let staging = self.staging.open()?;
        if file.is_some() {
            // Without the hard link, the file was not replaced yet, or is restored already.
            if staging.kind(&previous_name()?)?.is_some() {
                staging.rename(&previous_name()?, &directory, &self.name)?;
            }
        } else if staging.kind(&new_name()?)?.is_none() && directory.inode_of(&self.name)? == *new {
            // Remove only the file of this update: another program may have made one with the same name.
            directory.remove(&self.name)?;
        }
        // Check the result before reporting success.
        let found = directory.inode_of(&self.name)?;
        ensure!(
            found != *new && (file.is_none() || found.is_some()),
            "{}/{} is not the previous file",
            directory.path().display(),
            self.name
        );
        if let Some(times) = times {
            directory.set_times(*times)?;
        }
        directory.sync()?;
        self.directory.remove_made()
    }

    fn discard(&self, _before: Option<&Before>) -> Result<()> {
        self.staging.remove()
    }
}

/// The inode of the regular file `name`; `None` if it does not exist.
fn find_file(directory: &Dir, name: &FileName) -> Result<Option<u64>> {
    match directory.kind(name)? {
        None => Ok(None),
        Some(Kind::File) => directory.inode_of(name),
        Some(_) => bail!(
            "update refused: {}/{name} is not a regular file: set another file in the settings",
            directory.path().display()
        ),
    }
}

fn new_name() -> Result<FileName> {
    FileName::new("new")
}

fn previous_name() -> Result<FileName> {
    FileName::new("previous")
}

fn main() -> ExitCode {
    mender_update_module::run(InTransactions(Module))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_packaged_settings_are_the_defaults() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("@SETTINGS@");
        let text = fs::read_to_string(path).unwrap();
        // The file shows every key with its default, as a comment.
        let (shown, _) = text.split_once("# systemd units").unwrap();
        let shown = shown.replace("\n#file = ", "\nfile = ");
        assert!(shown.contains("\nfile = "), "{shown}");
        let shown: Settings = toml::from_str(&shown).unwrap();
        assert_eq!(format!("{shown:?}"), format!("{:?}", Settings::default()));
    }
}
