//! Attributes of files: owner, permissions, modification time, extended attributes.

use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// The limit of Linux for one extended attribute, and for the list of their names, in bytes.
const XATTR_SIZE_MAX: usize = 64 << 10;

/// The attribute with the ACL of a file.
pub(super) const ACL_ACCESS: &str = "system.posix_acl_access";

/// The attribute with the ACL that everything new in a directory inherits.
const ACL_DEFAULT: &str = "system.posix_acl_default";

/// Removes the ACLs of the open file or directory `fd`.
pub(super) fn remove_acls(fd: impl AsFd) -> io::Result<()> {
    [ACL_ACCESS, ACL_DEFAULT].into_iter().try_for_each(|name| absent_or(fs::fremovexattr(&fd, name)))
}

/// The result of removing an extended attribute that may not exist.
fn absent_or(removed: rustix::io::Result<()>) -> io::Result<()> {
    match removed {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether a file has an extended attribute, by the result of reading its size.
fn has_attribute(size: rustix::io::Result<usize>) -> io::Result<bool> {
    match size {
        Ok(_) => Ok(true),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The times of last access and last modification, in seconds and nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    pub(super) accessed: (i64, i64),
    pub(super) modified: (i64, i64),
}

impl Times {
    /// The time `modified`, in seconds and nanoseconds since 1970, for both.
    pub fn at(modified: (i64, i64)) -> Self {
        Self { accessed: modified, modified }
    }

    pub(super) fn timestamps(self) -> Timestamps {
        let timespec = |(seconds, nanoseconds)| Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
        Timestamps { last_access: timespec(self.accessed), last_modification: timespec(self.modified) }
    }
}

/// Owner, group, permissions, modification time and extended attributes of a file, directory, symlink or device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// The user ID.
    pub owner: u32,
    /// The group ID.
    pub group: u32,
    /// The permissions with set-ID and sticky bits; ignored for a symlink.
    pub mode: u32,
    /// The modification time, in seconds and nanoseconds since 1970.
    pub modified: (i64, i64),
    /// The names, such as `security.capability`, and values of extended attributes, including POSIX ACLs.
    pub extended: Vec<(OsString, Vec<u8>)>,
}

impl Attributes {
    /// The attributes of the open file or directory `fd`.
    pub(super) fn of(fd: impl AsFd) -> io::Result<Self> {
        let stat = fs::fstat(&fd)?;
        let mut extended = Vec::new();
        let mut names = vec![0; XATTR_SIZE_MAX];
        let length = match fs::flistxattr(&fd, &mut names) {
            Err(Errno::NOTSUP) => 0,
            length => length?,
        };
        for name in names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
            let mut value = vec![0; XATTR_SIZE_MAX];
            let length = fs::fgetxattr(&fd, name, &mut value)?;
            value.truncate(length);
            extended.push((OsString::from_vec(name.to_vec()), value));
        }
        Ok(Self {
            owner: stat.st_uid,
            group: stat.st_gid,
            mode: stat.st_mode & 0o7777,
            modified: (stat.st_mtime as _, stat.st_mtime_nsec as _),
            extended,
        })
    }

    /// The attributes of a symlink, which has no extended attributes of users.
    pub(super) fn of_symlink(meta: &Metadata) -> Self {
        Self {
            owner: meta.uid(),
            group: meta.gid(),
            mode: meta.mode() & 0o7777,
            modified: (meta.mtime(), meta.mtime_nsec()),
            extended: Vec::new(),
        }
    }

    /// Sets the attributes of the open file or directory `fd`, and removes an ACL that is not among them: everything
    /// new in a directory with a default ACL inherits one. The owner comes first, because changing it clears set-ID
    /// bits and capabilities; the time comes last, because other changes may set it.
    pub(super) fn set_on(&self, fd: impl AsFd) -> io::Result<()> {
        require_account(self.owner, self.group)?;
        fs::fchown(&fd, Some(Uid::from_raw(self.owner)), Some(Gid::from_raw(self.group)))?;
        for name in self.absent_acls() {
            if has_attribute(fs::fgetxattr(&fd, name, &mut [0; 0]))? {
                absent_or(fs::fremovexattr(&fd, name))?;
            }
        }
        fs::fchmod(&fd, Mode::from_raw_mode(self.mode))?;
        for (name, value) in &self.extended {
            fs::fsetxattr(&fd, name.as_os_str(), value, XattrFlags::empty()).map_err(|error| named(name, error))?;
        }
        Ok(fs::futimens(&fd, &self.timestamps())?)
    }

    /// As [`set_on`](Self::set_on), of `name` in the open directory `directory`, without following a symlink.
    pub(super) fn set_at(&self, directory: impl AsFd, name: &Path) -> io::Result<()> {
        require_account(self.owner, self.group)?;
        let (owner, group) = (Some(Uid::from_raw(self.owner)), Some(Gid::from_raw(self.group)));
        fs::chownat(&directory, name, owner, group, AtFlags::SYMLINK_NOFOLLOW)?;
        // No system call sets extended attributes relative to a directory: use its link in /proc.
        let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd())).join(name);
        let stat = fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            for acl in self.absent_acls() {
                if has_attribute(fs::lgetxattr(&path, acl, &mut [0; 0]))? {
                    absent_or(fs::lremovexattr(&path, acl))?;
                }
            }
            fs::chmodat(&directory, name, Mode::from_raw_mode(self.mode), AtFlags::empty())?;
        }
        for (name, value) in &self.extended {
            fs::lsetxattr(&path, name.as_os_str(), value, XattrFlags::empty()).map_err(|error| named(name, error))?;
        }
        Ok(fs::utimensat(&directory, name, &self.timestamps(), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// The names of the ACLs that are not among the attributes.
    fn absent_acls(&self) -> impl Iterator<Item = &'static str> {
        let is_absent = |acl: &&str| self.extended.iter().all(|(name, _)| name != *acl);
        [ACL_ACCESS, ACL_DEFAULT].into_iter().filter(is_absent)
    }

    fn timestamps(&self) -> Timestamps {
        let (seconds, nanoseconds) = self.modified;
        Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ },
        }
    }
}

/// Refuses the number that means "unchanged" to the kernel: the file would stay with root.
pub(super) fn require_account(owner: u32, group: u32) -> io::Result<()> {
    if owner == u32::MAX || group == u32::MAX {
        let text = format!("invalid owner or group {}: use another number", u32::MAX);
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(())
}

fn named(attribute: &OsStr, error: Errno) -> io::Error {
    let error = io::Error::from(error);
    io::Error::new(error.kind(), format!("extended attribute {}: {error}", attribute.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::process::geteuid;

    use super::super::Dir;
    use super::*;
    use crate::name::FileName;

    #[test]
    fn an_acl_that_cannot_be_read_is_not_taken_for_none() {
        assert!(has_attribute(Ok(44)).unwrap());
        assert!(!has_attribute(Err(Errno::NODATA)).unwrap() && !has_attribute(Err(Errno::OPNOTSUPP)).unwrap());
        assert!(has_attribute(Err(Errno::IO)).is_err());
    }

    #[test]
    fn an_attribute_that_the_file_system_does_not_support_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let directory = Dir::open(directory.path()).unwrap();
        let [file, link] = ["file", "link"].map(|name| FileName::new(name).unwrap());
        let opened = directory.create_file(&file).unwrap();
        directory.symlink(&link, Path::new("file")).unwrap();
        // Linux has no such namespace: it returns the error of a file system without extended attributes.
        let extended = vec![(OsString::from("none.origin"), b"factory".to_vec())];
        let attributes = Attributes { extended, ..directory.attributes().unwrap() };
        for set in [
            directory.set_attributes(&attributes),
            directory.set_attributes_of_file(&file, &opened, &attributes),
            directory.set_attributes_of_name(&link, &attributes),
        ] {
            let error = format!("{:#}", set.unwrap_err());
            assert!(error.contains("extended attribute none.origin"), "{error}");
        }
    }

    #[test]
    fn an_acl_that_cannot_be_removed_is_an_error() {
        for absent in [Ok(()), Err(Errno::NODATA), Err(Errno::OPNOTSUPP)] {
            absent_or(absent).unwrap();
        }
        assert!(absent_or(Err(Errno::IO)).is_err());
    }

    #[test]
    fn the_attributes_of_a_symlink_are_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("link");
        symlink("target", &path).unwrap();
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let expected = Attributes {
            owner: meta.uid(),
            group: meta.gid(),
            mode: 0o777,
            modified: (meta.mtime(), meta.mtime_nsec()),
            extended: Vec::new(),
        };
        assert_eq!(Attributes::of_symlink(&meta), expected);
    }

    /// The entries of an ACL that lets the user of this process read: version, and tag, permissions and ID of each
    /// (acl(5)). A user namespace may have no other user.
    fn acl() -> Vec<u8> {
        let user = geteuid().as_raw();
        let entries = [(1_u16, 7_u16, u32::MAX), (2, 4, user), (4, 5, u32::MAX), (16, 5, u32::MAX), (32, 5, u32::MAX)];
        let entries = entries.map(|(tag, permissions, id)| {
            [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
        });
        [&2_u32.to_le_bytes()[..], &entries.concat()].concat()
    }

    #[test]
    fn acls_that_are_not_among_the_attributes_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let parent = Dir::open(directory.path()).unwrap();
        let name = FileName::new("directory").unwrap();
        let made = parent.make_child(&name, 0o700).unwrap();
        let without = made.attributes().unwrap();
        assert!(without.absent_acls().eq([ACL_ACCESS, ACL_DEFAULT]));
        let with_one = Attributes { extended: vec![(ACL_ACCESS.into(), acl())], ..without.clone() };
        assert!(with_one.absent_acls().eq([ACL_DEFAULT]));
        for remove in [
            &(|| made.set_attributes(&without)) as &dyn Fn() -> anyhow::Result<()>,
            &|| parent.set_attributes_of_name(&name, &without),
            &|| made.remove_acls(),
        ] {
            for acl_name in [ACL_ACCESS, ACL_DEFAULT] {
                if fs::fsetxattr(&made.fd, acl_name, &acl(), XattrFlags::empty()) == Err(Errno::OPNOTSUPP) {
                    return eprintln!("skipped: this file system has no ACLs");
                }
            }
            let with = made.attributes().unwrap();
            let names: Vec<_> = with.extended.iter().map(|(name, _)| name.to_str().unwrap()).collect();
            assert!(names.contains(&ACL_ACCESS) && names.contains(&ACL_DEFAULT), "{names:?}");
            assert_eq!(with.absent_acls().count(), 0);
            made.set_attributes(&with).unwrap();
            assert_eq!(made.attributes().unwrap().extended, with.extended, "they are among the attributes");
            remove().unwrap();
            assert_eq!(made.attributes().unwrap().extended, without.extended);
        }
    }

    #[test]
    fn the_permissions_of_a_named_file_are_set() {
        let directory = tempfile::tempdir().unwrap();
        let parent = Dir::open(directory.path()).unwrap();
        let name = FileName::new("file").unwrap();
        let file = parent.create_file(&name).unwrap();
        let attributes = Attributes { mode: 0o640, ..Attributes::of(&file).unwrap() };
        parent.set_attributes_of_name(&name, &attributes).unwrap();
        assert_eq!(Attributes::of(&file).unwrap(), attributes);
    }
}
