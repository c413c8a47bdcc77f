//! An image of directories: inodes and names, so that hard links differ from copies. Read from disk, and written back.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rustix::fs::{CWD, XattrFlags, lgetxattr, llistxattr, lsetxattr};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Seconds and nanoseconds since 1970.
pub type Time = (i64, i64);

/// Directories with everything in them. FIFOs, sockets and devices are left out: no module keeps state in them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Image {
    /// The keys of the directories themselves, by their paths below the device.
    pub tops: BTreeMap<PathBuf, u64>,
    /// Every inode. Keys are unique; a file system reuses inode numbers.
    pub inodes: BTreeMap<u64, Inode>,
    /// The numbers of inodes that had a name once, and have none any more.
    pub gone: BTreeSet<u64>,
}

/// A file, directory or symlink, without its names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Inode {
    /// The inode number in the file system.
    pub number: u64,
    /// The type, and the content.
    pub kind: Kind,
    /// All of `st_mode`.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
    /// When it was last modified.
    pub modified: Time,
    /// Extended attributes, ACLs and capabilities among them.
    pub attributes: BTreeMap<String, Vec<u8>>,
}

/// The type of an inode, with its content.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A directory: names, and the inodes' keys.
    Directory(BTreeMap<String, u64>),
    /// A regular file: its content.
    File(Vec<u8>),
    /// A symlink: its target.
    Symlink(String),
}

impl Inode {
    /// The inode of `path` itself, with a file's content but without a directory's names; `None` for types that an
    /// [`Image`] leaves out.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let reading = || format!("reading {} failed", path.display());
        let meta = fs::symlink_metadata(path).with_context(reading)?;
        let kind = if meta.is_dir() {
            Kind::Directory(BTreeMap::new())
        } else if meta.is_file() {
            Kind::File(fs::read(path).with_context(reading)?)
        } else if meta.is_symlink() {
            Kind::Symlink(text(fs::read_link(path).with_context(reading)?)?)
        } else {
            return Ok(None);
        };
        Ok(Some(Self {
            number: meta.ino(),
            kind,
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            modified: (meta.mtime(), meta.mtime_nsec()),
            attributes: attributes(path).with_context(reading)?,
        }))
    }
}

impl Image {
    /// An image without inodes, for logs that are not replayed.
    pub fn empty() -> Self {
        Self { tops: BTreeMap::new(), inodes: BTreeMap::new(), gone: BTreeSet::new() }
    }

    /// The image of the directories `tops` below `device`. None of them is inside another.
    ///
    /// # Errors
    /// When something cannot be read, or has a name that is not UTF-8.
    pub fn of<P: AsRef<Path>>(device: &Path, tops: impl IntoIterator<Item = P>) -> Result<Self> {
        let mut image = Self::empty();
        for top in tops {
            let (top, path) = (top.as_ref(), device.join(&top));
            let key = read_tree(&path, &mut image.inodes)?;
            let key = key.with_context(|| format!("making an image failed: {}: not a directory", path.display()))?;
            image.tops.insert(top.to_owned(), key);
        }
        Ok(image)
    }

    /// The inodes at and below `path`.
    pub fn below(&self, path: &Path) -> BTreeSet<u64> {
        let find = |key: Option<u64>, name: &OsStr| match &self.inodes.get(&key?)?.kind {
            Kind::Directory(names) => names.get(name.to_str()?).copied(),
            _ => None,
        };
        let of_top = |(top, key): (&PathBuf, &u64)| path.strip_prefix(top).ok()?.iter().fold(Some(*key), find);
        let mut next: Vec<_> = self.tops.iter().find_map(of_top).into_iter().collect();
        let mut below = BTreeSet::new();
        while let Some(key) = next.pop() {
            if let (true, Some(Kind::Directory(names))) =
                (below.insert(key), self.inodes.get(&key).map(|inode| &inode.kind))
            {
                next.extend(names.values());
            }
        }
        below
    }

    /// Drops the inodes that have no name any more.
    #[must_use]
    pub fn reachable(mut self) -> Self {
        let (mut reached, mut next) = (BTreeMap::new(), self.tops.values().copied().collect::<Vec<_>>());
        while let Some(key) = next.pop() {
            if let Some(inode) = self.inodes.remove(&key) {
                if let Kind::Directory(names) = &inode.kind {
                    next.extend(names.values());
                }
                reached.insert(key, inode);
            }
        }
        let gone = self.inodes.into_values().map(|inode| inode.number).collect();
        Self { tops: self.tops, inodes: reached, gone }
    }

    /// Every path and its inode, without times and inode numbers, to compare two images.
    pub fn listing(&self) -> BTreeMap<PathBuf, Inode> {
        let mut next: Vec<_> = self.tops.iter().map(|(top, key)| (top.clone(), *key)).collect();
        let mut listing = BTreeMap::new();
        while let Some((path, key)) = next.pop() {
            let mut inode = Inode { number: 0, modified: (0, 0), ..self.inodes[&key].clone() };
            if let Kind::Directory(names) = &mut inode.kind {
                next.extend(std::mem::take(names).into_iter().map(|(name, key)| (path.join(name), key)));
            }
            listing.insert(path, inode);
        }
        listing
    }

    /// Replaces the content of the directories below `device` with this image. Real storage keeps inode numbers across
    /// a power loss, but here inodes get new ones. So numbers in journals, under keys that end with `inode`, are
    /// replaced with the new ones. Numbers of inodes that are lost become `reused`: a file system gives them to other
    /// files.
    pub fn write_to(&self, device: &Path, reused: u64) -> Result<()> {
        let mut paths = BTreeMap::new();
        for (top, key) in &self.tops {
            let path = device.join(top);
            empty(&path).with_context(|| format!("emptying {} failed", path.display()))?;
            paths.insert(*key, path.clone());
            self.make_names(*key, &path, &mut paths)?;
        }
        let mut numbers: BTreeMap<_, _> = self.gone.iter().map(|number| (*number, reused)).collect();
        for (key, path) in &paths {
            let now = fs::symlink_metadata(path).with_context(|| format!("reading {} failed", path.display()))?;
            numbers.insert(self.inodes[key].number, now.ino());
        }
        for (key, path) in &paths {
            self.inodes[key].write_to(path, &numbers).with_context(|| format!("writing {} failed", path.display()))?;
        }
        Ok(())
    }

    /// Makes every name below `directory`, without content; `paths` collects the first path of each inode.
    fn make_names(&self, directory: u64, at: &Path, paths: &mut BTreeMap<u64, PathBuf>) -> Result<()> {
        let Kind::Directory(names) = &self.inodes[&directory].kind else { return Ok(()) };
        for (name, key) in names {
            let path = at.join(name);
            let made = match (paths.get(key), &self.inodes[key].kind) {
                (Some(first), _) => fs::hard_link(first, &path),
                (None, Kind::Directory(_)) => fs::create_dir(&path),
                (None, Kind::File(_)) => File::create(&path).map(drop),
                (None, Kind::Symlink(target)) => symlink(target, &path),
            };
            made.with_context(|| format!("making {} failed", path.display()))?;
            if !paths.contains_key(key) {
                paths.insert(*key, path.clone());
                self.make_names(*key, &path, paths)?;
            }
        }
        Ok(())
    }
}

impl Inode {
    /// Writes content and attributes to `path`, which exists.
    fn write_to(&self, path: &Path, numbers: &BTreeMap<u64, u64>) -> io::Result<()> {
        if let Kind::File(content) = &self.kind {
            let translated = is_record(path).then(|| translate(content, numbers)).flatten();
            fs::write(path, translated.as_ref().unwrap_or(content))?;
        }
        let now = fs::symlink_metadata(path)?;
        if (now.uid(), now.gid()) != self.owner {
            lchown(path, Some(self.owner.0), Some(self.owner.1))?;
        }
        for (name, value) in &self.attributes {
            lsetxattr(path, name, value, XattrFlags::empty())?;
        }
        if now.is_symlink() {
            return set_link_time(path, self.modified);
        }
        fs::set_permissions(path, fs::Permissions::from_mode(self.mode & 0o7777))?;
        File::open(path)?.set_modified(system_time(self.modified))
    }
}

/// Adds `path` and everything below it; returns its key.
fn read_tree(path: &Path, inodes: &mut BTreeMap<u64, Inode>) -> Result<Option<u64>> {
    let Some(mut inode) = Inode::read(path)? else { return Ok(None) };
    let key = inode.number;
    if let Kind::Directory(names) = &mut inode.kind {
        for entry in fs::read_dir(path).with_context(|| format!("listing {} failed", path.display()))? {
            let entry = entry.with_context(|| format!("listing {} failed", path.display()))?;
            if let Some(found) = read_tree(&entry.path(), inodes)? {
                names.insert(text(entry.file_name().into())?, found);
            }
        }
    }
    inodes.insert(key, inode);
    Ok(Some(key))
}

/// Whether `path` is a journal of the library, or one that was moved aside.
fn is_record(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let begins = ["journal", "discard", "left-", "late-", "unrestored-"].iter().any(|known| name.starts_with(known));
    begins && name.contains(".json")
}

/// `journal` with its inode numbers replaced. A number that is not in `numbers` is of an inode outside, and stays.
/// `None` if the journal is not JSON, for example because it was written in part.
fn translate(journal: &[u8], numbers: &BTreeMap<u64, u64>) -> Option<Vec<u8>> {
    fn walk(value: &mut Value, numbers: &BTreeMap<u64, u64>) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| walk(item, numbers)),
            Value::Object(members) => {
                for (key, member) in members {
                    match member.as_u64() {
                        Some(number) if key.ends_with("inode") => {
                            *member = numbers.get(&number).copied().unwrap_or(number).into();
                        }
                        _ => walk(member, numbers),
                    }
                }
            }
            _ => {}
        }
    }
    let mut value = serde_json::from_slice(journal).ok()?;
    walk(&mut value, numbers);
    serde_json::to_vec(&value).ok()
}

fn empty(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn attributes(path: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut names = vec![0; 64 << 10];
    let length = llistxattr(path, &mut names)?;
    let names = names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let name = String::from_utf8(name.to_vec())?;
            let value = attribute(path, &name)?.unwrap_or_default();
            Ok((name, value))
        })
        .collect()
}

/// The extended attribute `name` of `path` itself.
///
/// # Errors
/// When it cannot be read for another reason than that it does not exist.
pub fn attribute(path: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; 64 << 10];
    match lgetxattr(path, name, &mut value) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(rustix::io::Errno::NODATA) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn set_link_time(path: &Path, (seconds, nanoseconds): Time) -> io::Result<()> {
    use rustix::fs::{AtFlags, Timespec, Timestamps, utimensat};
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn system_time((seconds, nanoseconds): Time) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(seconds.max(0) as u64, nanoseconds as u32)
}

fn text(path: PathBuf) -> Result<String> {
    path.into_os_string().into_string().map_err(|name| anyhow::anyhow!("file name {name:?}: not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_laid_out_as_it_was_read() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("d")).unwrap();
        fs::write(at("d/one"), "content").unwrap();
        fs::hard_link(at("d/one"), at("two")).unwrap();
        symlink("nowhere", at("link")).unwrap();
        fs::set_permissions(at("two"), fs::Permissions::from_mode(0o4750)).unwrap();
        lsetxattr(at("d"), "user.x", b"value", XattrFlags::CREATE).unwrap();
        File::open(at("d")).unwrap().set_modified(system_time((5, 7))).unwrap();
        let inode = fs::metadata(at("d")).unwrap().ino();
        fs::write(at("journal.json"), format!("{{\"a\":[{{\"kept_inode\":{inode},\"inode\":1}}],\"n\":{inode}}}"))
            .unwrap();
        let snapshot = || crate::Snapshot::of(directory.path()).unwrap();
        let (mut image, before) = (Image::of(directory.path(), [""]).unwrap(), snapshot());
        image.gone.insert(1);
        fs::remove_dir_all(at("d")).unwrap();
        fs::write(at("added"), "").unwrap();
        image.write_to(directory.path(), 4711).unwrap();
        let after = snapshot();
        assert_eq!(after.differences(&before), [at("journal.json")]);
        assert_eq!(fs::metadata(at("two")).unwrap().ino(), fs::metadata(at("d/one")).unwrap().ino());
        let now = fs::metadata(at("d")).unwrap().ino();
        let journal: Value = serde_json::from_slice(&fs::read(at("journal.json")).unwrap()).unwrap();
        assert_eq!(journal["a"][0]["kept_inode"], now);
        assert_eq!(journal["a"][0]["inode"], 4711, "no inode of the image has this number any more");
        assert_eq!(journal["n"], inode, "not an inode number");
    }

    #[test]
    fn an_image_has_only_the_chosen_directories() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["a/b/x", "a/c/x", "d/x"] {
            fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            fs::write(at(name), "before").unwrap();
        }
        let image = Image::of(directory.path(), ["a/b", "d"]).unwrap();
        let number = |name: &str| fs::metadata(at(name)).unwrap().ino();
        assert_eq!(image.below(Path::new("a/b/x")), [number("a/b/x")].into());
        assert!(image.below(Path::new("a/c")).is_empty());
        for name in ["a/b/x", "a/c/x", "d/x"] {
            fs::write(at(name), "after").unwrap();
        }
        image.write_to(directory.path(), 0).unwrap();
        let contents = ["a/b/x", "a/c/x", "d/x"].map(|name| fs::read_to_string(at(name)).unwrap());
        assert_eq!(contents, ["before", "after", "before"]);
        assert!(Image::of(directory.path(), ["missing"]).is_err());
    }
}
