//! Mender Update Module `fireplace`: installs the artifact's one file, and can roll back to the previous one.
//!
//! `cargo xtask new` has made it. Make it yours step by step: the library calls what is here in the right order and keeps the
//! journal, and `cargo xtask crash --module fireplace` shows after each step whether an interruption at any system call still
//! ends in exactly the previous or exactly the new version.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use mender_update_module::durable::{Destination, Dir, Kind, Staging, Times};
use mender_update_module::{
    FileName, InTransactions, Payloads, Replaces, Transactional, Trigger, Update, WorkTree, log, require_harmless,
    settings,
};
use serde::{Deserialize, Serialize};

/// Permissions of what is installed: everybody may read it. A secret needs others.
const MODE: u32 = 0o644;

/// Space that an update leaves free, in bytes.
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

/// One update. It is in the journal, because the process that goes on after a power loss has nothing else.
#[derive(Serialize, Deserialize)]
struct OneFile {
    /// The directory that the file is in. The library finds it again, or refuses another one that has taken its name.
    directory: Destination,
    name: FileName,
    /// A directory of this update's own from which a rename into `directory` works. It holds `new`, what was downloaded, and
    /// `old`, the second name of what the new one replaces.
    staging: Staging,
}

/// The device as `prepare` found it: what the activation and a rollback go by.
#[derive(Serialize, Deserialize)]
struct Before {
    /// The inode of the file that is replaced, if there was one.
    file: Option<u64>,
    /// The inode of the new file.
    new: Option<u64>,
    /// The directory's times, where it was there: a rollback restores them, too.
    times: Option<Times>,
}

impl Transactional for Module {
    const NAME: &'static str = "fireplace";

    type Update = OneFile;

    fn plan(&self, tree: &WorkTree, _payloads: &mut Payloads) -> Result<OneFile> {
        let Settings { file } = settings::load(Self::NAME)?;
        let directory = file.parent().context("file in the module's settings has no directory")?;
        let name = FileName::new(file.file_name().context("file in the module's settings has no name")?)?;
        let directory = Destination::find(directory).context("file in the module's settings")?;
        require_harmless(&directory.path(), Replaces::Files, tree)?;
        if let Some(found) = directory.open()? {
            find_file(&found, &name)?;
        }
        let staging = Staging::beside(&directory, Self::NAME).context("file in the module's settings")?;
        staging.parent()?.require_writable()?;
        staging.parent()?.check_space(0, RESERVE)?;
        Ok(OneFile { directory, name, staging })
    }

    fn stage(&self, update: &mut OneFile, payloads: &mut Payloads) -> Result<()> {
        let staging = update.staging.open()?;
        let mut payload = payloads.next().context("the artifact has no file, and needs one")??;
        staging.check_space(payload.size.unwrap_or(0), RESERVE)?;
        let mut file = staging.create_file(&new_name()?)?;
        let writing = || format!("writing the payload to {}", staging.path().display());
        io::copy(&mut payload, &mut file).with_context(writing)?;
        file.set_permissions(Permissions::from_mode(MODE)).with_context(writing)?;
        if let Some(more) = payloads.next() {
            bail!("the artifact has a second file, {}: it may have one", more?.name);
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
        if let Some(directory) = self.directory.open()? {
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
        let directory = self.directory.open()?.context("the directory of the file is missing")?;
        let staging = self.staging.open()?;
        if before.file.is_some() {
            // A second name for the previous file, durable before it loses its first: from then on one rename puts it back.
            directory.link_as(&self.name, &staging, &old_name()?)?;
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
        // Interrupted before it was made, it is not there.
        let Some(directory) = self.directory.open()? else { return self.directory.remove_made() };
        let staging = self.staging.open()?;
        if file.is_some() {
            // Without `old`, the activation had not come to the file, or it is back already.
            if staging.kind(&old_name()?)?.is_some() {
                staging.rename(&old_name()?, &directory, &self.name)?;
            }
        } else if staging.kind(&new_name()?)?.is_none() && directory.inode_of(&self.name)? == *new {
            // What is still staged never came to the directory: a file of that name there is somebody else's.
            directory.remove(&self.name)?;
        }
        // A rollback is complete when it has looked.
        let is = directory.inode_of(&self.name)?;
        ensure!(
            is != *new && (file.is_none() || is.is_some()),
            "rollback incomplete: {}: {} is not the previous file",
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

/// The inode of the regular file `name`, `None` where nothing has that name.
fn find_file(directory: &Dir, name: &FileName) -> Result<Option<u64>> {
    match directory.kind(name)? {
        None => Ok(None),
        Some(Kind::File) => directory.inode_of(name),
        Some(_) => bail!("{name} in {} is no regular file: name another in the module's settings", directory.path().display()),
    }
}

fn new_name() -> Result<FileName> {
    FileName::new("new")
}

fn old_name() -> Result<FileName> {
    FileName::new("old")
}

fn main() -> ExitCode {
    mender_update_module::run(InTransactions(Module))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_packaged_settings_are_the_defaults() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../debian/fireplace/fireplace.toml");
        let text = fs::read_to_string(path).unwrap();
        // Every key is shown with its default, as a comment.
        let (shown, _) = text.split_once("# systemd units").unwrap();
        let shown = shown.replace("\n#file = ", "\nfile = ");
        assert!(shown.contains("\nfile = "), "{shown}");
        let shown: Settings = toml::from_str(&shown).unwrap();
        assert_eq!(format!("{shown:?}"), format!("{:?}", Settings::default()));
    }
}
