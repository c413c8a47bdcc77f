//! The staging directory, while the payload streams into it.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use mender_update_module::durable::{self, Dir};
use mender_update_module::{FileName, Payload};
use tar::EntryType;

use crate::payload::tar_reader::{self, Origin};

/// The beginning of a Debian package, which is an `ar` archive.
const DEB_MAGIC: &[u8; 8] = b"!<arch>\n";

/// The size of the header of a tar archive.
pub const TAR_HEADER: usize = 512;

/// The magic value of a tar archive, and its offset in the header.
const TAR_MAGIC: (usize, &[u8]) = (257, b"ustar");

/// Bytes that are read at a time: the capacity of a FIFO.
const BUFFER: usize = 64 << 10;

/// The format of a payload file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A Debian package.
    Package,
    /// A tar archive of packages.
    Archive,
}

impl Format {
    /// The format of the payload file `name` that begins with `head`.
    ///
    /// # Errors
    /// When it has neither format.
    pub fn of(head: &[u8], name: &FileName) -> Result<Self> {
        if head.starts_with(DEB_MAGIC) {
            return Ok(Self::Package);
        }
        let is_tar = head.get(TAR_MAGIC.0..).is_some_and(|rest| rest.starts_with(TAR_MAGIC.1));
        ensure!(is_tar, "invalid payload file {name}: neither a Debian package nor a tar archive of packages");
        Ok(Self::Archive)
    }
}

/// Calls `take` with the path, size and content of every package in a tar archive, which may have directories and no
/// other files.
pub fn each_package(archive: impl Read, mut take: impl FnMut(&str, u64, &mut dyn Read) -> Result<()>) -> Result<()> {
    tar_reader::read(archive, Origin::Payload, |entry| {
        if entry.kind == EntryType::Directory {
            return Ok(());
        }
        let path = Path::new(OsStr::from_bytes(&entry.name));
        let shown = path.display().to_string();
        ensure!(entry.kind == EntryType::Regular, "invalid archive: {shown}: not a regular file");
        ensure!(path.extension().is_some_and(|name| name == "deb"), "invalid archive: {shown}: not a .deb file");
        take(&shown, entry.size, entry.content)
    })
}

/// Refuses an artifact that neither installs nor removes a package.
pub fn require_packages(installed: usize, removes: bool) -> Result<()> {
    ensure!(
        installed > 0 || removes,
        "invalid artifact: no packages: add a package to install, or name one to remove under remove in the meta-data"
    );
    Ok(())
}

/// The staging directory of one update.
pub struct Staging {
    directory: Dir,
    reserve: u64,
    packages: usize,
}

impl Staging {
    /// Creates an empty staging directory at `path`. At least `reserve` bytes will stay free.
    pub fn create(path: &Path, reserve: u64) -> Result<Self> {
        durable::remove_tree(path)?;
        durable::make_dirs(path)?;
        Ok(Self { directory: Dir::make(path, 0o700)?, reserve, packages: 0 })
    }

    /// The number of packages that were received.
    pub fn packages(&self) -> usize {
        self.packages
    }

    /// Writes one file of the payload, a package or a tar archive of packages, to the directory.
    ///
    /// # Errors
    /// When the file is neither, is truncated, or does not fit.
    pub fn receive(&mut self, mut payload: Payload) -> Result<()> {
        let name = payload.name.clone();
        let staging = || format!("staging {name} failed");
        let (announced, directory) = (payload.size, self.directory.reopen()?);
        let mut content = payload.with_space_checked(&directory, self.reserve).with_context(staging)?;
        let mut head = Vec::new();
        (&mut content).take(TAR_HEADER as u64).read_to_end(&mut head).with_context(staging)?;
        let format = Format::of(&head, &name)?;
        let content = head.as_slice().chain(content);
        match format {
            Format::Package => {
                let read = self.receive_package(content).with_context(staging)?;
                ensure!(
                    announced.is_none_or(|size| size == read),
                    "invalid payload file {name}: {read} bytes instead of the {} that the artifact announces",
                    announced.unwrap_or_default()
                );
                Ok(())
            }
            Format::Archive => self.receive_archive(content).with_context(staging),
        }
    }

    /// Writes every package in a tar archive.
    fn receive_archive(&mut self, content: impl Read) -> Result<()> {
        each_package(content, |shown, size, content| {
            self.directory.check_space(size, self.reserve)?;
            let read =
                self.receive_package(content).with_context(|| format!("reading {shown} in the archive failed"))?;
            ensure!(read == size, "invalid archive: {shown}: truncated");
            Ok(())
        })
    }

    /// Writes one package under a number. Its real name is read only after the client has checked the
    /// payload.
    fn receive_package(&mut self, mut content: impl Read) -> Result<u64> {
        self.packages += 1;
        let name = FileName::new(format!("{}.deb", self.packages))?;
        let mut file = self.directory.create_file(&name)?;
        let mut buffer = vec![0; BUFFER];
        let mut total = 0_u64;
        loop {
            let read = content.read(&mut buffer)?;
            if read == 0 {
                return Ok(total);
            }
            total = total.saturating_add(read as u64);
            file.write_all(&buffer[..read]).with_context(|| {
                let path = self.directory.path().join(&name);
                format!("writing {} (if the file system is full, free some space)", path.display())
            })?;
        }
    }

    /// Makes all that was received durable.
    pub fn sync(&self) -> Result<()> {
        self.directory.sync_filesystem()
    }
}

#[cfg(test)]
mod tests {
    use mender_update_module_test::failing_storage::FailingStorage;

    use super::*;
    use crate::test_device::{error, tar};

    const FILE: EntryType = EntryType::Regular;

    #[test]
    fn the_format_of_a_payload_file_is_recognized() {
        let of = |head: &[u8]| Format::of(head, &FileName::new("x").unwrap());
        assert_eq!(of(b"!<arch>\ndebian").unwrap(), Format::Package);
        assert_eq!(of(&tar(&[(FILE, "a.deb", b"")])).unwrap(), Format::Archive);
        for other in [&b""[..], b"!<arch>", &[0; 512], b"ustar"] {
            assert!(error(of(other)).contains("payload file \"x\""));
        }
    }

    #[test]
    fn archives_have_packages_and_directories() {
        let packages = |entries: &[(EntryType, &str, &[u8])]| {
            let mut found = Vec::new();
            each_package(&tar(entries)[..], |name, size, _| {
                found.push(format!("{name} {size}"));
                Ok(())
            })?;
            anyhow::Ok(found)
        };
        let found = packages(&[(EntryType::Directory, "d.deb/", b""), (FILE, "d.deb/a.deb", b"12")]).unwrap();
        assert_eq!(found, ["d.deb/a.deb 2"]);
        assert!(error(packages(&[(FILE, "a.txt", b"")])).contains("a.txt: not a .deb file"));
        assert!(error(packages(&[(EntryType::Symlink, "a.deb", b"")])).contains("a.deb: not a regular file"));
    }

    #[test]
    fn an_artifact_installs_or_removes_something() {
        require_packages(1, false).unwrap();
        require_packages(0, true).unwrap();
        assert!(require_packages(0, false).is_err());
    }

    #[test]
    fn received_packages_are_numbered() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("staging");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("leftover"), "").unwrap();
        let mut staging = Staging::create(&path, 0).unwrap();
        assert_eq!(staging.packages(), 0);
        let large = vec![7; BUFFER + 1];
        assert_eq!(staging.receive_package(&large[..]).unwrap(), large.len() as u64);
        let archive = tar(&[(FILE, "x.deb", b"12"), (FILE, "y.deb", b"345")]);
        staging.receive_archive(&archive[..]).unwrap();
        assert_eq!(staging.packages(), 3);
        let content = |name: &str| std::fs::read(path.join(name)).unwrap();
        assert_eq!([content("1.deb"), content("2.deb"), content("3.deb")], [large, b"12".into(), b"345".into()]);
        assert!(!path.join("leftover").exists());
        staging.reserve = u64::MAX;
        assert!(error(staging.receive_archive(&archive[..])).contains("not enough space"));
        staging.reserve = 0;
        assert!(error(staging.receive_archive(&archive[..513])).contains("x.deb: truncated"));
    }

    #[test]
    fn a_lost_write_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let mounted = directory.path().join("mounted");
        std::fs::create_dir(&mounted).unwrap();
        let Some(storage) = FailingStorage::mount(&mounted) else { return };
        let staging = Staging::create(&mounted.join("staging"), 0).unwrap();
        staging.sync().unwrap();
        storage.lose_a_write().and_then(|()| storage.repair()).unwrap();
        assert!(staging.sync().is_err());
    }
}
