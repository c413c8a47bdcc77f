//! Mender Update Module `fireplace`: installs the artifact's one file, and can bring the former one back.
//!
//! `cargo xtask new` has made it. Make it yours step by step: the library calls what is here in the right order and keeps the
//! journal, and `cargo xtask crash --module fireplace` shows after each step whether a cut at any system call still ends in exactly
//! the old or exactly the new.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use update_module::durable::{self, Dir, Kind, Times};
use update_module::{Change, FileName, Payloads, Transactional, WorkTree, say, settings};

/// Permissions of what is installed: everybody may read it. A secret needs others.
const MODE: u32 = 0o644;

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

/// One update. It is in the journal, because the process that goes on after a power cut has nothing else.
#[derive(Serialize, Deserialize)]
struct OneFile {
    folder: PathBuf,
    name: FileName,
    /// A folder from which a rename into `folder` works. It holds `new`, what was downloaded, and `old`, the second name of what
    /// the new one replaces.
    staging: PathBuf,
    /// Set by `prepare`.
    before: Option<Before>,
}

/// The device as `prepare` found it.
#[derive(Serialize, Deserialize)]
struct Before {
    /// Whether there was a file to replace.
    file: bool,
    /// The folder's times, where it was there: the way back brings them back, too.
    times: Option<Times>,
    /// Folders that have to be made, outermost first.
    absent: Vec<PathBuf>,
}

impl Transactional for Module {
    const NAME: &'static str = "fireplace";

    type Change = OneFile;

    fn plan(&self, _tree: &WorkTree, _payloads: &mut Payloads) -> Result<OneFile> {
        let Settings { file } = settings::load(Self::NAME)?;
        let file = durable::resolve(&file).context("file in the module's settings")?;
        ensure!(!file.is_dir(), "{} is a folder: name a file in the module's settings", file.display());
        let folder = file.parent().context("file in the module's settings has no folder")?;
        let name = FileName::new(file.file_name().context("file in the module's settings has no name")?)?;
        let staging = durable::beside(folder, Self::NAME).context("file in the module's settings")?;
        Ok(OneFile { folder: folder.to_owned(), name, staging, before: None })
    }

    fn stage(&self, change: &mut OneFile, payloads: &mut Payloads) -> Result<()> {
        durable::remove_tree(&change.staging)?;
        let staging = Dir::make(&change.staging, 0o700)?;
        let mut payload = payloads.next().context("the artifact has no file, and needs one")??;
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

impl Change for OneFile {
    fn prepare(&mut self) -> Result<()> {
        let absent = durable::absent_parents(&self.folder)?;
        let mut before = Before { file: false, times: None, absent };
        if before.absent.is_empty() {
            let folder = Dir::open(&self.folder)?;
            before.file = match folder.kind(&self.name)? {
                None => false,
                Some(Kind::File) => true,
                Some(_) => bail!("{} in {} is no regular file", self.name, self.folder.display()),
            };
            before.times = Some(folder.times()?);
        }
        self.before = Some(before);
        Ok(())
    }

    fn switch(&self) -> Result<()> {
        let folder = durable::make_dirs(&self.folder)?;
        let staging = Dir::open(&self.staging)?;
        if self.before()?.file {
            // A second name for the old, on the medium before it loses its first: from then on one rename puts it back.
            folder.link_as(&self.name, &staging, &old_name()?)?;
            staging.sync()?;
            staging.rename(&new_name()?, &folder, &self.name)?;
        } else {
            staging.rename_to_free(&new_name()?, &folder, &self.name)?;
        }
        staging.sync()?;
        folder.sync()?;
        say(format_args!("{} is new in {}", self.name, self.folder.display()));
        Ok(())
    }

    fn switch_back(&self) -> Result<()> {
        let Before { file, times, absent } = self.before()?;
        if !absent.is_empty() && !durable::exists(&self.folder)? {
            return durable::remove_made(absent); // the switch was cut before it had made the folder
        }
        let (folder, staging) = (Dir::open(&self.folder)?, Dir::open(&self.staging)?);
        if *file {
            // Without `old`, the switch had not come to the file, or it is back already.
            if staging.kind(&old_name()?)?.is_some() {
                staging.rename(&old_name()?, &folder, &self.name)?;
            }
        } else if staging.kind(&new_name()?)?.is_none() {
            // What is still staged never came to the folder: a file of that name there is somebody else's.
            folder.remove(&self.name)?;
        }
        if let Some(times) = times {
            folder.set_times(*times)?;
        }
        folder.sync()?;
        durable::remove_made(absent)
    }

    fn forget(&self) -> Result<()> {
        durable::remove_tree(&self.staging)
    }
}

impl OneFile {
    fn before(&self) -> Result<&Before> {
        self.before.as_ref().context("the journal does not say what was there before")
    }
}

fn new_name() -> Result<FileName> {
    FileName::new("new")
}

fn old_name() -> Result<FileName> {
    FileName::new("old")
}

fn main() -> ExitCode {
    update_module::run(Module)
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
