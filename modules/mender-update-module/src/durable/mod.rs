//! Durable changes of the file system. Modules create, link, rename, remove and sync files only with these functions.
//!
//! Names from an artifact are [`FileName`]s, and operations work on one name in an open directory ([`Dir`]): no `..`,
//! no absolute path and no symlink leads out of it.
//!
//! An operation on a name is atomic, and durable after [`Dir::sync`] of its directory. Content is durable after a
//! sync of the file, or of the whole file system ([`Dir::sync_filesystem`]).

mod attributes;
mod destination;
mod dir;
mod dir_state;
mod exchange;
mod identity;
mod kind;
mod path;
mod removal;
mod space_checked;
mod staging;
mod trust;
mod writeback;

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::fs::Mode;

pub use attributes::{Attributes, Times};
pub use destination::{Destination, require_plain};
pub use dir::Dir;
pub use exchange::{DirectoryExchange, ExchangeNames};
pub use identity::{Identity, Known};
pub use kind::{Kind, Node};
pub use path::{NAME_MAX, PATH_MAX, absent_parents, mounts_at_or_below, resolve};
pub use removal::remove_tree;
pub use space_checked::SpaceChecked;
pub use staging::Staging;
pub use trust::require_trusted;
pub use writeback::Writeback;

use crate::name::FileName;

/// Writes `content` to the file `path`, atomically and durably: after a power loss it has the previous or the new
/// content. Makes missing parent directories.
///
/// ```
/// use mender_update_module::durable;
///
/// # let directory = tempfile::tempdir()?;
/// let path = directory.path().join("state/version");
/// durable::write_file(&path, b"2")?;
/// assert_eq!(std::fs::read(&path)?, b"2");
/// # anyhow::Ok(())
/// ```
///
/// # Errors
/// When a step fails. The file then has its previous content; or the new content, which a power loss may take away, if
/// only the last sync failed.
pub fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    let (directory, name) = parent_and_name(path)?;
    make_dirs(directory)?.write_file(&name, content)
}

/// As [`write_file`], for an existing file, whose owner, permissions and extended attributes stay.
///
/// # Errors
/// As [`write_file`], and when the file does not exist.
pub fn rewrite_file(path: &Path, content: &[u8]) -> Result<()> {
    let (directory, name) = parent_and_name(path)?;
    let before = File::open(path).and_then(Attributes::of).with_context(|| failed("reading", path))?;
    replace(&Dir::open(directory)?, &name, BESIDE_OTHERS, |partial| {
        partial.write_all(content)?;
        let modified = Attributes::of(&*partial)?.modified;
        Attributes { modified, ..before }.set_on(partial)
    })
}

/// Copies the regular file or symlink `from` to `to`, with owner, permissions, modification time and extended
/// attributes, atomically and durably.
///
/// # Errors
/// When `from` is neither, or a step fails. `to` then does not change; or it is the copy, which a power loss may take
/// away, if only the last sync failed.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let ((directory, name), reading) = (parent_and_name(to)?, || failed("reading", from));
    let directory = make_dirs(directory)?;
    let meta = fs::symlink_metadata(from).with_context(reading)?;
    if meta.is_symlink() {
        return copy_symlink(from, &meta, &directory, &name);
    }
    ensure!(meta.is_file(), "copying {} failed: neither a regular file nor a symlink", from.display());
    let mut source = File::open(from).with_context(|| failed("opening", from))?;
    let attributes = Attributes::of(&source).with_context(reading)?;
    replace(&directory, &name, BESIDE_OTHERS, |partial| {
        io::copy(&mut source, partial)?;
        attributes.set_on(partial)
    })
}

/// The attributes of the regular file `path`. A symlink is not followed.
///
/// # Errors
/// When it is a symlink, or cannot be opened.
pub fn attributes(path: &Path) -> Result<Attributes> {
    let file = open_itself(path)?;
    Attributes::of(&file).with_context(|| failed("reading the attributes of", path))
}

/// Sets the attributes of the regular file `path`. A symlink is not followed.
///
/// # Errors
/// When the process has no permission, or the file system does not support an attribute.
pub fn set_attributes(path: &Path, attributes: &Attributes) -> Result<()> {
    let file = open_itself(path)?;
    attributes.set_on(&file).with_context(|| failed("setting the attributes of", path))
}

fn open_itself(path: &Path) -> Result<File> {
    let fd = rustix::fs::open(path, dir::NO_SYMLINK, Mode::empty()).with_context(|| failed("opening", path))?;
    Ok(File::from(fd))
}

/// Whether `copy` equals the result of [`copy`] of `path`. If one of them does not exist, they differ.
pub fn is_copy(copy: &Path, path: &Path) -> Result<bool> {
    let reading = || failed(&format!("comparing {} with", copy.display()), path);
    let (Some(one), Some(other)) = (metadata(copy)?, metadata(path)?) else {
        return Ok(false);
    };
    let same = if one.is_symlink() && other.is_symlink() {
        fs::read_link(copy).with_context(reading)? == fs::read_link(path).with_context(reading)?
            && Attributes::of_symlink(&one) == Attributes::of_symlink(&other)
    } else if one.is_file() && other.is_file() && one.len() == other.len() {
        let attributes = |path| File::open(path).and_then(Attributes::of).with_context(reading);
        attributes(copy)? == attributes(path)?
            && fs::read(copy).with_context(reading)? == fs::read(path).with_context(reading)?
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

/// The suffix of an incomplete file in a directory of other programs.
const BESIDE_OTHERS: &str = ".mender-new";

fn partial_name(name: &FileName, suffix: &str) -> Result<FileName> {
    let mut partial = name.as_ref().as_os_str().to_owned();
    partial.push(suffix);
    FileName::new(partial)
}

/// Replaces `name` in `directory` with the file that `fill` writes. Until it is complete, it has another name.
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
        // Free the space on a full file system.
        let _ = directory.remove(&partial_name);
    }
    replaced?;
    directory.sync()
}

/// The metadata of `path`, without following a symlink; `None` if it does not exist.
///
/// # Errors
/// When the metadata cannot be read: a failing storage must not look like a missing file.
pub fn metadata(path: &Path) -> Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found)),
        // NotADirectory: a component of the path is not a directory.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error).with_context(|| failed("reading", path)),
    }
}

/// Whether `path` exists. A dangling symlink exists.
pub fn exists(path: &Path) -> Result<bool> {
    Ok(metadata(path)?.is_some())
}

/// Removes the file `path`, durably. A file that does not exist is not an error.
pub fn remove_file(path: &Path) -> Result<()> {
    let (directory, name) = parent_and_name(path)?;
    if !exists(directory)? {
        return Ok(());
    }
    let directory = Dir::open(directory)?;
    directory.remove(&name)?;
    directory.sync()
}

/// Opens the directory `path`, after making it and its parents durably, with mode 0755, if they do not exist.
pub fn make_dirs(path: &Path) -> Result<Dir> {
    for absent in absent_parents(path)? {
        Dir::make(&absent, 0o755)?;
        if let Some(parent) = absent.parent() {
            Dir::open(parent)?.sync()?;
        }
    }
    Dir::open(path)
}

/// Removes the directory `path` if it exists and is empty.
pub fn remove_empty_dir(path: &Path) -> Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        done => ignore_not_found(done).with_context(|| failed("removing the empty directory", path)),
    }
}

fn ignore_not_found(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

impl Dir {
    /// As [`write_file`], for `name` in this directory.
    pub fn write_file(&self, name: &FileName, content: &[u8]) -> Result<()> {
        replace(self, name, ".new", |partial| partial.write_all(content))
    }
}

/// The directory of `path`, and the name in it. The directory of a name alone is `.`.
///
/// # Errors
/// For the root directory, and a path that ends in `..`.
pub fn parent_and_name(path: &Path) -> Result<(&Path, FileName)> {
    let name = path.file_name().with_context(|| format!("invalid path {}: it ends in no name", path.display()))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((directory, FileName::new(name)?))
}

fn failed(operation: &str, path: &Path) -> String {
    format!("{operation} {} failed", path.display())
}

#[cfg(test)]
mod mounted;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::time::{Duration, UNIX_EPOCH};

    use rustix::fs::XattrFlags;

    use super::*;

    #[test]
    fn a_file_is_replaced_atomically_and_a_partial_one_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("missing/parents/journal.json");
        write_file(&path, b"one").unwrap();
        fs::write(directory.path().join("missing/parents/journal.json.new"), "half").unwrap();
        write_file(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        for _ in 0..2 {
            remove_file(&path).unwrap();
            assert!(!path.exists());
        }
        remove_file(Path::new("/no/such/directory/file")).unwrap();
    }

    #[test]
    fn a_copy_has_content_and_attributes() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("file"), "content").unwrap();
        fs::set_permissions(path("file"), fs::Permissions::from_mode(0o604)).unwrap();
        let then = UNIX_EPOCH + Duration::new(1_234_567_890, 987_654_321);
        File::open(path("file")).unwrap().set_modified(then).unwrap();
        rustix::fs::setxattr(path("file"), "user.origin", b"factory", XattrFlags::CREATE).unwrap();
        symlink("nowhere", path("link")).unwrap();
        fs::write(path("copy"), "what was there").unwrap();
        for (from, to) in [("file", "copy"), ("link", "second"), ("link", "second")] {
            copy(&path(from), &path(to)).unwrap();
        }
        let meta = fs::metadata(path("copy")).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.modified().unwrap()), (0o604, then));
        assert_eq!(fs::read(path("copy")).unwrap(), b"content");
        assert_eq!(fs::read_link(path("second")).unwrap(), Path::new("nowhere"));
        assert!(is_copy(&path("copy"), &path("file")).unwrap() && is_copy(&path("second"), &path("link")).unwrap());
        for other in ["link", "missing"] {
            assert!(!is_copy(&path("copy"), &path(other)).unwrap(), "{other}");
        }
        rewrite_file(&path("copy"), b"more").unwrap();
        assert!(!is_copy(&path("copy"), &path("file")).unwrap());
        assert_eq!(fs::metadata(path("copy")).unwrap().mode() & 0o7777, 0o604);
        let extended = |name| attributes(&path(name)).unwrap().extended;
        assert!(extended("copy").iter().any(|(name, _)| name == "user.origin"), "{:?}", extended("copy"));
        assert_eq!(fs::read(path("copy")).unwrap(), b"more");
        set_attributes(&path("copy"), &attributes(&path("file")).unwrap()).unwrap();
        assert_eq!(fs::metadata(path("copy")).unwrap().modified().unwrap(), then);
        assert!(attributes(&path("second")).is_err(), "a symlink");
        assert!(copy(directory.path(), &path("directory")).is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 4);
    }

    #[test]
    fn a_rewritten_file_has_a_new_modification_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "one").unwrap();
        File::open(&path).unwrap().set_modified(UNIX_EPOCH).unwrap();
        rewrite_file(&path, b"two").unwrap();
        assert_ne!(fs::metadata(&path).unwrap().modified().unwrap(), UNIX_EPOCH);
    }

    #[test]
    fn a_copy_equals_in_type_content_and_attributes() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for (name, content) in [("file", "one"), ("other content", "two"), ("other time", "one")] {
            fs::write(path(name), content).unwrap();
        }
        for (name, target) in [("link", "file"), ("other target", "copy"), ("link of another time", "file")] {
            symlink(target, path(name)).unwrap();
        }
        let opened = Dir::open(directory.path()).unwrap();
        let set_time = |name: &str, seconds| {
            let before = Attributes::of_symlink(&fs::symlink_metadata(path(name)).unwrap());
            let attributes = Attributes { modified: (seconds, 0), ..before };
            opened.set_attributes_of_name(&FileName::new(name).unwrap(), &attributes).unwrap();
        };
        ["file", "other content", "link", "other target"].into_iter().for_each(|name| set_time(name, 7));
        ["other time", "link of another time"].into_iter().for_each(|name| set_time(name, 8));
        let is_copy_of = |copy: &str, name: &str| is_copy(&path(copy), &path(name)).unwrap();
        assert!(is_copy_of("file", "file") && is_copy_of("link", "link"));
        for other in ["other content", "other time", "link"] {
            assert!(!is_copy_of("file", other), "{other}");
        }
        for other in ["other target", "link of another time", "file"] {
            assert!(!is_copy_of("link", other), "{other}");
        }
        assert!(!is_copy(directory.path(), directory.path()).unwrap(), "a directory has no copy");
    }

    #[test]
    fn a_path_that_cannot_be_read_is_not_reported_as_missing() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("file"), "").unwrap();
        symlink("loop", path("loop")).unwrap();
        for (name, expected) in [("file", true), ("loop", true), ("missing", false), ("file/x", false)] {
            assert_eq!(exists(&path(name)).unwrap(), expected, "{name}");
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
        fs::write(&path, "").unwrap();
        let error = format!("{:#}", remove_empty_dir(&path).unwrap_err());
        assert!(error.contains(path.to_str().unwrap()) && path.exists(), "{error}");
    }
}
