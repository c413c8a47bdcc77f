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

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use update_module::durable::{self, Dir, Kind, Times};
use update_module::{Change, FileName, Payloads, Transactional, WorkTree, say, settings};

struct Fireplace;

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
    before: Option<Before>,
}

/// The device as `prepare` found it.
#[derive(Serialize, Deserialize)]
struct Before {
    /// Whether there was a file to replace.
    file: bool,
    /// The folder's times, where it was there: an exact way back brings them back, too.
    times: Option<Times>,
    /// Folders that have to be made, outermost first.
    absent: Vec<PathBuf>,
}

impl Transactional for Fireplace {
    const NAME: &'static str = "fireplace";

    type Change = OneFile;

    fn plan(&self, _tree: &WorkTree, _payloads: &mut Payloads) -> Result<OneFile> {
        let Settings { file } = settings::load(Self::NAME)?;
        let file = durable::resolve(&file).context("file in the module's settings")?;
        ensure!(!file.is_dir(), "{} is a folder: name a file in the module's settings", file.display());
        let folder = file.parent().context("file in the module's settings has no folder")?;
        let name = FileName::new(file.file_name().context("file in the module's settings has no name")?)?;
        let staging = durable::beside(folder, Self::NAME)?;
        Ok(OneFile { folder: folder.to_owned(), name, staging, before: None })
    }

    fn stage(&self, change: &mut OneFile, payloads: &mut Payloads) -> Result<()> {
        durable::remove_tree(&change.staging)?;
        let staging = Dir::make(&change.staging, 0o700)?;
        let mut payload = payloads.next().context("the artifact has no file, and needs one")??;
        let mut file = staging.create_file(&new()?)?;
        let writing = || format!("writing the payload to {}", staging.path().display());
        io::copy(&mut payload, &mut file).with_context(writing)?;
        file.set_permissions(Permissions::from_mode(0o644)).with_context(writing)?;
        ensure!(payloads.next().is_none(), "the artifact has more than one file");
        staging.sync_filesystem()
    }
}

impl Change for OneFile {
    fn prepare(&mut self) -> Result<()> {
        let absent = durable::absent_parents(&self.folder)?;
        let mut before = Before { file: false, times: None, absent };
        if before.absent.is_empty() {
            let folder = Dir::open(&self.folder)?;
            before.file = folder.kind(&self.name)? == Some(Kind::File);
            before.times = Some(folder.times()?);
        }
        self.before = Some(before);
        Ok(())
    }

    fn switch(&self) -> Result<()> {
        let folder = durable::make_dirs(&self.folder)?;
        let staging = Dir::open(&self.staging)?;
        if self.before()?.file {
            // From here on the old can be put back by one rename.
            folder.link_as(&self.name, &staging, &old()?)?;
            staging.sync()?;
            staging.rename(&new()?, &folder, &self.name)?;
        } else {
            staging.rename_to_free(&new()?, &folder, &self.name)?;
        }
        staging.sync()?;
        folder.sync()?;
        say(format_args!("{} is new in {}", self.name, self.folder.display()));
        Ok(())
    }

    fn switch_back(&self) -> Result<()> {
        let Before { file, times, absent } = self.before()?;
        if !absent.is_empty() && !self.folder.exists() {
            return durable::remove_made(absent); // the switch was cut before it had made the folder
        }
        let (folder, staging) = (Dir::open(&self.folder)?, Dir::open(&self.staging)?);
        let is_staged = |name: FileName| Ok::<_, anyhow::Error>(staging.kind(&name)?.is_some());
        if *file && is_staged(old()?)? {
            staging.rename(&old()?, &folder, &self.name)?;
        } else if !*file && !is_staged(new()?)? {
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

fn new() -> Result<FileName> {
    FileName::new("new")
}

fn old() -> Result<FileName> {
    FileName::new("old")
}

fn main() -> ExitCode {
    update_module::run(Fireplace)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_packaged_settings_are_the_defaults() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../debian/fireplace/fireplace.toml");
        // Every key is shown with its default, as a comment.
        let shown = fs::read_to_string(path).unwrap().replace("#file", "file");
        assert_eq!(toml::from_str::<Settings>(&shown).unwrap().file, Settings::default().file);
    }
}
