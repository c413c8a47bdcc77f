//! The only place that creates, links, renames, removes and fsyncs: modules say what, this says how.
//!
//! Names from an artifact are [`FileName`]s, and everything here works on one name in an open directory ([`Dir`]):
//! no `..`, no absolute path and no symlink leads out of it.
//!
//! A name operation is atomic, but durable only once its directory has been synced ([`Dir::sync`]); content is
//! there once the file or its whole file system has been ([`Dir::sync_filesystem`]).

mod attributes;
mod destination;
mod dir;
mod dir_state;
mod exchange;
mod identity;
mod kind;
mod place;
mod removal;
mod staging;
mod trust;

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::fs::{Mode, OFlags};

pub use attributes::{Attributes, Times};
pub use destination::Destination;
pub use dir::Dir;
pub use exchange::{DirectoryExchange, ExchangeNames};
pub use identity::{Identity, Known};
pub use kind::{Kind, Node};
pub use place::{absent_parents, mounts_at_or_below, resolve};
pub use removal::remove_tree;
pub use staging::Staging;
pub use trust::require_trusted;

use crate::name::FileName;

/// Replaces the file at `path` by one with `content`, or makes it; after a power loss it is the old or the new, whole.
/// Missing parents are made.
///
/// # Errors
/// The step that failed and its file; the old file is still there then.
pub fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    let (directory, name) = split(path)?;
    make_dirs(directory)?.write_file(&name, content)
}

/// As [`write_file`], for a file that is there already and keeps its owner, permissions and extended attributes.
///
/// # Errors
/// As there, and when there is no such file.
pub fn rewrite_file(path: &Path, content: &[u8]) -> Result<()> {
    let (directory, name) = split(path)?;
    let before = File::open(path).and_then(Attributes::of).with_context(|| failed("looking at", path))?;
    replace(&Dir::open(directory)?, &name, BESIDE_OTHERS, |partial| {
        partial.write_all(content)?;
        let modified = Attributes::of(&*partial)?.modified;
        Attributes { modified, ..before }.set_on(partial)
    })
}

/// Makes `to` a copy of the regular file or symlink `from`, with its owner, permissions, modification time and extended
/// attributes. What was there is replaced; after a power loss it is the old or the new, whole.
///
/// # Errors
/// When `from` is neither, cannot be read, or `to` cannot be written; what was there is still there then.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let ((directory, name), looking) = (split(to)?, || failed("looking at", from));
    let directory = make_dirs(directory)?;
    let meta = fs::symlink_metadata(from).with_context(looking)?;
    if meta.is_symlink() {
        return copy_symlink(from, &meta, &directory, &name);
    }
    ensure!(meta.is_file(), "{} is neither a regular file nor a symlink", from.display());
    let mut source = File::open(from).with_context(|| failed("opening", from))?;
    let attributes = Attributes::of(&source).with_context(looking)?;
    replace(&directory, &name, BESIDE_OTHERS, |partial| {
        io::copy(&mut source, partial)?;
        attributes.set_on(partial)
    })
}

/// What the regular file `path` is beside its content; a symlink of that name is not followed.
///
/// # Errors
/// When it is none, or may not be opened.
pub fn attributes(path: &Path) -> Result<Attributes> {
    let file = open_itself(path)?;
    Attributes::of(&file).with_context(|| failed("reading owner, mode and attributes of", path))
}

/// Gives the regular file `path` `attributes`; a symlink of that name is not followed.
///
/// # Errors
/// When this process may not, or the file system cannot hold them.
pub fn set_attributes(path: &Path, attributes: &Attributes) -> Result<()> {
    let file = open_itself(path)?;
    attributes.set_on(&file).with_context(|| failed("giving its owner, mode and attributes to", path))
}

fn open_itself(path: &Path) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty()).with_context(|| failed("opening", path))?;
    Ok(File::from(fd))
}

/// Whether `copy` is what [`copy`] of `path` would make.
///
/// # Errors
/// When one of them cannot be read; one that is missing is just different.
pub fn is_copy(copy: &Path, path: &Path) -> Result<bool> {
    let looking = || failed(&format!("comparing {} with", copy.display()), path);
    let (Some(one), Some(other)) = (look_at(copy)?, look_at(path)?) else {
        return Ok(false);
    };
    let same = if one.is_symlink() && other.is_symlink() {
        fs::read_link(copy).with_context(looking)? == fs::read_link(path).with_context(looking)?
            && Attributes::of_symlink(&one) == Attributes::of_symlink(&other)
    } else if one.is_file() && other.is_file() && one.len() == other.len() {
        let attributes = |path| File::open(path).and_then(Attributes::of).with_context(looking);
        attributes(copy)? == attributes(path)?
            && fs::read(copy).with_context(looking)? == fs::read(path).with_context(looking)?
    } else {
        false
    };
    Ok(same)
}

fn copy_symlink(from: &Path, meta: &Metadata, directory: &Dir, name: &FileName) -> Result<()> {
    let target = fs::read_link(from).with_context(|| failed("reading the symlink", from))?;
    let partial = partial_name(name, BESIDE_OTHERS)?;
    directory.remove(&partial)?;
    directory.symlink(&partial, &target)?;
    directory.set_attributes_of_name(&partial, &Attributes::of_symlink(meta))?;
    directory.rename(&partial, directory, name)?;
    directory.sync()
}

/// The name of an incomplete file among files of others.
const BESIDE_OTHERS: &str = ".mender-new";

fn partial_name(name: &FileName, suffix: &str) -> Result<FileName> {
    let mut partial = name.as_ref().as_os_str().to_owned();
    partial.push(suffix);
    FileName::new(partial)
}

/// Makes `name` in `directory` the file that `fill` writes, durably, under another name until it is whole.
fn replace(
    directory: &Dir,
    name: &FileName,
    suffix: &str,
    fill: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<()> {
    let partial_name = partial_name(name, suffix)?;
    directory.remove(&partial_name)?;
    let mut partial = directory.create_file(&partial_name)?;
    let replaced = fill(&mut partial)
        .and_then(|()| partial.sync_all())
        .with_context(|| failed("writing", &directory.path().join(&partial_name)))
        .and_then(|()| directory.rename(&partial_name, directory, name));
    if replaced.is_err() {
        // On a full file system its space is needed.
        let _ = directory.remove(&partial_name);
    }
    replaced?;
    directory.sync()
}

/// What `path` itself is, a symlink not followed; `None` where nothing has that name. That the medium does not answer is no
/// reason to take the old for gone.
///
/// # Errors
/// When it cannot be looked at.
pub fn look_at(path: &Path) -> Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found)),
        // The second: something above it is no directory.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| failed("looking at", path)),
    }
}

/// Whether anything has the name `path`, be it a symlink that leads nowhere.
///
/// # Errors
/// As those of [`look_at`].
pub fn exists(path: &Path) -> Result<bool> {
    Ok(look_at(path)?.is_some())
}

/// Removes the file at `path`; one that is not there is fine.
///
/// # Errors
/// The step that failed and its file.
pub fn remove_file(path: &Path) -> Result<()> {
    let (directory, name) = split(path)?;
    if !exists(directory)? {
        return Ok(());
    }
    let directory = Dir::open(directory)?;
    directory.remove(&name)?;
    directory.sync()
}

/// Opens the directory `path`, making it and its parents where they are missing: 0755, and durable on return.
///
/// # Errors
/// The directory that cannot be made or opened.
pub fn make_dirs(path: &Path) -> Result<Dir> {
    for absent in absent_parents(path)? {
        Dir::make(&absent, 0o755)?;
        if let Some(parent) = absent.parent() {
            Dir::open(parent)?.sync()?;
        }
    }
    Dir::open(path)
}

/// Removes the directory `path` if it is empty; one that is not there, or that somebody has put something into, is left.
///
/// # Errors
/// The directory whose removal failed.
pub fn remove_empty_dir(path: &Path) -> Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        done => absent_is_fine(done).with_context(|| failed("removing the empty directory", path)),
    }
}

fn absent_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

impl Dir {
    /// As [`write_file`], of `name` in this directory.
    ///
    /// # Errors
    /// As there.
    pub fn write_file(&self, name: &FileName, content: &[u8]) -> Result<()> {
        replace(self, name, ".new", |partial| partial.write_all(content))
    }
}

fn split(path: &Path) -> Result<(&Path, FileName)> {
    let name = path.file_name().with_context(|| format!("{} has no file name", path.display()))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((directory, FileName::new(name)?))
}

fn failed(operation: &str, path: &Path) -> String {
    format!("{operation} {}", path.display())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_a_half_written_one_does_not_matter() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("missing/parents/journal.json");
        write_file(&path, b"one").unwrap();
        fs::write(directory.path().join("missing/parents/journal.json.new"), "half").unwrap();
        write_file(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        remove_file(&path).unwrap();
        remove_file(&path).unwrap();
        remove_file(Path::new("/no/such/directory/file")).unwrap();
    }

    #[test]
    fn a_copy_has_everything_but_the_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("old"), "content").unwrap();
        fs::set_permissions(path("old"), fs::Permissions::from_mode(0o604)).unwrap();
        let then = UNIX_EPOCH + Duration::new(1_234_567_890, 987_654_321);
        File::open(path("old")).unwrap().set_modified(then).unwrap();
        symlink("nowhere", path("link")).unwrap();
        fs::write(path("copy"), "what was there").unwrap();
        for (from, to) in [("old", "copy"), ("link", "second"), ("link", "second")] {
            copy(&path(from), &path(to)).unwrap();
        }
        let meta = fs::metadata(path("copy")).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.modified().unwrap()), (0o604, then));
        assert_eq!(fs::read(path("copy")).unwrap(), b"content");
        assert_eq!(fs::read_link(path("second")).unwrap(), Path::new("nowhere"));
        assert!(
            is_copy(&path("copy"), &path("old")).unwrap() && is_copy(&path("second"), &path("link")).unwrap()
        );
        for other in ["link", "missing"] {
            assert!(!is_copy(&path("copy"), &path(other)).unwrap(), "{other}");
        }
        rewrite_file(&path("copy"), b"more").unwrap();
        assert!(!is_copy(&path("copy"), &path("old")).unwrap());
        assert_eq!(fs::metadata(path("copy")).unwrap().mode() & 0o7777, 0o604);
        assert_eq!(fs::read(path("copy")).unwrap(), b"more");
        set_attributes(&path("copy"), &attributes(&path("old")).unwrap()).unwrap();
        assert_eq!(fs::metadata(path("copy")).unwrap().modified().unwrap(), then);
        assert!(attributes(&path("second")).is_err(), "a symlink");
        assert!(copy(directory.path(), &path("directory")).is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 4);
    }

    #[test]
    fn what_cannot_be_looked_at_is_not_taken_for_absent() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("file"), "").unwrap();
        symlink("loop", path("loop")).unwrap();
        for (name, there) in [("file", true), ("loop", true), ("missing", false), ("file/x", false)] {
            assert_eq!(exists(&path(name)).unwrap(), there, "{name}");
        }
        let error = format!("{:#}", exists(&path("loop/x")).unwrap_err());
        assert!(error.contains(path("loop/x").to_str().unwrap()), "{error}");
    }

    #[test]
    fn only_an_empty_directory_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("user file"), "").unwrap();
        remove_empty_dir(&path).unwrap();
        assert!(path.exists());
        fs::remove_file(path.join("user file")).unwrap();
        remove_empty_dir(&path).unwrap();
        remove_empty_dir(&path).unwrap();
        assert!(!path.exists());
    }
}
