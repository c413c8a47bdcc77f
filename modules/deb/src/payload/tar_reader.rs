//! Reads tar archives within limits, because a header of an untrusted archive may announce any size.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use mender_update_module::durable::PATH_MAX;
use mender_update_module::pax_records;
use tar::{Archive, EntryType};

/// The longest name or link target, in bytes.
const NAME_LIMIT: u64 = PATH_MAX as u64;

/// The largest extended header (pax) in bytes. tar programs write some hundred.
const PAX_LIMIT: u64 = 64 << 10;

/// The origin of an archive, which decides about the headers that are accepted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// An archive in a package. dpkg refuses extended headers there.
    Package,
    /// A file of the payload, which any tar program may have written.
    Payload,
}

/// One entry of an archive.
pub struct Entry<'a> {
    /// The name as it is in the archive.
    pub name: Vec<u8>,
    pub kind: EntryType,
    pub size: u64,
    pub content: &'a mut dyn Read,
}

/// Reads an archive and calls `take` with every entry.
pub fn read(archive: impl Read, origin: Origin, mut take: impl FnMut(Entry) -> Result<()>) -> Result<()> {
    let mut archive = Archive::new(archive);
    let mut long_name = None;
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        let (kind, size) = (entry.header().entry_type(), entry.size());
        match kind {
            EntryType::GNULongName => long_name = Some(header(&mut entry, size, NAME_LIMIT, "long name")?),
            EntryType::GNULongLink => drop(header(&mut entry, size, NAME_LIMIT, "long link target")?),
            EntryType::XHeader if origin == Origin::Payload => {
                let pax = header(&mut entry, size, PAX_LIMIT, "extended header (pax)")?;
                long_name = pax_path(&pax)?.or(long_name);
            }
            EntryType::XGlobalHeader if origin == Origin::Payload => {
                drop(header(&mut entry, size, PAX_LIMIT, "global header (pax)")?);
            }
            EntryType::Regular
            | EntryType::Directory
            | EntryType::Symlink
            | EntryType::Link
            | EntryType::Char
            | EntryType::Block
            | EntryType::Fifo => {
                let name = long_name.take().unwrap_or_else(|| entry.header().path_bytes().into_owned());
                let name = name.split(|&byte| byte == 0).next().unwrap_or_default().to_vec();
                // A name with a slash at the end is a directory in the oldest format of tar.
                let is_directory = kind == EntryType::Regular && name.ends_with(b"/");
                let kind = if is_directory { EntryType::Directory } else { kind };
                take(Entry { name, kind, size, content: &mut entry })?;
            }
            other => bail!("invalid archive: entry of type {:?}: not supported", char::from(other.as_byte())),
        }
    }
    Ok(())
}

fn header(entry: &mut impl Read, size: u64, limit: u64, what: &str) -> Result<Vec<u8>> {
    ensure!(size <= limit, "invalid archive: {what}: {size} bytes, and at most {limit} are accepted");
    let mut content = Vec::new();
    entry.take(limit).read_to_end(&mut content)?;
    Ok(content)
}

/// The path in an extended header.
fn pax_path(header: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut path = None;
    for record in pax_records(header) {
        let (key, value) = record.context("invalid archive")?;
        ensure!(key != b"size", "invalid archive: extended header (pax): size is not supported");
        if key == b"path" {
            path = Some(value.to_vec());
        }
    }
    Ok(path)
}

/// The path that dpkg installs the entry `name` of a package under. dpkg accepts names that begin with `./`,
/// with `/` or with neither, and a slash at the end.
///
/// # Errors
/// For a name with `..`, or with a newline, which dpkg's lists of files cannot hold.
pub fn installed_path(name: &[u8]) -> Result<PathBuf> {
    let shown = || String::from_utf8_lossy(name).into_owned();
    ensure!(!name.contains(&b'\n'), "invalid archive: file name {:?}: dpkg accepts no newline", shown());
    let mut path = PathBuf::from("/");
    for part in Path::new(OsStr::from_bytes(name)).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir | Component::RootDir => {}
            _ => bail!("invalid archive: file name {:?}: it leads out of its directory", shown()),
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: EntryType, name: &str, content: &[u8]) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }

    fn names(archive: &[u8], origin: Origin) -> Result<Vec<String>> {
        let mut names = Vec::new();
        read(archive, origin, |entry| {
            names.push(format!("{} {}", String::from_utf8_lossy(&entry.name), entry.size));
            Ok(())
        })?;
        Ok(names)
    }

    #[test]
    fn long_names_are_read_within_their_limit() {
        let long =
            [entry(EntryType::GNULongName, "././@LongLink", b"long/name\0"), entry(EntryType::Regular, "long", b"xy")];
        assert_eq!(names(&long.concat(), Origin::Package).unwrap(), ["long/name 2"]);
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(300 << 20);
        header.set_cksum();
        let message = format!("{:#}", names(header.as_bytes(), Origin::Package).unwrap_err());
        assert!(message.contains("314572800 bytes") && message.contains("4096"), "{message}");
    }

    #[test]
    fn extended_headers_are_accepted_in_payloads_only() {
        let pax = [entry(EntryType::XHeader, "x", b"12 path=a/b\n\n"), entry(EntryType::Regular, "short", b"")];
        // The record has 12 bytes, and damaged ones follow.
        assert!(names(&pax.concat(), Origin::Payload).is_err());
        let pax = [entry(EntryType::XHeader, "x", b"12 path=a/b\n"), entry(EntryType::Regular, "short", b"")];
        assert_eq!(names(&pax.concat(), Origin::Payload).unwrap(), ["a/b 0"]);
        assert!(names(&pax.concat(), Origin::Package).is_err());
        let many = entry(EntryType::XHeader, "x", &b"6 a=b\n".repeat(80_000));
        assert!(names(&many, Origin::Payload).is_err(), "480 kB of records were accepted");
        for damaged in [&b"0 "[..], b"1 ", b"99 path=a\n", b"18446744073709551616 a=b\n", b" a=b\n", b"x"] {
            assert!(pax_path(damaged).is_err(), "{damaged:?} was accepted");
        }
        let sized = entry(EntryType::XHeader, "x", b"9 size=1\n");
        assert!(names(&sized, Origin::Payload).is_err(), "a size was accepted");
    }

    #[test]
    fn every_form_of_a_name_is_the_same_path() {
        for name in ["usr/x", "./usr/x", "/usr/x", "usr//x", "./usr/x/", "././usr/./x"] {
            assert_eq!(installed_path(name.as_bytes()).unwrap(), Path::new("/usr/x"), "{name}");
        }
        assert_eq!(installed_path(b"./").unwrap(), Path::new("/"));
        for name in ["../x", "usr/../../x", "a\nb"] {
            assert!(installed_path(name.as_bytes()).is_err(), "{name:?} was accepted");
        }
    }

    #[test]
    fn global_headers_are_skipped_in_payloads_only() {
        let archive = [entry(EntryType::XGlobalHeader, "g", b"6 a=b\n"), entry(EntryType::Regular, "x", b"")].concat();
        assert_eq!(names(&archive, Origin::Payload).unwrap(), ["x 0"]);
        assert!(names(&archive, Origin::Package).is_err());
    }

    #[test]
    fn names_with_a_slash_at_the_end_are_directories() {
        let kinds = |kind, name| {
            let mut kinds = Vec::new();
            read(&entry(kind, name, b"")[..], Origin::Package, |entry| {
                kinds.push(entry.kind);
                Ok(())
            })
            .unwrap();
            kinds
        };
        assert_eq!(kinds(EntryType::Regular, "d/"), [EntryType::Directory]);
        assert_eq!(kinds(EntryType::Regular, "d"), [EntryType::Regular]);
        assert_eq!(kinds(EntryType::Symlink, "d/"), [EntryType::Symlink]);
    }
}
