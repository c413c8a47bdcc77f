//! Tar archives read one header at a time, within limits: a header of somebody else's archive may announce any size.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use tar::{Archive, EntryType};

/// The longest name or link target in bytes: `PATH_MAX`, longer ones cannot be made.
const NAME_LIMIT: u64 = 4096;

/// The largest extended header (pax) in bytes. Those that tar programs write have some hundred.
const PAX_LIMIT: u64 = 64 << 10;

/// Whose archive it is, which decides about the headers that may be in it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// One inside a package: dpkg refuses extended headers, and so does this.
    Package,
    /// One of packages, which any tar program may have written.
    Payload,
}

/// One entry.
pub struct Entry<'a> {
    /// As it is in the archive.
    pub name: Vec<u8>,
    pub kind: EntryType,
    pub size: u64,
    pub content: &'a mut dyn Read,
}

/// Reads an archive and hands every entry to `take`.
///
/// # Errors
/// Those of `take`; when the archive is damaged or truncated, a header exceeds its limit, or an entry is of an unknown type.
pub fn read(archive: impl Read, of: Of, mut take: impl FnMut(Entry) -> Result<()>) -> Result<()> {
    let mut archive = Archive::new(archive);
    let mut long_name = None;
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        let (kind, size) = (entry.header().entry_type(), entry.size());
        match kind {
            EntryType::GNULongName => long_name = Some(header(&mut entry, size, NAME_LIMIT, "a name")?),
            EntryType::GNULongLink => drop(header(&mut entry, size, NAME_LIMIT, "a link target")?),
            EntryType::XHeader if of == Of::Payload => {
                let pax = header(&mut entry, size, PAX_LIMIT, "an extended header (pax)")?;
                long_name = pax_path(&pax)?.or(long_name);
            }
            EntryType::XGlobalHeader if of == Of::Payload => {
                drop(header(&mut entry, size, PAX_LIMIT, "a global header (pax)")?);
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
                // So the oldest form of tar says that it is a directory.
                let is_directory = kind == EntryType::Regular && name.ends_with(b"/");
                let kind = if is_directory { EntryType::Directory } else { kind };
                take(Entry { name, kind, size, content: &mut entry })?;
            }
            other => bail!("an entry of the type {:?} is not supported", char::from(other.as_byte())),
        }
    }
    Ok(())
}

fn header(entry: &mut impl Read, size: u64, limit: u64, what: &str) -> Result<Vec<u8>> {
    ensure!(size <= limit, "{what} of {size} bytes: more than {limit} bytes are not accepted");
    let mut content = Vec::new();
    entry.take(limit).read_to_end(&mut content)?;
    Ok(content)
}

/// The path in an extended header, which is a sequence of `LENGTH KEY=VALUE` and a newline each.
fn pax_path(mut records: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut path = None;
    while !records.is_empty() {
        let record = pax_record(records).context("a damaged extended header (pax)")?;
        records = &records[record.len()..];
        let text = record.splitn(2, |&byte| byte == b' ').nth(1).unwrap_or_default();
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        ensure!(!text.starts_with(b"size="), "a size in an extended header (pax) is not supported");
        if let Some(value) = text.strip_prefix(b"path=") {
            path = Some(value.to_vec());
        }
    }
    Ok(path)
}

fn pax_record(records: &[u8]) -> Option<&[u8]> {
    let digits = records.iter().take(8).position(|&byte| byte == b' ')?;
    let length: usize = std::str::from_utf8(&records[..digits]).ok()?.parse().ok()?;
    records.get(..length).filter(|record| record.len() > digits)
}

/// Where the entry `name` of a package comes to lie: dpkg takes names with `./`, with `/`, and with nothing before them, and
/// a slash at the end.
///
/// # Errors
/// For a name with `..`, which leads elsewhere, and for one with a newline, which dpkg's lists cannot hold.
pub fn installed_path(name: &[u8]) -> Result<PathBuf> {
    let shown = || String::from_utf8_lossy(name).into_owned();
    ensure!(!name.contains(&b'\n'), "the name {:?} contains a newline, which dpkg does not accept", shown());
    let mut path = PathBuf::from("/");
    for part in Path::new(OsStr::from_bytes(name)).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir | Component::RootDir => {}
            _ => bail!("the name {:?} leads out of its directory", shown()),
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

    fn names(archive: &[u8], of: Of) -> Result<Vec<String>> {
        let mut names = Vec::new();
        read(archive, of, |entry| {
            names.push(format!("{} {}", String::from_utf8_lossy(&entry.name), entry.size));
            Ok(())
        })?;
        Ok(names)
    }

    #[test]
    fn long_names_are_read_within_their_limit() {
        let long = [
            entry(EntryType::GNULongName, "././@LongLink", b"long/name\0"),
            entry(EntryType::Regular, "long", b"xy"),
        ];
        assert_eq!(names(&long.concat(), Of::Package).unwrap(), ["long/name 2"]);
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(300 << 20);
        header.set_cksum();
        let said = format!("{:#}", names(header.as_bytes(), Of::Package).unwrap_err());
        assert!(said.contains("314572800 bytes") && said.contains("4096"), "{said}");
    }

    #[test]
    fn extended_headers_are_for_payloads() {
        let pax =
            [entry(EntryType::XHeader, "x", b"12 path=a/b\n\n"), entry(EntryType::Regular, "short", b"")];
        // The record is 12 bytes long; what follows it is damaged.
        assert!(names(&pax.concat(), Of::Payload).is_err());
        let pax = [entry(EntryType::XHeader, "x", b"12 path=a/b\n"), entry(EntryType::Regular, "short", b"")];
        assert_eq!(names(&pax.concat(), Of::Payload).unwrap(), ["a/b 0"]);
        assert!(names(&pax.concat(), Of::Package).is_err());
        let many = entry(EntryType::XHeader, "x", &b"6 a=b\n".repeat(80_000));
        assert!(names(&many, Of::Payload).is_err(), "480 kB of records were accepted");
        for damaged in [&b"0 "[..], b"1 ", b"99 path=a\n", b"18446744073709551616 a=b\n", b" a=b\n", b"x"] {
            assert!(pax_path(damaged).is_err(), "{damaged:?} was accepted");
        }
        let sized = entry(EntryType::XHeader, "x", b"9 size=1\n");
        assert!(names(&sized, Of::Payload).is_err(), "a size was accepted");
    }

    #[test]
    fn every_form_of_a_name_is_one_path() {
        for name in ["usr/x", "./usr/x", "/usr/x", "usr//x", "./usr/x/", "././usr/./x"] {
            assert_eq!(installed_path(name.as_bytes()).unwrap(), Path::new("/usr/x"), "{name}");
        }
        assert_eq!(installed_path(b"./").unwrap(), Path::new("/"));
        for name in ["../x", "usr/../../x", "a\nb"] {
            assert!(installed_path(name.as_bytes()).is_err(), "{name:?} was accepted");
        }
    }
}
