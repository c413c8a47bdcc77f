//! Rebuilds the `.deb` of an installed package, for a device that no longer has it.
//!
//! The rebuilt package has the files as they are on the device, also changed ones, and the scripts from
//! dpkg's info files. It is not compressed: it exists during one update only, and compression takes long on a
//! slow CPU.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use mender_update_module::FileName;
use mender_update_module::durable::{self, Dir};
use tar::{Builder, EntryType, Header};

use crate::dpkg::database;
use crate::dpkg::diversions::Diversions;
use crate::dpkg::stanza::Stanza;

/// The fields of dpkg's database that describe the device and not the package.
const DEVICE_FIELDS: [&str; 5] = ["Status", "Conffiles", "Config-Version", "Triggers-Awaited", "Triggers-Pending"];

/// The info files that are not from the control archive.
const DPKG_FILES: [&str; 2] = ["list", "conffiles"];

/// The size of the header of a member of an `ar` archive.
const MEMBER_HEADER: u64 = 60;

/// Writes the installed package `package` to `directory` as `name`.
pub fn rebuild(package: &Stanza, diversions: &Diversions, directory: &Dir, name: &FileName) -> Result<()> {
    let shown = directory.path().join(name);
    let writing = || format!("rebuilding the installed package as {}", shown.display());
    let mut deb = directory.create_file(name)?;
    let files = Files::find(package, diversions)?;
    deb.write_all(b"!<arch>\n").with_context(writing)?;
    write_member(&mut deb, "debian-binary", |deb| Ok(deb.write_all(b"2.0\n")?)).with_context(writing)?;
    write_member(&mut deb, "control.tar", |deb| write_control(package, &files, deb)).with_context(writing)?;
    write_member(&mut deb, "data.tar", |deb| files.write(deb)).with_context(writing)
}

/// Writes one member of an `ar` archive. `content` writes its content, and only then the size is known.
fn write_member(deb: &mut File, name: &str, content: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let begin = deb.stream_position()?;
    deb.seek(SeekFrom::Start(begin + MEMBER_HEADER))?;
    content(deb)?;
    let end = deb.stream_position()?;
    let size = end - begin - MEMBER_HEADER;
    ensure!(size < 10_000_000_000, "{name}: {size} bytes, and a member of an ar archive has less than 10 GB");
    if size % 2 == 1 {
        deb.write_all(b"\n")?;
    }
    let next = deb.stream_position()?;
    deb.seek(SeekFrom::Start(begin))?;
    writeln!(deb, "{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`", 0, 0, 0, 100_644)?;
    deb.seek(SeekFrom::Start(next))?;
    Ok(())
}

/// Writes the control archive: the control file, and the scripts and lists from the info files.
fn write_control(package: &Stanza, files: &Files, to: &mut File) -> Result<()> {
    let mut tar = Builder::new(to);
    let mut add = |name: &str, mode: u32, content: &[u8]| -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        Ok(tar.append_data(&mut header, format!("./{name}"), content)?)
    };
    add("control", 0o644, &control_file(package))?;
    for path in database::info_files(package)? {
        let kind = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        if !DPKG_FILES.contains(&kind.as_str()) {
            let reading = || format!("reading {} failed", path.display());
            let mode = fs::metadata(&path).with_context(reading)?.mode() & 0o777;
            add(&kind, mode, &fs::read(&path).with_context(reading)?)?;
        }
    }
    let conffiles = files.conffiles(package);
    if !conffiles.is_empty() {
        add("conffiles", 0o644, &conffiles)?;
    }
    tar.finish()?;
    Ok(())
}

fn control_file(package: &Stanza) -> Vec<u8> {
    let is_of_package = |field: &&[u8]| {
        let name = field.split(|byte| *byte == b':').next().unwrap_or_default();
        !DEVICE_FIELDS.iter().any(|other| other.as_bytes().eq_ignore_ascii_case(name))
    };
    package.fields().filter(is_of_package).flat_map(|field| [field, b"\n"]).flatten().copied().collect()
}

/// The files of a package that exist, in the order of dpkg's list: directories come before what is in them.
struct Files(Vec<InstalledFile>);

/// One file of a package.
struct InstalledFile {
    /// The path in the package.
    path: PathBuf,
    /// The path on the device, which is another one where the file is diverted.
    installed: PathBuf,
    metadata: Metadata,
}

impl Files {
    fn find(package: &Stanza, diversions: &Diversions) -> Result<Self> {
        let (name, listed) = (package.required("Package")?, database::files_of(package)?);
        let mut files = Vec::new();
        for (number, path) in listed.iter().enumerate() {
            let installed = diversions.installed_path(path, name).to_owned();
            let Some(mut metadata) = durable::metadata(&installed)? else { continue };
            // A symlink in the place of a directory, which the administrator has moved, is a directory in the
            // package.
            let has_contents = || listed[number..].iter().any(|other| other != path && other.starts_with(path));
            if metadata.is_symlink() && installed.is_dir() && has_contents() {
                metadata =
                    fs::metadata(&installed).with_context(|| format!("examining {} failed", installed.display()))?;
            }
            files.push(InstalledFile { path: path.clone(), installed, metadata });
        }
        Ok(Self(files))
    }

    /// The list of the configuration files that exist and are not obsolete.
    fn conffiles(&self, package: &Stanza) -> Vec<u8> {
        let present = |path: &Path| self.0.iter().any(|file| file.path == path);
        let own = package.conffiles().filter(|(path, flag)| flag.is_empty() && present(path));
        own.flat_map(|(path, _)| [path.as_os_str().as_bytes(), b"\n"]).flatten().copied().collect()
    }

    fn write(&self, to: &mut File) -> Result<()> {
        let mut tar = Builder::new(to);
        let mut first_paths: HashMap<(u64, u64), PathBuf> = HashMap::new();
        for file in &self.0 {
            let reading = || format!("reading {} failed", file.installed.display());
            let inode = (file.metadata.dev(), file.metadata.ino());
            match first_paths.get(&inode).filter(|_| file.metadata.is_file() && file.metadata.nlink() > 1) {
                Some(first) => append_link(&mut tar, file, EntryType::Link, first),
                None => append(&mut tar, file),
            }
            .with_context(reading)?;
            first_paths.entry(inode).or_insert_with(|| path_in_archive(&file.path));
        }
        tar.finish()?;
        Ok(())
    }
}

fn append(tar: &mut Builder<&mut File>, file: &InstalledFile) -> Result<()> {
    let kind = file.metadata.file_type();
    if kind.is_file() {
        let content = File::open(&file.installed)?;
        let mut header = header(file, EntryType::Regular);
        header.set_size(file.metadata.len());
        // A file that grows meanwhile is cut at the size in the header; one that shrinks is an error.
        let mut content = content.take(file.metadata.len());
        tar.append_data(&mut header, path_in_archive(&file.path), &mut content)?;
        ensure!(content.limit() == 0, "the file became shorter while it was read");
        return Ok(());
    }
    if kind.is_symlink() {
        return append_link(tar, file, EntryType::Symlink, &fs::read_link(&file.installed)?);
    }
    let kind = if kind.is_dir() {
        EntryType::Directory
    } else if kind.is_fifo() {
        EntryType::Fifo
    } else if kind.is_char_device() {
        EntryType::Char
    } else if kind.is_block_device() {
        EntryType::Block
    } else {
        bail!("a package cannot have a file of this type");
    };
    let mut header = header(file, kind);
    let device = file.metadata.rdev();
    if matches!(kind, EntryType::Char | EntryType::Block) {
        header.set_device_major(rustix::fs::major(device))?;
        header.set_device_minor(rustix::fs::minor(device))?;
    }
    Ok(tar.append_data(&mut header, path_in_archive(&file.path), &[][..])?)
}

fn append_link(tar: &mut Builder<&mut File>, file: &InstalledFile, kind: EntryType, target: &Path) -> Result<()> {
    Ok(tar.append_link(&mut header(file, kind), path_in_archive(&file.path), target)?)
}

fn header(file: &InstalledFile, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(file.metadata.mode() & 0o7777);
    header.set_uid(file.metadata.uid().into());
    header.set_gid(file.metadata.gid().into());
    header.set_mtime(file.metadata.mtime().max(0).unsigned_abs());
    header.set_size(0);
    header
}

/// The path in the archive, below its root.
fn path_in_archive(path: &Path) -> PathBuf {
    Path::new(".").join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::process::Command;

    use rustix::fs::{AtFlags, FileType, Mode, Timestamps};

    use super::*;
    use crate::dpkg::database::Database;
    use crate::dpkg::stanza::PackageKey;
    use crate::payload::deb;
    use crate::test_device::{installed, on_device, write, write_list, write_status};

    #[test]
    fn the_control_file_has_no_fields_of_the_device() {
        let package = Stanza(
            "Package: a\nStatus: install ok installed\nConffiles:\n /etc/a 0\nVersion: 1\nDescription: x\n y".into(),
        );
        assert_eq!(control_file(&package), b"Package: a\nVersion: 1\nDescription: x\n y\n");
    }

    #[test]
    fn members_are_padded_and_have_their_size() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.deb");
        let mut deb = File::create(&path).unwrap();
        write_member(&mut deb, "one", |deb| Ok(deb.write_all(b"abcde")?)).unwrap();
        write_member(&mut deb, "two", |_| Ok(())).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.len(), 60 + 6 + 60);
        assert!(
            text.starts_with("one             0           0     0     100644  5         `\nabcde\ntwo  "),
            "{text}"
        );
    }

    /// One entry of an archive: name, type, mode, owner, link target and device number.
    fn entries(archive: &[u8]) -> Vec<String> {
        let mut archive = tar::Archive::new(archive);
        let shown = |entry: tar::Entry<&[u8]>| {
            let header = entry.header();
            let target = entry.link_name().unwrap().unwrap_or_default();
            let (path, kind) = (entry.path().unwrap(), header.entry_type());
            // A field that is not set is no number.
            let number = |field: std::io::Result<u64>| field.unwrap_or(0);
            let (mode, owner, time) = (header.mode().unwrap(), number(header.uid()), number(header.mtime()));
            let device = |part: std::io::Result<Option<u32>>| part.ok().flatten().unwrap_or(0);
            let device = 1000 * device(header.device_major()) + device(header.device_minor());
            let size = header.size().unwrap();
            format!("{} {kind:?} {mode:o} {owner} {time} {size} {device} {}", path.display(), target.display())
        };
        archive.entries().unwrap().map(|entry| shown(entry.unwrap())).collect()
    }

    /// Rebuilds the package `a`, with a member of the package's archive by dpkg-deb's option.
    fn rebuilt(option: &str) -> Vec<u8> {
        let (database, diversions) = (Database::read().unwrap(), Diversions::read().unwrap());
        let package = database.find(&PackageKey::from_apt("a")).unwrap();
        durable::remove_tree(Path::new("/var/backup")).unwrap();
        let directory = durable::make_dirs(Path::new("/var/backup")).unwrap();
        rebuild(package, &diversions, &directory, &FileName::new("a.deb").unwrap()).unwrap();
        let output = Command::new("dpkg-deb").args([option, "/var/backup/a.deb"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    #[test]
    fn a_rebuilt_package_has_the_files_as_they_are() {
        on_device(|| {
            write_status(&[&installed("a", "1")]);
            fs::create_dir_all("/srv/a/below").unwrap();
            fs::write("/srv/a/file", "123").unwrap();
            chown("/srv/a/file", Some(7), None).unwrap();
            fs::set_permissions("/srv/a/file", fs::Permissions::from_mode(0o4750)).unwrap();
            fs::hard_link("/srv/a/file", "/srv/a/link").unwrap();
            fs::write("/srv/a/other", "").unwrap();
            symlink("no such", "/srv/a/symlink").unwrap();
            let node = |path: &str, kind, device| {
                rustix::fs::mknodat(rustix::fs::CWD, path, kind, Mode::from_raw_mode(0o600), device).unwrap();
            };
            node("/srv/a/fifo", FileType::Fifo, 0);
            node("/srv/a/null", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
            node("/srv/a/block", FileType::BlockDevice, rustix::fs::makedev(7, 9));
            fs::write("/srv/a/diverted.distrib", "12").unwrap();
            write("/var/lib/dpkg/diversions", "/srv/a/diverted\n/srv/a/diverted.distrib\nb\n");
            let names = [
                "",
                "/below",
                "/file",
                "/link",
                "/other",
                "/symlink",
                "/fifo",
                "/null",
                "/block",
                "/diverted",
                "/absent",
            ];
            let paths = names.map(|name| format!("/srv/a{name}"));
            write_list("a", &paths.each_ref().map(String::as_str));
            for path in &paths {
                let times = rustix::fs::Timespec { tv_sec: 1_700_000_000, tv_nsec: 0 };
                let times = Timestamps { last_access: times, last_modification: times };
                let at = if path.ends_with("diverted") { format!("{path}.distrib") } else { path.clone() };
                let _ = rustix::fs::utimensat(rustix::fs::CWD, at, &times, AtFlags::SYMLINK_NOFOLLOW);
            }
            let expected = [
                "srv/a Directory 755 0 1700000000 0 0 ",
                "srv/a/below Directory 755 0 1700000000 0 0 ",
                "srv/a/file Regular 4750 7 1700000000 3 0 ",
                "srv/a/link Link 4750 7 1700000000 0 0 ./srv/a/file",
                "srv/a/other Regular 644 0 1700000000 0 0 ",
                "srv/a/symlink Symlink 777 0 1700000000 0 0 no such",
                "srv/a/fifo Fifo 600 0 1700000000 0 0 ",
                "srv/a/null Char 600 0 1700000000 0 1003 ",
                "srv/a/block Block 600 0 1700000000 0 7009 ",
                "srv/a/diverted Regular 644 0 1700000000 2 0 ",
            ];
            assert_eq!(entries(&rebuilt("--fsys-tarfile")), expected);
        });
    }

    #[test]
    fn a_symlink_in_the_place_of_a_directory_is_a_directory() {
        on_device(|| {
            write_status(&[&installed("a", "1")]);
            write("/srv/moved/file", "");
            for name in ["full", "again", "empty"] {
                symlink("moved", Path::new("/srv").join(name)).unwrap();
            }
            symlink("moved/file", "/srv/to-file").unwrap();
            let names = ["full", "full/file", "again", "again/file", "empty", "to-file", "to-file/x", "empty"];
            write_list("a", &names.map(|name| format!("/srv/{name}")).each_ref().map(String::as_str));
            let entries = entries(&rebuilt("--fsys-tarfile"));
            let shown: Vec<_> = entries.iter().map(|entry| entry.split(' ').nth(1).unwrap()).collect();
            let expected = ["Directory", "Regular", "Directory", "Regular", "Symlink", "Symlink", "Symlink"];
            assert_eq!(shown, expected);
        });
    }

    #[test]
    fn the_control_archive_has_the_scripts_and_the_configuration_files_that_exist() {
        on_device(|| {
            let conffiles = "Conffiles:\n /etc/a 0\n /etc/gone 0\n /etc/old 0 obsolete\n";
            write_status(&[&(installed("a", "1") + conffiles)]);
            write_list("a", &["/etc/a", "/etc/gone", "/etc/old"]);
            write("/etc/a", "");
            write("/etc/old", "");
            for (name, mode) in [("a.prerm", 0o4755), ("a.md5sums", 0o640), ("a.conffiles", 0o644)] {
                let path = Path::new("/var/lib/dpkg/info").join(name);
                fs::write(&path, "text").unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            }
            let archive = rebuilt("--ctrl-tarfile");
            let entries: Vec<_> =
                entries(&archive).iter().map(|it| it.rsplitn(5, ' ').last().unwrap().to_owned()).collect();
            let expected =
                ["control Regular 644 0", "md5sums Regular 640 0", "prerm Regular 755 0", "conffiles Regular 644 0"];
            assert_eq!(entries, expected);
            assert_eq!(deb::read_control(&archive[..]).unwrap().conffiles, [Path::new("/etc/a")]);
            write_status(&[&installed("a", "1")]);
            assert!(!String::from_utf8_lossy(&rebuilt("--ctrl-tarfile")).contains("conffiles"));
        });
    }
}
