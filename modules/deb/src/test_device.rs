//! A device for unit tests: dpkg and apt of this machine, with directories that belong to one test.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, ensure};
use mender_update_module_test::debian::{Package, own_mounts};
use mender_update_module_test::privileged::or_skipped;
use rustix::fs::Mode;
use rustix::mount::{MountFlags, mount, mount_bind, mount_remount};
use rustix::process::umask;
use tar::{EntryType, Header};

use crate::apt::get::Transaction;
use crate::backup::contents::Backup;
use crate::backup::directory::BackupDirectory;
use crate::checks::affected::Affected;
use crate::dpkg::database::Database;
use crate::dpkg::lock;
use crate::dpkg::program;
use crate::dpkg::stanza::{PackageKey, Stanza};
use crate::options::{MetaData, Options, Settings};
use crate::paths::sha256;
use crate::payload::deb::{Item, Kind};
use crate::payload::package::StagedPackage;
use crate::rollback::source::{New, Recorded, Source};

/// The directories that are empty at the beginning of a test.
const OWN: [&str; 5] = ["/etc", "/run", "/srv", "/var", "/root"];

/// Runs `test` on a thread with mounts and a umask of its own, where nothing is installed. Says why and returns where
/// this process may not mount, or this machine has no dpkg.
pub fn on_device(test: impl FnOnce() + Send) {
    let run = || {
        if or_skipped(mount_own()).is_some() {
            make_own().unwrap();
            test();
        }
    };
    let ended = thread::scope(|scope| scope.spawn(run).join());
    if let Err(failure) = ended {
        panic::resume_unwind(failure);
    }
}

fn mount_own() -> Result<()> {
    ensure!(Path::new("/usr/bin/apt-get").exists(), "apt is not installed");
    own_mounts()?;
    // What a test breaks must not reach the programs of this machine.
    mount_bind("/usr", "/usr").context("mounting /usr failed")?;
    mount_remount("/usr", MountFlags::BIND | MountFlags::RDONLY, "").context("making /usr read-only failed")?;
    for directory in OWN {
        mount("tmpfs", directory, "tmpfs", MountFlags::empty(), Some(c"mode=755"))
            .with_context(|| format!("mounting a tmpfs on {directory} failed"))?;
    }
    Ok(())
}

/// Makes the directories and files of a device where nothing is installed.
fn make_own() -> Result<()> {
    // A mount namespace has a umask of its own. That of a device decides about permissions.
    umask(Mode::WGRP | Mode::WOTH);
    symlink("/run", "/var/run")?;
    for directory in ["info", "updates", "triggers", "alternatives"] {
        fs::create_dir_all(Path::new("/var/lib/dpkg").join(directory))?;
    }
    for directory in ["/var/lib/apt/lists/partial", "/var/cache/apt/archives/partial", "/var/log/apt", "/var/tmp"] {
        fs::create_dir_all(directory)?;
    }
    // It may be in one of the directories that are empty now.
    fs::create_dir_all(env::temp_dir())?;
    fs::write("/var/lib/dpkg/status", "")?;
    Ok(())
}

/// Writes the file `path`, and the directories that it is in.
pub fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
    fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// The stanza of an installed package, for all architectures.
pub fn installed(name: &str, version: &str) -> String {
    format!(
        "Package: {name}\nStatus: install ok installed\nMaintainer: x <x@x>\nArchitecture: all\nVersion: {version}\n\
         Description: x\n"
    )
}

/// Writes dpkg's status file with these stanzas.
pub fn write_status(stanzas: &[&str]) {
    let stanzas: Vec<_> = stanzas.iter().map(|stanza| stanza.trim_end()).collect();
    write("/var/lib/dpkg/status", stanzas.join("\n\n") + "\n");
}

/// Writes dpkg's list of the files of the package `name`.
pub fn write_list(name: &str, paths: &[&str]) {
    write(format!("/var/lib/dpkg/info/{name}.list"), paths.join("\n") + "\n");
}

/// The database of a device of the architecture arm64 with this status file.
pub fn database(status: &str) -> Database {
    Database::of("arm64", status)
}

/// The package `name`, staged, with the fields `more` and the paths `items`.
pub fn staged(name: &str, more: &str, items: &[(&str, Kind)]) -> StagedPackage {
    StagedPackage {
        path: PathBuf::from(format!("/srv/{name}.deb")),
        key: PackageKey::from_apt(name),
        control: Stanza(format!("Package: {name}\nVersion: 2\nArchitecture: all\n{more}").into()),
        conffiles: Vec::new(),
        diverts: false,
        downloaded: false,
        items: items.iter().map(|(path, kind)| Item { path: path.into(), kind: *kind }).collect(),
        bytes: 0,
    }
}

/// Builds `package` as the file `path`.
pub fn build(package: &Package, path: impl AsRef<Path>) {
    write(path, package.build().unwrap());
}

/// The text of the file `path`.
pub fn text(path: impl AsRef<Path>) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned()
}

/// The message of the error in `result`, with its causes.
pub fn error<T>(result: Result<T>) -> String {
    format!("{:#}", result.err().unwrap())
}

/// A tar archive with these entries: type, name and content.
pub fn tar(entries: &[(EntryType, &str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (kind, name, content) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        header.set_path(name).unwrap();
        header.set_cksum();
        archive.extend(header.as_bytes());
        archive.extend(*content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive
}

/// A `.deb` with these tar archives, also one that dpkg-deb would not build.
pub fn deb_of(control: &[u8], files: &[u8]) -> Vec<u8> {
    let mut deb = b"!<arch>\n".to_vec();
    for (name, content) in [("debian-binary", &b"2.0\n"[..]), ("control.tar", control), ("data.tar", files)] {
        let size = content.len();
        deb.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, 100_644).into_bytes());
        deb.extend(content);
    }
    deb
}

/// The options of an update without settings and meta-data.
pub fn options() -> Options {
    Options::new(Settings::default(), MetaData::default())
}

/// Installs `packages` with dpkg.
pub fn install(packages: &[Package]) {
    let directory = tempfile::tempdir().unwrap();
    for (number, package) in packages.iter().enumerate() {
        build(package, directory.path().join(format!("{number}.deb")));
    }
    let dpkg = Command::new("dpkg").args(["--recursive", "--install"]).arg(directory.path()).output().unwrap();
    assert!(dpkg.status.success(), "{}", String::from_utf8_lossy(&dpkg.stderr));
}

/// The names of packages.
pub fn names<'a>(keys: impl IntoIterator<Item = &'a PackageKey>) -> Vec<String> {
    keys.into_iter().map(ToString::to_string).collect()
}

/// The backup of an update that installs `staged` and removes the packages `remove`.
pub fn back_up(staged: &[StagedPackage], remove: &[&str]) -> Backup {
    let database = Database::read().unwrap();
    let install = staged.iter().map(|package| package.key.clone()).collect();
    let remove = remove.iter().map(|name| PackageKey::from_apt(name)).collect();
    let transaction = Transaction { install, remove, configure: Vec::new() };
    let affected = Affected::find(&transaction, staged, &database).unwrap();
    let cache = Path::new("/var/data/store");
    Backup::create(&affected, staged, &database, &backup_directory(), cache, &options()).unwrap()
}

/// The directory of [`back_up`].
pub fn backup_directory() -> BackupDirectory {
    BackupDirectory("/var/data/old".into())
}

/// What a rollback to `backup` reads.
pub fn source(backup: &Backup) -> Source<'_> {
    let (directory, frontend) = (backup_directory(), lock::take(lock::FRONTEND, 0).unwrap());
    let record = Recorded::read(&directory).unwrap();
    let new = New { packages: backup.new_packages.as_deref().unwrap_or_default(), staged: None };
    Source::read(backup, directory, new, record, frontend, 0).unwrap()
}

/// Makes a source of packages for apt, with the package `lib`.
pub fn make_source() {
    let deb = Path::new("/srv/source/lib.deb");
    build(&Package::new("lib", "1"), deb);
    let (size, hash) = (fs::metadata(deb).unwrap().len(), sha256(deb).unwrap());
    let index = [
        "Package: lib\nVersion: 1\nArchitecture: all\nMaintainer: x\nFilename: ./lib.deb\n",
        &format!("Size: {size}\nSHA256: {hash}\n"),
    ];
    write("/srv/source/Packages", index.concat());
    write("/etc/apt/sources.list", "deb [trusted=yes] copy:/srv/source ./\n");
    program::change("apt-get").args(["-o", "APT::Sandbox::User=root", "update"]).run().unwrap();
}
