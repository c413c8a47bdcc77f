//! A package made again from what is installed of it, for a device that has its `.deb` no more.
//!
//! It holds the files as they are on the device, changed ones too, and dpkg's own files about the package. It is not
//! compressed: it is needed for the length of one update, and a slow CPU would pay for the space.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use mender_update_module::FileName;
use mender_update_module::durable::{self, Dir};
use tar::{Builder, EntryType, Header};

use crate::control::Stanza;
use crate::database::{self, Diversions};

/// Fields of dpkg's database that are about the device and not about the package.
const OF_THE_DEVICE: [&str; 5] =
    ["Status", "Conffiles", "Config-Version", "Triggers-Awaited", "Triggers-Pending"];

/// dpkg's files about a package that are none of its control files.
const OF_DPKG: [&str; 2] = ["list", "conffiles"];

/// The size of the header of a member of an `ar` archive.
const MEMBER: u64 = 60;

/// Writes the installed package `package` into `folder` as `name`.
///
/// # Errors
/// When a file of it cannot be read, or the new one not be written.
pub fn rebuild(package: &Stanza, diversions: &Diversions, folder: &Dir, name: &FileName) -> Result<()> {
    let shown = folder.path().join(name);
    let writing = || format!("rebuilding the installed package as {}", shown.display());
    let mut deb = folder.create_file(name)?;
    let files = Files::of(package, diversions)?;
    deb.write_all(b"!<arch>\n").with_context(writing)?;
    member(&mut deb, "debian-binary", |deb| Ok(deb.write_all(b"2.0\n")?)).with_context(writing)?;
    member(&mut deb, "control.tar", |deb| control(package, &files, deb)).with_context(writing)?;
    member(&mut deb, "data.tar", |deb| files.write(deb)).with_context(writing)
}

/// Writes one member of an `ar` archive, whose size is known only when `fill` has written it.
fn member(deb: &mut File, name: &str, fill: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let begin = deb.stream_position()?;
    deb.seek(SeekFrom::Start(begin + MEMBER))?;
    fill(deb)?;
    let end = deb.stream_position()?;
    let size = end - begin - MEMBER;
    ensure!(size < 10_000_000_000, "a member of a package cannot have {size} bytes");
    if size % 2 == 1 {
        deb.write_all(b"\n")?;
    }
    let next = deb.stream_position()?;
    deb.seek(SeekFrom::Start(begin))?;
    writeln!(deb, "{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`", 0, 0, 0, 100_644)?;
    deb.seek(SeekFrom::Start(next))?;
    Ok(())
}

/// The control archive: the package's description, and every script and list that dpkg has kept of it.
fn control(package: &Stanza, files: &Files, to: &mut File) -> Result<()> {
    let mut tar = Builder::new(to);
    let mut add = |name: &str, mode: u32, content: &[u8]| -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        Ok(tar.append_data(&mut header, format!("./{name}"), content)?)
    };
    add("control", 0o644, description(package).as_bytes())?;
    for path in database::info_files(package)? {
        let kind = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        if !OF_DPKG.contains(&kind.as_str()) {
            let reading = || format!("reading {}", path.display());
            let mode = fs::metadata(&path).with_context(reading)?.mode() & 0o777;
            add(&kind, mode, &fs::read(&path).with_context(reading)?)?;
        }
    }
    let conffiles = files.conffiles(package);
    if !conffiles.is_empty() {
        add("conffiles", 0o644, conffiles.as_bytes())?;
    }
    tar.finish()?;
    Ok(())
}

fn description(package: &Stanza) -> String {
    let of_the_package = |field: &&str| {
        let name = field.split(':').next().unwrap_or_default();
        !OF_THE_DEVICE.iter().any(|other| other.eq_ignore_ascii_case(name))
    };
    package.fields().filter(of_the_package).map(|field| format!("{field}\n")).collect()
}

/// What is there of a package's files, in the order of dpkg's list: folders come before what is in them.
struct Files(Vec<Found>);

/// One of them: what it is called in the package, where it lies, and what is known of it.
struct Found {
    path: PathBuf,
    place: PathBuf,
    meta: Metadata,
}

impl Files {
    fn of(package: &Stanza, diversions: &Diversions) -> Result<Self> {
        let (name, listed) = (package.required("Package")?, database::files_of(package)?);
        let mut files = Vec::new();
        for (number, path) in listed.iter().enumerate() {
            let place = diversions.place(path, name).to_owned();
            let Some(mut meta) = durable::look_at(&place)? else { continue };
            // A folder that the administrator has moved elsewhere is a folder to the package all the same.
            let holds_more =
                || listed[number + 1..].iter().any(|other| other != path && other.starts_with(path));
            if meta.is_symlink() && place.is_dir() && holds_more() {
                meta = fs::metadata(&place).with_context(|| format!("looking at {}", place.display()))?;
            }
            files.push(Found { path: path.clone(), place, meta });
        }
        Ok(Self(files))
    }

    /// The list of configuration files, as far as they are there and the package has not given them up.
    fn conffiles(&self, package: &Stanza) -> String {
        let present = |path: &str| self.0.iter().any(|file| file.path == Path::new(path));
        let own = package.conffiles().filter(|(path, flag)| flag.is_empty() && present(path));
        own.map(|(path, _)| format!("{path}\n")).collect()
    }

    fn write(&self, to: &mut File) -> Result<()> {
        let mut tar = Builder::new(to);
        let mut linked: HashMap<(u64, u64), PathBuf> = HashMap::new();
        for file in &self.0 {
            let reading = || format!("reading {}", file.place.display());
            let inode = (file.meta.dev(), file.meta.ino());
            match linked.get(&inode).filter(|_| file.meta.is_file() && file.meta.nlink() > 1) {
                Some(first) => append_link(&mut tar, file, EntryType::Link, first),
                None => append(&mut tar, file),
            }
            .with_context(reading)?;
            linked.entry(inode).or_insert_with(|| inside(&file.path));
        }
        tar.finish()?;
        Ok(())
    }
}

fn append(tar: &mut Builder<&mut File>, file: &Found) -> Result<()> {
    let kind = file.meta.file_type();
    if kind.is_file() {
        let content = File::open(&file.place)?;
        let mut header = header(file, EntryType::Regular);
        header.set_size(file.meta.len());
        // A file that grows meanwhile must not spoil the archive; one that shrinks does, and is noticed.
        let mut content = content.take(file.meta.len());
        tar.append_data(&mut header, inside(&file.path), &mut content)?;
        ensure!(content.limit() == 0, "it has become shorter meanwhile");
        return Ok(());
    }
    if kind.is_symlink() {
        return append_link(tar, file, EntryType::Symlink, &fs::read_link(&file.place)?);
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
        bail!("it is of no kind that a package can have");
    };
    let mut header = header(file, kind);
    let device = file.meta.rdev();
    if matches!(kind, EntryType::Char | EntryType::Block) {
        header.set_device_major(rustix::fs::major(device))?;
        header.set_device_minor(rustix::fs::minor(device))?;
    }
    Ok(tar.append_data(&mut header, inside(&file.path), &[][..])?)
}

fn append_link(tar: &mut Builder<&mut File>, file: &Found, kind: EntryType, target: &Path) -> Result<()> {
    Ok(tar.append_link(&mut header(file, kind), inside(&file.path), target)?)
}

fn header(file: &Found, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(file.meta.mode() & 0o7777);
    header.set_uid(file.meta.uid().into());
    header.set_gid(file.meta.gid().into());
    header.set_mtime(file.meta.mtime().max(0).unsigned_abs());
    header.set_size(0);
    header
}

/// The path in the archive: `./usr/bin/x`.
fn inside(path: &Path) -> PathBuf {
    Path::new(".").join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_says_nothing_of_the_device() {
        let package = Stanza(
            "Package: a\nStatus: install ok installed\nConffiles:\n /etc/a 0\nVersion: 1\nDescription: x\n y"
                .into(),
        );
        assert_eq!(description(&package), "Package: a\nVersion: 1\nDescription: x\n y\n");
    }

    #[test]
    fn members_are_padded_and_their_sizes_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.deb");
        let mut deb = File::create(&path).unwrap();
        member(&mut deb, "one", |deb| Ok(deb.write_all(b"abc")?)).unwrap();
        member(&mut deb, "two", |_| Ok(())).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.len(), 60 + 4 + 60);
        assert!(
            text.starts_with("one             0           0     0     100644  3         `\nabc\ntwo  "),
            "{text}"
        );
    }
}
