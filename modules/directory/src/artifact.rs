//! The form of an artifact, and its check before it is packed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufReader, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use mender_update_module::durable::{PATH_MAX, require_plain};
use mender_update_module::{ArtifactContent, FileName, PayloadFile, Replaces, require_harmless_path};

use crate::destination::check_path;
use crate::settings::MetaData;
use crate::tar::{Archive, Content, Entry, Names};
use crate::unpack::{IS_A_DIRECTORY, NO_ENTRY, NO_TARGET, NOT_A_DIRECTORY, TOP};

/// The payload file of Mender's own module `directory` that has the destination.
pub const DEST_DIR: &str = "dest_dir";
/// The payload file of Mender's own module `directory` that is the archive.
pub const UPDATE_TAR: &str = "update.tar";

/// What an artifact would install.
#[derive(Debug, PartialEq, Eq)]
pub struct Checked {
    /// The directory that it replaces.
    pub destination: PathBuf,
    /// The number of entries in its archive.
    pub entries: u64,
}

/// Checks `content` as Download does, as far as that does not depend on the device.
///
/// # Errors
/// What every device would refuse, and the remedy.
pub fn check(content: &ArtifactContent) -> Result<Checked> {
    content.check_common()?;
    let meta_data: MetaData = content.meta_data()?.unwrap_or_default();
    let (destination, archives) = match meta_data.dest_dir {
        Some(destination) => (destination, content.files.iter().collect()),
        None => official(&content.files)?,
    };
    check_destination(&destination)?;
    for (before, archive) in archives.iter().enumerate() {
        require_one(before + 1, &archive.name)?;
    }
    require_archive(archives.len())?;
    let archive = archives[0];
    let entries =
        check_archive(archive.open()?).with_context(|| format!("unpacking the archive {} failed", archive.name))?;
    Ok(Checked { destination, entries })
}

/// Refuses a destination for what its path alone says.
///
/// # Errors
/// For a path that is relative, leads upwards, has control characters, or would replace the client or its data.
pub fn check_destination(destination: &Path) -> Result<()> {
    check_path(destination)?;
    require_plain(destination)?;
    let plain: PathBuf = destination.components().collect();
    require_harmless_path(&plain, Replaces::Tree)
}

/// The destination and the archives of a payload in the form of Mender's own module.
fn official(files: &[PayloadFile]) -> Result<(PathBuf, Vec<&PayloadFile>)> {
    let mut archives = Vec::new();
    for (at, file) in files.iter().enumerate() {
        if is_destination(&file.name, !archives.is_empty())? {
            let destination = dest_dir(file.open()?)?;
            archives.extend(&files[at + 1..]);
            return Ok((destination, archives));
        }
        archives.push(file);
    }
    Err(no_destination())
}

/// Whether the payload file `name` has the destination: if not, it is the archive.
///
/// # Errors
/// When it can be neither.
pub(crate) fn is_destination(name: &FileName, has_archive: bool) -> Result<bool> {
    if name.as_ref() == Path::new(DEST_DIR) {
        return Ok(true);
    }
    ensure!(
        name.as_ref() == Path::new(UPDATE_TAR) && !has_archive,
        "invalid artifact: file {name}: use the files dest_dir and update.tar, or one archive and dest_dir in the \
         meta-data"
    );
    Ok(false)
}

/// The path in the payload's file `dest_dir`, without the newline at its end.
pub(crate) fn dest_dir(content: impl Read) -> Result<PathBuf> {
    let mut text = Vec::new();
    content.take(PATH_MAX as u64 + 1).read_to_end(&mut text).context("reading the payload file dest_dir failed")?;
    ensure!(text.len() <= PATH_MAX, "invalid artifact: dest_dir: longer than {PATH_MAX} bytes");
    while text.last() == Some(&b'\n') {
        text.pop();
    }
    ensure!(!text.contains(&0), "invalid artifact: dest_dir: NUL byte");
    Ok(OsString::from_vec(text).into())
}

pub(crate) fn no_destination() -> Error {
    anyhow!("invalid artifact: no destination: add a file dest_dir, or dest_dir to the meta-data")
}

/// Refuses the archive `name` if it is not the first one.
pub(crate) fn require_one(archives: usize, name: &FileName) -> Result<()> {
    ensure!(archives == 1, "invalid artifact: file {name} beside the archive: put it into the archive");
    Ok(())
}

pub(crate) fn require_archive(archives: usize) -> Result<()> {
    ensure!(archives == 1, "invalid artifact: no archive: add one with the new tree");
    Ok(())
}

/// Reads a tar archive as a device unpacks it, and returns the number of its entries. Memory grows with the number of
/// different paths.
///
/// # Errors
/// When it is damaged, or has an entry that every device refuses.
pub fn check_archive(from: impl Read) -> Result<u64> {
    let mut archive = Archive::new(BufReader::new(from));
    let mut paths = Paths::default();
    let mut entries = 0;
    while let Some(entry) = archive.next()? {
        entries += 1;
        let mut check = || {
            entry.refuse_unknown_xattrs()?;
            paths.add(&entry)
        };
        check().with_context(|| format!("entry {}", entry.shown))?;
    }
    ensure!(entries > 0, NO_ENTRY);
    Ok(entries)
}

/// The paths of an archive, each with whether it is a directory.
#[derive(Default)]
struct Paths(BTreeMap<Names, bool>);

impl Paths {
    fn add(&mut self, entry: &Entry) -> Result<()> {
        let is_directory = matches!(entry.content, Content::Directory);
        let Some((_, above)) = entry.names.split_last() else {
            ensure!(is_directory, TOP);
            return Ok(());
        };
        let directories = if is_directory { entry.names.len() } else { above.len() };
        for end in 1..=directories {
            let path = &entry.names[..end];
            if !self.0.get(path).copied().unwrap_or(true) {
                bail!("{} {NOT_A_DIRECTORY}", path[end - 1]);
            }
            self.0.insert(path.to_vec(), true);
        }
        if let Content::HardLink(target) = &entry.content {
            ensure!(!target.is_empty(), "hard link to the top of the tree");
            ensure!(self.0.contains_key(target), NO_TARGET);
        }
        if !is_directory {
            ensure!(self.0.get(&entry.names) != Some(&true), IS_A_DIRECTORY);
            self.0.insert(entry.names.clone(), false);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(directory: &Path, files: &[(&str, &[u8])], meta_data: Option<&str>) -> ArtifactContent {
        let file = |(name, content): &(&str, &[u8])| {
            let path = directory.join(name);
            std::fs::write(&path, content).unwrap();
            PayloadFile { name: FileName::new(*name).unwrap(), path }
        };
        ArtifactContent { meta_data: meta_data.map(str::to_owned), files: files.iter().map(file).collect() }
    }

    fn tar(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, kind, link) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_size(0);
            header.set_mode(0o755);
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            if !link.is_empty() {
                header.set_link_name(link).unwrap();
            }
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
            archive.append(&header, &[][..]).unwrap();
        }
        archive.into_inner().unwrap()
    }

    #[test]
    fn both_forms_of_a_payload_are_checked() {
        use tar::EntryType::{Directory, Regular};
        let directory = tempfile::tempdir().unwrap();
        let archive = tar(&[("./", Directory, ""), ("./a", Regular, "")]);
        let expected = Checked { destination: "/srv/app".into(), entries: 2 };
        let of_mender = content(directory.path(), &[("dest_dir", b"/srv/app\n"), ("update.tar", &archive)], None);
        assert_eq!(check(&of_mender).unwrap(), expected);
        let own = content(directory.path(), &[("app.tar", &archive)], Some("{\"dest_dir\": \"/srv/app\"}"));
        assert_eq!(check(&own).unwrap(), expected);
        for (files, meta_data, message) in [
            (vec![("app.tar", &archive[..])], None, "use the files dest_dir and update.tar"),
            (vec![("update.tar", &archive[..])], None, "no destination"),
            (vec![("dest_dir", &b"/srv/app"[..])], None, "no archive"),
            (vec![], Some("{\"dest_dir\": \"/srv/app\"}"), "no archive"),
            (vec![("a", &archive[..]), ("b", &archive)], Some("{\"dest_dir\": \"/srv/app\"}"), "beside the archive"),
            (vec![("a", &archive[..])], Some("{\"dest_dir\": \"srv\"}"), "not an absolute path"),
            (vec![("a", &archive[..])], Some("{\"dest_dir\": \"/etc\"}"), "name another directory"),
            (vec![("a", &archive[..])], Some("{\"dest_dir\": \"/a\\r\"}"), "control character"),
            (vec![("a", &b"text"[..])], Some("{\"dest_dir\": \"/srv/app\"}"), "without an end marker"),
            (vec![("a", &archive[..])], Some("{\"dest_dir\": \"/srv/app\", \"keep\": [\"../x\"]}"), "keep"),
        ] {
            let error = format!("{:#}", check(&content(directory.path(), &files, meta_data)).unwrap_err());
            assert!(error.contains(message), "{message}: {error}");
        }
    }

    #[test]
    fn entries_that_contradict_each_other_are_refused() {
        use tar::EntryType::{Directory, Link, Regular};
        for (entries, message) in [
            (vec![("a", Regular, ""), ("a/b", Regular, "")], NOT_A_DIRECTORY),
            (vec![("a/b", Regular, ""), ("a", Regular, "")], IS_A_DIRECTORY),
            (vec![("a", Link, "b")], NO_TARGET),
            (vec![], NO_ENTRY),
            (vec![("../a", Regular, "")], "leads out of the tree"),
            (vec![("/a", Regular, "")], "absolute path"),
        ] {
            let error = format!("{:#}", check_archive(tar(&entries).as_slice()).unwrap_err());
            assert!(error.contains(message), "{message}: {error}");
        }
        let twice = [("a", Regular, ""), ("a", Regular, ""), ("b", Link, "a"), ("d/", Directory, "")];
        assert_eq!(check_archive(tar(&twice).as_slice()).unwrap(), 4);
    }
}
