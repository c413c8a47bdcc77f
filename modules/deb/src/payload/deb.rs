//! Reads the contents of a `.deb` within limits, before dpkg or apt read it.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use mender_update_module::durable::NAME_MAX;
use tar::EntryType;

use crate::dpkg::program;
use crate::dpkg::stanza::Stanza;
use crate::payload::tar_reader::{self, Origin};

/// The limit of an unpacked control archive in bytes. Debian's largest have some MiB of checksums.
const CONTROL_LIMIT: u64 = 32 << 20;

/// The limit of a control file and of a list of configuration files in bytes, because both are kept in
/// memory. Debian's largest have some 20 KiB.
const TEXT_LIMIT: u64 = 128 << 10;

/// The limit of a `preinst` in bytes, because it is read into memory.
const SCRIPT_LIMIT: u64 = 1 << 20;

/// The longest name of a file in bytes: dpkg appends `.dpkg-new` while it installs the file.
const FILE_NAME_LIMIT: usize = NAME_MAX - ".dpkg-new".len();

/// The limit of all names of files in bytes, for each file that is accepted.
const NAME_BYTES: usize = 100;

/// What the control archive of a package has.
pub struct Control {
    pub stanza: Stanza,
    /// The configuration files.
    pub conffiles: Vec<PathBuf>,
    /// Whether its `preinst` calls dpkg-divert: the package may then have files of another package.
    pub diverts: bool,
}

/// The type of one path of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Directory,
    File,
    Symlink,
    HardLink,
    Node,
}

/// One path of a package.
#[derive(Clone, Debug)]
pub struct Item {
    pub path: PathBuf,
    pub kind: Kind,
}

/// Reads the control archive of the package `deb`.
///
/// # Errors
/// When it is damaged, exceeds a limit, or has no control file.
pub fn control(deb: &Path) -> Result<Control> {
    let control = program::query("dpkg-deb").arg("--ctrl-tarfile").arg(deb).stream(|archive| read_control(archive));
    control.with_context(|| format!("invalid package {}", deb.display()))
}

/// As [`control`], of the tar archive `archive`.
pub fn read_control(archive: impl Read) -> Result<Control> {
    let (mut control, mut conffiles, mut preinst) = (None, Vec::new(), Vec::new());
    each_file(archive, |name, size, content| {
        let (into, limit) = match name {
            "control" => (control.insert(Vec::new()), TEXT_LIMIT),
            "conffiles" => (&mut conffiles, TEXT_LIMIT),
            "preinst" => (&mut preinst, SCRIPT_LIMIT),
            _ => return Ok(()),
        };
        ensure!(size <= limit, "{name}: {size} bytes, and at most {limit} are accepted");
        into.clear();
        content.read_to_end(into)?;
        Ok(())
    })?;
    let mut stanzas = Stanza::all(&control.context("no control file")?);
    ensure!(stanzas.len() <= 1, "control: two paragraphs");
    let stanza = stanzas.pop().unwrap_or_default();
    let conffiles = String::from_utf8(conffiles).context("conffiles: not UTF-8")?;
    // A flag may come before the path.
    let paths = conffiles.lines().filter_map(|line| line.find('/').map(|at| PathBuf::from(line[at..].trim_end())));
    let diverts = preinst.windows(DIVERT.len()).any(|window| window == DIVERT);
    Ok(Control { stanza, conffiles: paths.collect(), diverts })
}

const DIVERT: &[u8] = b"dpkg-divert";

/// Calls `take` with the name, size and content of every file in the control archive of `deb`.
pub fn each_control_file(deb: &Path, take: impl FnMut(&str, u64, &mut dyn Read) -> Result<()>) -> Result<()> {
    program::query("dpkg-deb").arg("--ctrl-tarfile").arg(deb).stream(|archive| each_file(archive, take))
}

/// As [`each_control_file`], of the tar archive `archive`.
fn each_file(archive: impl Read, mut take: impl FnMut(&str, u64, &mut dyn Read) -> Result<()>) -> Result<()> {
    let mut total = 0_u64;
    tar_reader::read(archive.take(2 * CONTROL_LIMIT), Origin::Package, |entry| {
        total = total.saturating_add(entry.size).saturating_add(512);
        ensure!(
            total <= CONTROL_LIMIT,
            "control archive: more than {CONTROL_LIMIT} bytes unpacked, which is not accepted"
        );
        let path = tar_reader::installed_path(&entry.name)?;
        match path.file_name().and_then(|name| name.to_str()) {
            Some(name) if entry.kind == EntryType::Regular => take(name, entry.size, entry.content),
            _ => Ok(()),
        }
    })
}

/// The paths of the package `deb`, at most `max_files`, and the size of all its files, at most `free` bytes.
///
/// # Errors
/// When the package is damaged or exceeds a limit.
pub fn items(deb: &Path, max_files: usize, free: u64) -> Result<(Vec<Item>, u64)> {
    let archive = program::query("dpkg-deb").arg("--fsys-tarfile").arg(deb);
    let listed = archive.stream(|archive| read_items(archive, max_files, free));
    listed.with_context(|| format!("invalid package {}", deb.display()))
}

/// As [`items`], of the tar archive `archive`.
pub fn read_items(archive: impl Read, max_files: usize, free: u64) -> Result<(Vec<Item>, u64)> {
    let (mut items, mut bytes, mut names) = (Vec::new(), 0_u64, 0);
    tar_reader::read(archive, Origin::Package, |entry| {
        bytes = bytes.saturating_add(entry.size);
        names += entry.name.len();
        ensure!(bytes <= free, "its files are larger than the {free} bytes that are free: free some space");
        ensure!(
            items.len() < max_files && names <= max_files.saturating_mul(NAME_BYTES),
            "too many files: after the artifact's other packages, {max_files} files and directories are accepted, with \
             {NAME_BYTES} bytes of names for each: raise max_files"
        );
        let path = tar_reader::installed_path(&entry.name)?;
        ensure!(
            path.file_name().is_none_or(|name| name.len() <= FILE_NAME_LIMIT),
            "{}: the file name is longer than {FILE_NAME_LIMIT} bytes, which dpkg cannot install",
            path.display()
        );
        items.push(Item { path, kind: kind(entry.kind)? });
        Ok(())
    })?;
    Ok((items, bytes))
}

fn kind(of: EntryType) -> Result<Kind> {
    Ok(match of {
        EntryType::Directory => Kind::Directory,
        EntryType::Regular => Kind::File,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Link => Kind::HardLink,
        EntryType::Char | EntryType::Block | EntryType::Fifo => Kind::Node,
        other => bail!("entry of type {:?}: not supported", char::from(other.as_byte())),
    })
}

#[cfg(test)]
mod tests {
    use mender_update_module_test::debian::Package;

    use super::*;
    use crate::test_device::{build, error, tar};

    const FILE: EntryType = EntryType::Regular;

    #[test]
    fn the_files_of_a_control_archive_are_read() {
        let archive = tar(&[
            (EntryType::Directory, "./", b""),
            (FILE, "./control", b"Package: a\nVersion: 1\n"),
            (FILE, "./conffiles", b"/etc/a b\nremove-on-upgrade /etc/old\n\n"),
            (FILE, "./preinst", b"#!/bin/sh\ndpkg-divert --add /x\n"),
            (FILE, "./postinst", b"no dpkg-divert"),
        ]);
        let Control { stanza, conffiles, diverts } = read_control(&archive[..]).unwrap();
        assert_eq!(stanza.field("Version"), Some("1"));
        assert_eq!(conffiles, ["/etc/a b", "/etc/old"].map(PathBuf::from));
        assert!(diverts);
        let without =
            tar(&[(FILE, "control", b"Package: a\n"), (FILE, "preinst", b"exit 0 # nothing"), (FILE, "x", b"")]);
        let control = read_control(&without[..]).unwrap();
        assert!(!control.diverts && control.conffiles.is_empty());
    }

    #[test]
    fn control_archives_without_one_paragraph_are_refused() {
        for (kind, text, expected) in [
            (EntryType::Symlink, &b""[..], "no control file"),
            (FILE, b"Package: a\n\nPackage: b\n", "two paragraphs"),
            (FILE, &[b'x'; TEXT_LIMIT as usize + 1], "131073 bytes"),
        ] {
            let error = error(read_control(&tar(&[(kind, "control", text)])[..]));
            assert!(error.contains(expected), "{error}");
        }
    }

    /// Files of one byte take 1 KiB each in an archive.
    #[test]
    fn the_limit_of_a_control_archive_is_that_of_the_unpacked_files() {
        let number = |files| {
            let (archive, mut number) = (tar(&[(FILE, "x", b"x")]).repeat(files), 0);
            each_file(&archive[..], |_, _, _| {
                number += 1;
                Ok(())
            })
            .map(|()| number)
        };
        let fits = CONTROL_LIMIT as usize / 513;
        assert_eq!(number(fits).unwrap(), fits);
        assert!(error(number(fits + 1)).contains("33554432 bytes"));
    }

    #[test]
    fn the_paths_and_the_size_of_a_package_are_read() {
        let kinds = [
            (EntryType::Directory, Kind::Directory),
            (FILE, Kind::File),
            (EntryType::Symlink, Kind::Symlink),
            (EntryType::Link, Kind::HardLink),
            (EntryType::Fifo, Kind::Node),
            (EntryType::Char, Kind::Node),
        ];
        let archive: Vec<u8> = kinds.iter().flat_map(|(kind, _)| tar(&[(*kind, "./srv/x", b"")])).collect();
        let archive = [archive, tar(&[(FILE, "y", b"12345"), (FILE, "z", b"678")])].concat();
        let (items, bytes) = read_items(&archive[..], 8, 8).unwrap();
        let found: Vec<_> = items.iter().map(|item| (item.path.as_path(), item.kind)).collect();
        let expected: Vec<_> = kinds.iter().map(|(_, kind)| (Path::new("/srv/x"), *kind)).collect();
        assert_eq!((&found[..6], bytes), (&expected[..], 8));
        assert!(error(read_items(&archive[..], 7, 8)).contains("max_files"));
        assert!(error(read_items(&archive[..], 8, 7)).contains("7 bytes that are free"));
    }

    #[test]
    fn long_names_are_refused() {
        let named = |length: usize| {
            let name = "x".repeat(length);
            let long = tar(&[(EntryType::GNULongName, "././@LongLink", name.as_bytes()), (FILE, "x", b"")]);
            read_items(&long[..], 10, 0)
        };
        named(NAME_MAX - 9).unwrap();
        assert!(error(named(NAME_MAX - 8)).contains("246 bytes"));
        let names = tar(&[(FILE, &"x".repeat(60), b""), (FILE, &format!("{}/y", "x".repeat(80)), b"")]);
        read_items(&names[..], 2, 0).unwrap();
        let long = format!("{}/{}", "x".repeat(90), "y".repeat(90));
        let long = tar(&[(EntryType::GNULongName, "x", long.as_bytes()), (FILE, "x", b"")]);
        assert!(error(read_items(&long[..], 1, 0)).contains("100 bytes of names"));
        assert!(error(read_items(&long.repeat(3)[..], 5, 0)).contains("100 bytes of names"));
    }

    #[test]
    fn packages_of_dpkg_deb_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.deb");
        build(&Package::new("a", "1").file("/srv/a", "12345").script("prerm", "exit 0"), &path);
        assert_eq!(control(&path).unwrap().stanza.field("Version"), Some("1"));
        let (items, bytes) = items(&path, 10, 10).unwrap();
        let paths: Vec<_> = items.iter().map(|item| item.path.to_str().unwrap()).collect();
        assert_eq!((paths, bytes), (vec!["/", "/srv", "/srv/a"], 5));
        let mut names = Vec::new();
        each_control_file(&path, |name, _, _| {
            names.push(name.to_owned());
            Ok(())
        })
        .unwrap();
        names.sort();
        assert_eq!(names, ["control", "prerm"]);
        assert!(error(control(directory.path())).contains("invalid package"));
    }
}
