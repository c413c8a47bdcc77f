//! The directory that an update changes, as Download has found it.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{self, AtFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{Dir, Identity, Known, failed, trust};
use crate::name::FileName;

/// A directory that an update changes. Its identity is read when it is found, in Download, and compared each time it is
/// opened; where it is missing, the identity is that of the directory that it will be made in.
#[derive(Debug, Serialize, Deserialize)]
#[serde(from = "Form")]
pub struct Destination {
    base: Known,
    /// The directories that are missing below `base`, outermost first: the last is the destination.
    missing: Vec<FileName>,
    /// Those of `missing` that this update has made.
    made: Vec<Identity>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Form {
    /// A journal of version 0.1.0.
    Path(Known),
    Whole {
        base: Known,
        missing: Vec<FileName>,
        made: Vec<Identity>,
    },
}

impl From<Form> for Destination {
    fn from(form: Form) -> Self {
        match form {
            Form::Path(base) => Self { base, missing: Vec::new(), made: Vec::new() },
            Form::Whole { base, missing, made } => Self { base, missing, made },
        }
    }
}

impl Destination {
    /// A directory in a journal of version 0.1.0.
    pub fn unrecorded(path: &Path) -> Self {
        Self { base: Known::unrecorded(path), missing: Vec::new(), made: Vec::new() }
    }

    /// The directory that the absolute `path` leads to, or would.
    ///
    /// # Errors
    /// For a path with control characters, a symlink on it that somebody other than root may have made, and one that leads to
    /// something else than a directory.
    pub fn find(path: &Path) -> Result<Self> {
        require_plain(path)?;
        let resolved = trust::follow(path)?;
        let base = Dir::open_exact(&resolved.existing).with_context(|| {
            format!("{} is not a directory: name another, or move it away", resolved.existing.display())
        })?;
        let missing = resolved.missing.into_iter().map(FileName::new).collect::<Result<Vec<_>>>()?;
        for name in &missing {
            ensure!(
                name.as_ref().as_os_str().len() <= NAME_MAX,
                "the name {name} is longer than {NAME_MAX} bytes"
            );
        }
        Ok(Self { base: Known::new(&base)?, missing, made: Vec::new() })
    }

    /// Where it is, without symlinks.
    pub fn path(&self) -> PathBuf {
        self.missing.iter().fold(self.base.path().to_owned(), |path, name| path.join(name))
    }

    /// Whether it was there when it was found.
    pub fn existed(&self) -> bool {
        self.missing.is_empty()
    }

    /// The nearest directory that was there when it was found: itself, or one above it.
    pub fn base(&self) -> &Known {
        &self.base
    }

    /// Opens it; `None` where it was missing and this update has not made it.
    ///
    /// # Errors
    /// When another directory has its name by now, or that of one above it.
    pub fn open(&self) -> Result<Option<Dir>> {
        let base = self.base.open()?;
        if self.missing.is_empty() {
            return Ok(Some(base));
        }
        let mut way = self.open_made(base)?;
        Ok(way.pop().filter(|_| way.len() == self.missing.len()))
    }

    /// Makes what is missing, 0755 and durably; whether that was anything. It has to be in the journal before the destination
    /// is used.
    ///
    /// # Errors
    /// When a directory cannot be made, or somebody has made it since it was found missing.
    pub fn make(&mut self) -> Result<bool> {
        let mut here = self.base.open()?;
        for name in &self.missing {
            ensure!(
                here.kind(name)?.is_none(),
                "{}: somebody has made it since the download: remove it, and install again",
                here.path().join(name).display()
            );
            let made = here.make_child(name, 0o755).context("making the destination")?;
            made.sync()?; // its mode
            here.sync()?; // its name
            made.require_private()?;
            self.made.push(made.identity()?);
            here = made;
        }
        Ok(!self.missing.is_empty())
    }

    /// Removes what [`make`](Self::make) has made, innermost first; a directory that somebody has put something into stays.
    ///
    /// # Errors
    /// The directory whose removal failed.
    pub fn remove_made(&self) -> Result<()> {
        if self.missing.is_empty() {
            return Ok(());
        }
        let mut way = self.open_made(self.base.open()?)?;
        while way.len() > 1 {
            way.pop();
            let (Some(parent), Some(name)) = (way.last(), self.missing.get(way.len() - 1)) else { break };
            match fs::unlinkat(&parent.fd, name.as_ref(), AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => parent.sync()?,
                Err(Errno::NOTEMPTY | Errno::EXIST) => break,
                Err(error) => {
                    return Err(error)
                        .with_context(|| failed("removing the directory", &parent.path().join(name)));
                }
            }
        }
        Ok(())
    }

    /// `base`, and those of the missing directories below it that are there by now, as far as they are this update's. A power
    /// loss between the making and the journal leaves them without identity; empty then, and so removable.
    fn open_made(&self, base: Dir) -> Result<Vec<Dir>> {
        let mut way = vec![base];
        for (at, name) in self.missing.iter().enumerate() {
            let Some(here) = way.last().filter(|here| matches!(here.kind(name), Ok(Some(_)))) else { break };
            let below = here.child(name)?;
            match self.made.get(at) {
                Some(made) if !made.is(&below.identity()?) => bail!(
                    "{} refused: this update made a directory of this name, and somebody has replaced it",
                    below.path().display()
                ),
                _ => way.push(below),
            }
        }
        Ok(way)
    }
}

/// The longest name that Linux's file systems take, in bytes.
pub(super) const NAME_MAX: usize = 255;

/// Refuses control characters: a carriage return at the end, from a file that was written on Windows, makes another
/// directory.
fn require_plain(path: &Path) -> Result<()> {
    let bytes = path.as_os_str().as_bytes();
    if let Some(at) = bytes.iter().position(u8::is_ascii_control) {
        let shown = OsString::from_vec(bytes.to_vec());
        bail!("the destination {shown:?} has the control character {:#04x} in it: remove that", bytes[at]);
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
    fn what_is_missing_is_made_and_removed_again() {
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
    fn what_has_taken_its_place_is_refused() {
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
}
