//! An update's own directory on the file system of its destination.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{self, AtFlags};
use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};

use super::destination::NAME_MAX;
use super::removal::{mount, remove_tree_in};
use super::{Destination, Dir, Identity, Kind, Known, failed};
use crate::name::FileName;

/// Random bytes in a staging directory's name where the plain one is taken.
const RANDOM: usize = 6;

/// The directory in which an update is staged and its previous version kept: closed to everybody else, and on the mount of
/// its destination, or a rename into that is impossible.
#[derive(Debug, Serialize, Deserialize)]
#[serde(try_from = "Form")]
pub struct Staging {
    parent: Known,
    name: FileName,
    /// Whether `parent` is the destination itself, whose times then are kept.
    inside: bool,
    made: Made,
}

/// Which directories have been made.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Made {
    /// None that the journal knew of: what has the name is empty, or somebody else's.
    No,
    /// The staging directory, and directories in it by their names.
    Yes { itself: Identity, children: Vec<(FileName, Identity)> },
    /// A journal of version 0.1.0 does not say.
    Unknown,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Form {
    Path(PathBuf),
    Whole { parent: Known, name: FileName, inside: bool, made: Made },
}

impl TryFrom<Form> for Staging {
    type Error = anyhow::Error;

    fn try_from(form: Form) -> Result<Self> {
        match form {
            Form::Whole { parent, name, inside, made } => Ok(Self { parent, name, inside, made }),
            Form::Path(path) => {
                let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                    bail!("{} cannot be a staging directory", path.display());
                };
                let (parent, name) = (Known::unrecorded(parent), FileName::new(name)?);
                Ok(Self { parent, name, inside: false, made: Made::Unknown })
            }
        }
    }
}

impl Staging {
    /// A staging directory of the module `purpose` for `destination`: `.<name>.<purpose>` beside it, or in it where it is a
    /// mount point, or in the first directory above it that exists. Where somebody has taken that name it gets random
    /// characters at its end. Nothing is made.
    ///
    /// # Errors
    /// For the root of the system, and when a directory cannot be read.
    pub fn beside(destination: &Destination, purpose: &str) -> Result<Self> {
        let path = destination.path();
        let (Some(name), Some(above)) = (path.file_name(), path.parent()) else {
            bail!("{} cannot be a destination", path.display());
        };
        let base = destination.base().open()?;
        let (parent, inside) = if destination.existed() {
            let above = Dir::open_exact(above)?;
            if mount(&base)? == mount(&above)? { (above, false) } else { (base, true) }
        } else {
            (base, false)
        };
        let name = free_name(&parent, name.as_bytes(), purpose)?;
        Ok(Self { parent: Known::new(&parent)?, name, inside, made: Made::No })
    }

    /// Where it is, or will be.
    pub fn path(&self) -> PathBuf {
        self.parent.path().join(&self.name)
    }

    /// The directory that it is in, or will be.
    ///
    /// # Errors
    /// When another directory has its name by now.
    pub fn parent(&self) -> Result<Dir> {
        self.parent.open()
    }

    /// Makes it, with the directories `children` in it, all of them empty and closed to everybody else. The library writes
    /// the journal after [`Update::make_staging`](crate::Update::make_staging): call it only there.
    ///
    /// # Errors
    /// When one cannot be made.
    pub fn create(&mut self, children: &[&str]) -> Result<()> {
        let parent = self.parent.open()?;
        self.made = self.unnoticed(&parent, || {
            let directory = self.make_in(&parent)?;
            let make = |name: &&str| {
                let name = FileName::new(*name)?;
                let child = directory.make_child(&name, 0o700)?;
                Ok((name, child.identity()?))
            };
            let children = children.iter().map(make).collect::<Result<Vec<_>>>()?;
            Ok(Made::Yes { itself: directory.identity()?, children })
        })?;
        Ok(())
    }

    fn make_in(&self, parent: &Dir) -> Result<Dir> {
        let directory = parent.make_child(&self.name, 0o700).context("making the staging directory")?;
        directory.require_private()?;
        // Somebody who may write to the parent may have put another one into its place meanwhile.
        directory.each_name(|name| bail!("{}: {name} is in there already", directory.path().display()))?;
        Ok(directory)
    }

    /// Opens it.
    ///
    /// # Errors
    /// When it is missing, another directory has its name, or others may write to it.
    pub fn open(&self) -> Result<Dir> {
        self.require(self.parent.open()?.child(&self.name)?)
    }

    /// Opens the directory `name` in it.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn child(&self, name: &FileName) -> Result<Dir> {
        self.renamed_child(name, name)
    }

    /// Opens the directory that was made as `made` in it, and is called `name` now.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn renamed_child(&self, made: &FileName, name: &FileName) -> Result<Dir> {
        let child = self.open()?.child(name)?;
        if let Some(identity) = self.identity_of(made) {
            ensure!(
                identity.is(&child.identity()?),
                "{} refused: another directory has its name since the download: somebody has replaced it",
                child.path().display()
            );
        }
        Ok(child)
    }

    /// The identity that the directory `name` in it got when it was made.
    pub fn identity_of(&self, name: &FileName) -> Option<&Identity> {
        let Made::Yes { children, .. } = &self.made else { return None };
        children.iter().find(|(child, _)| child == name).map(|(_, identity)| identity)
    }

    /// Removes it with all that is in it, if it is there.
    ///
    /// # Errors
    /// What cannot be removed, and the remedy; and when another directory has its name.
    pub fn remove(&self) -> Result<()> {
        if !super::exists(self.parent.path())? {
            return Ok(());
        }
        let parent = self.parent.open()?;
        if parent.kind(&self.name)?.is_none() {
            return Ok(());
        }
        self.unnoticed(&parent, || {
            if matches!(self.made, Made::No) {
                return remove_unused(&parent, &self.name);
            }
            remove_tree_in(&parent, &self.name, &self.require(parent.child(&self.name)?)?)
        })
    }

    /// Refuses `directory` if it is not this one.
    fn require(&self, directory: Dir) -> Result<Dir> {
        directory.require_private()?;
        match &self.made {
            Made::Yes { itself, .. } => ensure!(
                itself.is(&directory.identity()?),
                "the staging directory {} refused: another one has its name since the download: somebody has replaced it",
                directory.path().display()
            ),
            Made::No => bail!("the staging directory {} is not this update's", directory.path().display()),
            Made::Unknown => {}
        }
        Ok(directory)
    }

    /// Runs `work`, which makes or removes the directory; a destination that it is in keeps its times.
    fn unnoticed<T>(&self, parent: &Dir, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if !self.inside {
            return work();
        }
        let times = parent.times()?;
        let done = work()?;
        parent.set_times(times)?;
        Ok(done)
    }
}

/// Removes the directory `name` in `parent` if it is one that was made and not in the journal yet, when power was lost: ours,
/// with nothing but empty directories in it. Anything else is left as it is.
fn remove_unused(parent: &Dir, name: &FileName) -> Result<()> {
    if parent.kind(name)? != Some(Kind::Directory) {
        return Ok(());
    }
    let directory = parent.child(name)?;
    let children = directory.names()?;
    let is_empty = |child: &FileName| -> Result<bool> {
        Ok(directory.kind(child)? == Some(Kind::Directory) && directory.child(child)?.names()?.is_empty())
    };
    for child in &children {
        if !is_empty(child)? {
            return Ok(());
        }
    }
    if directory.require_private().is_ok() {
        for child in &children {
            let _ = fs::unlinkat(&directory.fd, child.as_ref(), AtFlags::REMOVEDIR);
        }
        let _ = fs::unlinkat(&parent.fd, name.as_ref(), AtFlags::REMOVEDIR);
    }
    Ok(())
}

/// A name in `parent` that is free: the plain one, unless somebody has taken it.
fn free_name(parent: &Dir, destination: &[u8], purpose: &str) -> Result<FileName> {
    let name = |end: &str| {
        let end = format!(".{purpose}{end}");
        let room = NAME_MAX - 1 - end.len();
        let kept = &destination[..destination.len().min(room)];
        FileName::new(OsString::from_vec([b".", kept, end.as_bytes()].concat()))
    };
    let plain = name("")?;
    if parent.kind(&plain)?.is_none() {
        return Ok(plain);
    }
    let mut random = [0_u8; RANDOM];
    getrandom(&mut random, GetRandomFlags::empty())
        .with_context(|| failed("asking for a random name in", parent.path()))?;
    name(&random.iter().map(|byte| format!("{byte:02x}")).fold("-".to_owned(), |name, byte| name + &byte))
}

#[cfg(test)]
mod tests {
    use std::fs as std_fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    fn staging(destination: &Path) -> Staging {
        Staging::beside(&Destination::find(destination).unwrap(), "m").unwrap()
    }

    fn again(staging: &Staging) -> Staging {
        serde_json::from_str(&serde_json::to_string(staging).unwrap()).unwrap()
    }

    #[test]
    fn it_is_beside_the_destination_or_below_what_exists() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().canonicalize().unwrap();
        std_fs::create_dir(real.join("www")).unwrap();
        assert_eq!(staging(&real.join("www")).path(), real.join(".www.m"));
        assert_eq!(staging(&real.join("x/y/www")).path(), real.join(".www.m"));
        assert!(Staging::beside(&Destination::find(Path::new("/")).unwrap(), "m").is_err());
        assert_eq!(staging(Path::new("/proc")).path(), Path::new("/proc/.proc.m"), "a mount point");
        let long = real.join("n".repeat(NAME_MAX));
        let mut of_long = staging(&long);
        of_long.create(&[]).unwrap();
        of_long.remove().unwrap();
    }

    #[test]
    fn a_name_that_somebody_has_taken_is_left_to_them() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().canonicalize().unwrap();
        let planted = real.join(".www.m");
        type Plant = fn(&Path);
        let plants: [Plant; 3] = [
            |path| std_fs::write(path, "").unwrap(),
            |path| symlink("/", path).unwrap(),
            |path| {
                std_fs::create_dir(path).unwrap();
                std_fs::write(path.join("theirs"), "").unwrap();
            },
        ];
        for plant in plants {
            plant(&planted);
            let mut staging = staging(&real.join("www"));
            staging.create(&["new"]).unwrap();
            assert_ne!(staging.path(), planted);
            let staging = again(&staging);
            staging.child(&FileName::new("new").unwrap()).unwrap();
            staging.remove().unwrap();
            assert!(std_fs::symlink_metadata(&planted).is_ok());
            let _ = std_fs::remove_file(&planted);
        }
    }

    #[test]
    fn what_has_taken_its_place_is_refused_and_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().canonicalize().unwrap();
        let (path, new) = (real.join(".www.m"), FileName::new("new").unwrap());
        let mut made = staging(&real.join("www"));
        made.create(&["new"]).unwrap();
        let made = again(&made);
        let of_0_1_0: Staging = serde_json::from_value(serde_json::json!(path)).unwrap();
        of_0_1_0.open().unwrap();
        std_fs::rename(&path, real.join("aside")).unwrap();
        std_fs::create_dir_all(path.join("new")).unwrap();
        std_fs::write(path.join("new/theirs"), "").unwrap();
        for error in [made.open().map(drop), made.child(&new).map(drop), made.remove()] {
            let error = format!("{:#}", error.unwrap_err());
            assert!(error.contains("not trusted") || error.contains("replaced"), "{error}");
        }
        assert!(path.join("new/theirs").exists());
        std_fs::rename(&path, real.join("theirs")).unwrap();
        symlink("aside", &path).unwrap();
        assert!(made.open().is_err() && made.remove().is_err());
        std_fs::remove_file(&path).unwrap();
        made.remove().unwrap();
        std_fs::rename(real.join("aside"), &path).unwrap();
        std_fs::rename(path.join("new"), path.join("other")).unwrap();
        std_fs::create_dir(path.join("new")).unwrap();
        assert!(made.child(&new).is_err(), "the directory in it was replaced");
        made.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn one_that_the_journal_does_not_know_is_removed_only_if_it_is_empty() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().canonicalize().unwrap();
        let before = again(&staging(&real.join("www")));
        let mut made = staging(&real.join("www"));
        made.create(&[]).unwrap();
        std_fs::write(made.path().join("file"), "").unwrap();
        before.remove().unwrap();
        assert!(made.path().exists());
        std_fs::remove_file(made.path().join("file")).unwrap();
        before.remove().unwrap();
        assert!(!made.path().exists());
    }

    #[test]
    fn choosing_a_name_touches_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().canonicalize().unwrap();
        let mut other = staging(&real.join("www"));
        other.create(&["new", "old"]).unwrap();
        assert_ne!(staging(&real.join("www")).path(), other.path());
        other.child(&FileName::new("old").unwrap()).unwrap();
        std_fs::write(other.path().join("old/kept"), "").unwrap();
        let unmade = Staging { made: Made::No, ..other };
        unmade.remove().unwrap();
        assert!(real.join(".www.m/new").exists(), "the empty one of two was removed");
    }
}
