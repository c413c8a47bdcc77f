//! The identity of a directory or file: it differs from another one with the same path.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{fstat, fstatfs};
use serde::{Deserialize, Serialize};

use super::{Dir, failed, require_trusted};

/// The numbers in statfs(2) of file systems whose inode numbers change with a mount: overlayfs, vfat, exfat.
const UNSTABLE: [u64; 3] = [0x794c_7630, 0x4d44, 0x2011_bab0];

/// The number in statfs(2) of FUSE file systems, which users may mount.
const FUSE: u64 = 0x6573_5546;

/// The numbers of device and inode of a directory or file, with the type of its file system and the boot ID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    device: u64,
    inode: u64,
    filesystem: u64,
    boot: String,
}

impl Identity {
    pub(super) fn of(fd: impl AsFd) -> rustix::io::Result<Self> {
        let (stat, filesystem) = (fstat(&fd)?, fstatfs(&fd)?);
        Ok(Self {
            device: stat.st_dev as _,
            inode: stat.st_ino as _,
            filesystem: (filesystem.f_type as u64) & 0xffff_ffff,
            boot: boot(),
        })
    }

    /// Whether `found`, which was read now, is the same directory or file. After a boot, the device number may
    /// differ, because the kernel may find devices in another order.
    pub fn is(&self, found: &Self) -> bool {
        let same_boot = self.boot == found.boot;
        let device = self.device == found.device || (!same_boot && self.filesystem != FUSE);
        let inode = self.inode == found.inode || (!same_boot && UNSTABLE.contains(&self.filesystem));
        device && inode && self.filesystem == found.filesystem
    }
}

/// A directory in the journal: its path and its identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct Known {
    path: PathBuf,
    /// `None` in a journal of a build before the first release, which had paths only.
    identity: Option<Identity>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Path(PathBuf),
    Whole { path: PathBuf, identity: Option<Identity> },
}

impl From<Stored> for Known {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Path(path) => Self { path, identity: None },
            Stored::Whole { path, identity } => Self { path, identity },
        }
    }
}

impl Known {
    /// Records the open directory `dir`.
    pub fn new(dir: &Dir) -> Result<Self> {
        Ok(Self { path: dir.path().to_owned(), identity: Some(dir.identity()?) })
    }

    /// Records the directory `path` in the module's data, which only root may change.
    ///
    /// # Errors
    /// When it does not exist, or others may replace it.
    pub fn own(path: &Path) -> Result<Self> {
        Self::new(&Dir::open_exact(&require_trusted(path)?)?)
    }

    /// A path without identity, from a journal of a build before the first release.
    pub(super) fn unrecorded(path: &Path) -> Self {
        Self { path: path.to_owned(), identity: None }
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the directory, without following a symlink in its path.
    ///
    /// # Errors
    /// When it does not exist, or the path leads to another directory now.
    pub fn open(&self) -> Result<Dir> {
        let dir = Dir::open_exact(&self.path)?;
        self.require(&dir)?;
        Ok(dir)
    }

    /// Whether `dir` is this directory, at any path. A directory without a recorded identity is taken for it.
    pub fn is(&self, dir: &Dir) -> Result<bool> {
        let found = dir.identity()?;
        Ok(self.identity.as_ref().is_none_or(|known| known.is(&found)))
    }

    /// Refuses `dir` if it is another directory.
    pub(super) fn require(&self, dir: &Dir) -> Result<()> {
        let found = dir.identity()?;
        match &self.identity {
            Some(known) if !known.is(&found) => bail!(
                "{} refused: it was replaced after the download: restore the directory of the download, or install again",
                self.path.display()
            ),
            _ => Ok(()),
        }
    }
}

fn boot() -> String {
    let path = "/proc/sys/kernel/random/boot_id";
    fs::read_to_string(path).map(|id| id.trim_end().to_owned()).unwrap_or_default()
}

impl Dir {
    /// Whether the file system of this directory keeps inode numbers across a boot.
    pub fn keeps_inodes(&self) -> Result<bool> {
        Ok(!UNSTABLE.contains(&self.identity()?.filesystem))
    }

    /// The identity of this directory.
    pub fn identity(&self) -> Result<Identity> {
        Identity::of(&self.fd).with_context(|| failed("reading", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::super::mounted::Mounted;
    use super::*;

    #[test]
    fn another_directory_of_the_same_name_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap().join("a");
        fs::create_dir(&path).unwrap();
        let known = Known::new(&Dir::open(&path).unwrap()).unwrap();
        let json = serde_json::to_string(&known).unwrap();
        let known: Known = serde_json::from_str(&json).unwrap();
        known.open().unwrap();
        fs::rename(&path, path.with_file_name("b")).unwrap();
        assert!(known.open().is_err(), "it does not exist");
        fs::create_dir(&path).unwrap();
        let error = format!("{:#}", known.open().map(drop).unwrap_err());
        assert!(error.contains("was replaced"), "{error}");
        fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink("b", &path).unwrap();
        assert!(known.open().is_err(), "a symlink to the same directory");
        fs::remove_file(&path).unwrap();
        fs::rename(path.with_file_name("b"), &path).unwrap();
        known.open().unwrap();
    }

    #[test]
    fn a_boot_may_change_the_device_number_but_not_the_inode_number() {
        let read =
            |device, inode, filesystem, boot: &str| Identity { device, inode, filesystem, boot: boot.to_owned() };
        let before = read(1, 2, 0xef53, "a");
        assert!(before.is(&read(1, 2, 0xef53, "a")));
        assert!(before.is(&read(7, 2, 0xef53, "b")));
        for other in [read(7, 2, 0xef53, "a"), read(1, 3, 0xef53, "b"), read(7, 2, FUSE, "b")] {
            assert!(!before.is(&other), "{other:?}");
        }
        // In linux/magic.h: OVERLAYFS_SUPER_MAGIC, MSDOS_SUPER_MAGIC, EXFAT_SUPER_MAGIC.
        for unstable in [0x794c_7630, 0x4d44, 0x2011_bab0] {
            assert!(read(1, 2, unstable, "a").is(&read(4, 5, unstable, "b")), "{unstable:x}");
        }
        assert!(!read(1, 2, FUSE, "a").is(&read(4, 2, FUSE, "b")));
    }

    #[test]
    fn an_identity_has_the_numbers_of_the_kernel_and_the_boot() {
        let directory = tempfile::tempdir().unwrap();
        let opened = Dir::open(directory.path()).unwrap();
        let identity = opened.identity().unwrap();
        assert_eq!((identity.device, identity.inode), opened.device_and_inode().unwrap());
        // 32 bits, which a kernel of 32 bits may return with a sign.
        assert_eq!(identity.filesystem, u64::from(fstatfs(&opened.fd).unwrap().f_type as u32));
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        assert_eq!(identity.boot, boot.trim_end());
    }

    #[test]
    fn a_known_directory_is_recognized_at_any_path() {
        let directory = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| Dir::make(&directory.path().join(name), 0o700).unwrap());
        let known = Known::new(&one).unwrap();
        let moved = directory.path().join("moved");
        fs::rename(one.path(), &moved).unwrap();
        assert!(known.is(&Dir::open(&moved).unwrap()).unwrap() && !known.is(&other).unwrap());
        assert!(Known::unrecorded(one.path()).is(&other).unwrap(), "it has no identity");
        assert_eq!(known.path(), one.path());
    }

    #[test]
    fn only_some_file_systems_keep_inode_numbers() {
        let proc = Dir::open(Path::new("/proc")).unwrap();
        assert!(proc.keeps_inodes().unwrap() && proc.require_exchange("").is_ok());
        let directory = tempfile::tempdir().unwrap();
        let [lower, upper, point] = ["lower", "upper", "point"].map(|name| directory.path().join(name));
        [&lower, &upper, &point].into_iter().for_each(|path| fs::create_dir(path).unwrap());
        let layers = format!("lowerdir={}:{}", upper.display(), lower.display());
        let Some(_overlay) = Mounted::on(&point, &["-t", "overlay", "overlay", "-o", &layers]) else { return };
        let overlay = Dir::open(&point).unwrap();
        assert!(!overlay.keeps_inodes().unwrap());
        let error = overlay.require_exchange("use another one").unwrap_err().to_string();
        assert!(error.contains("overlayfs") && error.ends_with("use another one"), "{error}");
    }

    #[test]
    fn the_journal_of_version_0_1_0_is_read() {
        let known: Known = serde_json::from_str("\"/srv/app\"").unwrap();
        assert_eq!(known, Known::unrecorded(Path::new("/srv/app")));
    }
}
