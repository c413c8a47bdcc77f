//! The directory that an update changes, as Download found it.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{self, AtFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::path::NAME_MAX;
use super::{Dir, Identity, Known, failed, trust};
use crate::name::FileName;

/// The directory that an update changes. Its identity is recorded in Download, and checked whenever it is opened. If
/// it does not exist, the identity is that of the nearest directory above it.
///
/// ```
/// use mender_update_module::durable::Destination;
///
/// # let temporary = tempfile::tempdir()?;
/// # let root = temporary.path().canonicalize()?;
/// let mut destination = Destination::find(&root.join("srv/app"))?;
/// assert!(destination.open()?.is_none());
/// destination.make()?;
/// assert!(destination.open()?.is_some());
/// destination.remove_made()?;
/// assert!(!root.join("srv").exists());
/// # anyhow::Ok(())
/// ```
#[derive(Debug, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct Destination {
    base: Known,
    /// The missing directories below `base`, outermost first; the last is the destination.
    missing: Vec<FileName>,
    /// The identities of those of `missing` that this update made.
    made: Vec<Identity>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    /// The form in a journal of a build before the first release.
    Path(Known),
    Whole {
        base: Known,
        missing: Vec<FileName>,
        made: Vec<Identity>,
    },
}

impl From<Stored> for Destination {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Path(base) => Self { base, missing: Vec::new(), made: Vec::new() },
            Stored::Whole { base, missing, made } => Self { base, missing, made },
        }
    }
}

impl Destination {
    /// A destination without identity, from a journal of a build before the first release.
    pub fn unrecorded(path: &Path) -> Self {
        Self { base: Known::unrecorded(path), missing: Vec::new(), made: Vec::new() }
    }

    /// The directory at the absolute path `path`, which may not exist.
    ///
    /// # Errors
    /// For a path with control characters, a path with a symlink that others than root may have made, and a path of a
    /// file.
    pub fn find(path: &Path) -> Result<Self> {
        require_plain(path)?;
        let resolved = trust::follow(path)?;
        let base = Dir::open_exact(&resolved.existing).with_context(|| {
            format!(
                "destination refused: {} is not a directory: move it away, or name another",
                resolved.existing.display()
            )
        })?;
        let missing = resolved.missing.into_iter().map(FileName::new).collect::<Result<Vec<_>>>()?;
        for name in &missing {
            ensure!(
                name.as_ref().as_os_str().len() <= NAME_MAX,
                "destination refused: {name} is longer than {NAME_MAX} bytes"
            );
        }
        Ok(Self { base: Known::new(&base)?, missing, made: Vec::new() })
    }

    /// The path, without symlinks.
    pub fn path(&self) -> PathBuf {
        self.missing.iter().fold(self.base.path().to_owned(), |path, name| path.join(name))
    }

    /// Whether the directory existed in Download.
    pub fn existed(&self) -> bool {
        self.missing.is_empty()
    }

    /// The nearest directory that existed in Download: the destination, or one above it.
    pub fn base(&self) -> &Known {
        &self.base
    }

    /// Opens the directory; `None` if it did not exist and this update has not made it.
    ///
    /// # Errors
    /// When the path leads to another directory now.
    pub fn open(&self) -> Result<Option<Dir>> {
        let base = self.base.open()?;
        if self.missing.is_empty() {
            return Ok(Some(base));
        }
        let mut way = self.open_made(base)?;
        Ok(way.pop().filter(|_| way.len() == self.missing.len()))
    }

    /// Opens the directory as Download found it; `None` if it did not exist. For the preparation: later, the directory
    /// may be one that this update has made.
    ///
    /// # Errors
    /// When the path leads to another directory now, or another program has made the directory or one above it.
    pub fn open_as_found(&self) -> Result<Option<Dir>> {
        let base = self.base.open()?;
        let Some(name) = self.missing.first() else { return Ok(Some(base)) };
        refuse_existing(&base, name)?;
        Ok(None)
    }

    /// Makes the missing directories durably, with mode 0755, and returns whether there were any. The journal has to
    /// be written before the destination is used.
    ///
    /// # Errors
    /// When a directory cannot be made, or exists now.
    pub fn make(&mut self) -> Result<bool> {
        let mut here = self.base.open()?;
        for name in &self.missing {
            refuse_existing(&here, name)?;
            let made = here.make_child(name, 0o755).context("making the destination failed")?;
            made.sync()?; // its mode
            here.sync()?; // its name
            made.require_private()?;
            self.made.push(made.identity()?);
            here = made;
        }
        Ok(!self.missing.is_empty())
    }

    /// Removes the directories that [`make`](Self::make) made, innermost first. A directory that is not empty stays.
    pub fn remove_made(&self) -> Result<()> {
        if self.missing.is_empty() {
            return Ok(());
        }
        let mut way = self.open_made(self.base.open()?)?;
        // An interrupted call may have removed directories without a sync.
        if let Some(last) = way.last().filter(|_| way.len() <= self.missing.len()) {
            last.sync()?;
        }
        while way.len() > 1 {
            way.pop();
            let (Some(parent), Some(name)) = (way.last(), self.missing.get(way.len() - 1)) else { break };
            match fs::unlinkat(&parent.fd, name.as_ref(), AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => parent.sync()?,
                Err(Errno::NOTEMPTY | Errno::EXIST) => break,
                Err(error) => {
                    return Err(error).with_context(|| failed("removing the directory", &parent.path().join(name)));
                }
            }
        }
        Ok(())
    }

    /// Opens `base`, and the directories below it that exist now and belong to this update. A power loss before the
    /// journal was written leaves them without identity, but empty.
    fn open_made(&self, base: Dir) -> Result<Vec<Dir>> {
        let mut way = vec![base];
        for (at, name) in self.missing.iter().enumerate() {
            let Some(here) = way.last() else { break };
            if here.kind(name)?.is_none() {
                break;
            }
            let below = here.child(name)?;
            match self.made.get(at) {
                Some(made) if !made.is(&below.identity()?) => {
                    bail!("{} refused: it was replaced after this update made it", below.path().display())
                }
                _ => way.push(below),
            }
        }
        Ok(way)
    }
}

/// Refuses the directory `name` in `parent`, which did not exist in Download. It stays.
fn refuse_existing(parent: &Dir, name: &FileName) -> Result<()> {
    ensure!(
        parent.kind(name)?.is_none(),
        "{} refused: it was made after the download: remove it, and install again",
        parent.path().join(name).display()
    );
    Ok(())
}

/// Refuses control characters. For example, a file from Windows has a carriage return after a path, which would make
/// another directory.
///
/// # Errors
/// The character, and the remedy.
pub fn require_plain(path: &Path) -> Result<()> {
    let bytes = path.as_os_str().as_bytes();
    if let Some(at) = bytes.iter().position(u8::is_ascii_control) {
        let shown = OsString::from_vec(bytes.to_vec());
        bail!("destination {shown:?} refused: control character {:#04x}: remove it", bytes[at]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs as std_fs;

    use super::*;

    fn again(destination: &Destination) -> Destination {
        serde_json::from_str(&serde_json::to_string(destination).unwrap()).unwrap()
    }

    #[test]
    fn missing_directories_are_made_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let mut destination = Destination::find(&root.join("a/b c/d")).unwrap();
        assert!(!destination.existed() && destination.open().unwrap().is_none());
        assert!(destination.make().unwrap());
        let destination = again(&destination);
        assert_eq!(destination.open().unwrap().unwrap().path(), root.join("a/b c/d"));
        std_fs::write(root.join("a/user file"), "").unwrap();
        destination.remove_made().unwrap();
        assert!(root.join("a").exists() && !root.join("a/b c").exists());
        std_fs::remove_file(root.join("a/user file")).unwrap();
        destination.remove_made().unwrap();
        destination.remove_made().unwrap();
        assert!(!root.join("a").exists());
    }

    #[test]
    fn directories_that_an_interrupted_call_removed_are_synced() {
        // The kernel refuses to sync a directory of this file system.
        let base = Known::unrecorded(Path::new("/proc"));
        let destination = Destination { base, missing: vec![FileName::new("absent").unwrap()], made: Vec::new() };
        let error = format!("{:#}", destination.remove_made().unwrap_err());
        assert!(error.contains("syncing the directory /proc failed"), "{error}");
    }

    #[test]
    fn a_replaced_directory_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        std_fs::create_dir(root.join("here")).unwrap();
        let mut missing = Destination::find(&root.join("here/a/b")).unwrap();
        missing.make().unwrap();
        std_fs::rename(root.join("here/a"), root.join("aside")).unwrap();
        std_fs::create_dir_all(root.join("here/a/b")).unwrap();
        assert!(missing.open().is_err() && missing.remove_made().is_err());
        let there = again(&Destination::find(&root.join("here")).unwrap());
        std_fs::rename(root.join("here"), root.join("other")).unwrap();
        std::os::unix::fs::symlink("other", root.join("here")).unwrap();
        assert!(there.open().is_err());
    }

    #[test]
    fn control_characters_are_refused() {
        for bad in ["/srv/app\r", "/srv/a\nb", "/srv/\u{1b}[2J"] {
            let error = format!("{:#}", Destination::find(Path::new(bad)).unwrap_err());
            assert!(error.contains("control character"), "{error}");
        }
    }

    #[test]
    fn an_existing_directory_is_opened_and_nothing_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let mut destination = Destination::find(&root).unwrap();
        assert!(destination.existed() && destination.path() == root);
        for opened in [destination.open(), destination.open_as_found()] {
            assert_eq!(opened.unwrap().unwrap().path(), root);
        }
        assert!(!destination.make().unwrap());
        destination.remove_made().unwrap();
        assert!(root.exists());
    }

    #[test]
    fn a_directory_that_another_program_made_after_the_download_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let mut destination = Destination::find(&root.join("a/b")).unwrap();
        assert!(destination.open_as_found().unwrap().is_none());
        std_fs::create_dir(root.join("a")).unwrap();
        for refused in [destination.open_as_found().map(drop), destination.make().map(drop)] {
            let error = format!("{:#}", refused.unwrap_err());
            assert!(error.contains("made after the download") && error.contains("install again"), "{error}");
        }
        assert!(!root.join("a/b").exists());
    }
}
