//! Trusted paths: those that only root, or the user of this process, can redirect.
//!
//! A module runs as root. A user who can rename a directory of a path, or make a symlink in it, could choose the
//! files that root reads, replaces or removes.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{AtFlags, CWD, FileType, Stat, lgetxattr, statat};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

use super::attributes::ACL_ACCESS;
use super::failed;

/// The largest number of symlinks in a path, as in the kernel.
const SYMLINKS_MAX: u32 = 40;

/// A path without symlinks: the part that exists, and the missing names below it.
pub(super) struct Resolved {
    pub(super) existing: PathBuf,
    pub(super) missing: Vec<OsString>,
    /// Why the path is not trusted: the first component that others may change.
    pub(super) untrusted: Option<String>,
}

impl Resolved {
    /// The whole path.
    pub(super) fn whole(&self) -> PathBuf {
        self.missing.iter().fold(self.existing.clone(), |path, name| path.join(name))
    }
}

/// Resolves the absolute `path`. Symlinks are followed if only root, or the user of this process, can have made them.
///
/// # Errors
/// For a relative path, a dangling symlink, a symlink of another user, and a file on the way.
pub(super) fn follow(path: &Path) -> Result<Resolved> {
    ensure!(path.is_absolute(), "invalid path {path:?}: not an absolute path");
    let mut at = Resolved { existing: "/".into(), missing: Vec::new(), untrusted: None };
    let mut ahead: Vec<OsString> = names(path).rev().collect();
    let mut symlinks_left = SYMLINKS_MAX;
    // Symlinks whose targets are being resolved, with the number of names after them.
    let mut open: Vec<(PathBuf, usize)> = Vec::new();
    while let Some(name) = ahead.pop() {
        if name.as_bytes() == b".." {
            ensure!(at.missing.is_empty(), "{} does not exist: {} is invalid", at.whole().display(), path.display());
            at.existing.pop();
            continue;
        }
        if !at.missing.is_empty() {
            at.missing.push(name);
            continue;
        }
        let next = at.existing.join(&name);
        let Some(found) = stat(&next)? else {
            if let Some((symlink, _)) = open.first() {
                bail!("{} refused: dangling symlink: make its target, or remove it", symlink.display());
            }
            at.missing.push(name);
            continue;
        };
        let changeable = changeable_entry(&at.existing, &found)?;
        if FileType::from_raw_mode(found.st_mode) == FileType::Symlink {
            if let Some(reason) = changeable {
                bail!("{} refused: it is a symlink, and {reason}, or name its target instead", next.display());
            }
            let fewer = symlinks_left.checked_sub(1);
            symlinks_left = fewer.with_context(|| format!("{} refused: too many symlinks", path.display()))?;
            let target = fs::read_link(&next).with_context(|| failed("reading the symlink", &next))?;
            if target.is_absolute() {
                at.existing = "/".into();
            }
            open.push((next, ahead.len()));
            ahead.extend(names(&target).rev());
        } else {
            at.untrusted = at.untrusted.or(changeable);
            at.existing = next;
        }
        open.retain(|(_, behind)| *behind < ahead.len());
    }
    Ok(at)
}

/// Returns `path` without symlinks, and refuses it if others than root and the user of this process may redirect it:
/// as owners of it or of a directory above it, or by permissions. It may not exist.
///
/// # Errors
/// When others may, with the directory or file, and the remedy.
pub fn require_trusted(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path).with_context(|| failed("resolving", path))?;
    let resolved = follow(&path)?;
    if let Some(reason) = resolved.untrusted {
        bail!("{} refused: not trusted: {reason}", path.display());
    }
    if let Some(found) = stat(&resolved.existing)? {
        if let Some(reason) = changeable_itself(&resolved.existing, &found) {
            bail!("{} refused: not trusted: {reason}", path.display());
        }
    }
    Ok(resolved.whole())
}

/// Why others may replace the entry `found` of `directory`, if they may.
fn changeable_entry(directory: &Path, found: &Stat) -> Result<Option<String>> {
    let Some(above) = stat(directory)? else { return Ok(None) };
    // In a sticky directory, such as /tmp, only its owner and the owner of the entry can.
    let sticky = above.st_mode & 0o1000 != 0 && is_ours(above.st_uid) && is_ours(found.st_uid);
    Ok(if sticky { None } else { changeable_itself(directory, &above) })
}

/// Why others may change `path`, with the metadata `found`, if they may.
pub(super) fn changeable_itself(path: &Path, found: &Stat) -> Option<String> {
    let (owner, group, mode) = (found.st_uid, found.st_gid, found.st_mode & 0o7777);
    let by_group = mode & 0o020 != 0 && group != 0 && group != getegid().as_raw();
    if !is_ours(owner) || by_group || mode & 0o002 != 0 {
        return Some(format!(
            "others may change {} (owner {owner}, group {group}, mode {mode:04o}): run chown root:root and chmod go-w on it",
            path.display()
        ));
    }
    // With an ACL, the mode of the group is the mask: what the entries allow at most.
    // An ACL does not fit into the buffer: the error is ERANGE.
    let has_acl = || !matches!(lgetxattr(path, ACL_ACCESS, &mut [0; 1]), Err(Errno::NODATA | Errno::OPNOTSUPP));
    (mode & 0o020 != 0 && has_acl())
        .then(|| format!("others may change {} by its ACL: run setfacl --remove-all on it", path.display()))
}

fn is_ours(owner: u32) -> bool {
    [0, geteuid().as_raw()].contains(&owner)
}

fn stat(path: &Path) -> Result<Option<Stat>> {
    match statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error).with_context(|| failed("reading", path)),
    }
}

fn names(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    let name = |part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsStr::new("..").to_owned()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};

    use rustix::fs::{XattrFlags, removexattr, setxattr};

    use super::*;

    fn refusal(path: &Path) -> String {
        require_trusted(path).map_or_else(|error| format!("{error:#}"), |path| format!("accepted: {}", path.display()))
    }

    #[test]
    fn a_path_that_others_may_change_is_not_trusted() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir_all(path("a/b")).unwrap();
        fs::write(path("a/b/settings"), "").unwrap();
        assert!(refusal(&path("a/b/settings")).starts_with("accepted"), "{}", refusal(&path("a/b/settings")));
        assert!(refusal(&path("a/b/missing/x")).starts_with("accepted"));
        for (name, mode) in [("a/b/settings", 0o666), ("a/b/settings", 0o646), ("a", 0o757), ("a/b", 0o777)] {
            let before = fs::metadata(path(name)).unwrap().permissions();
            fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
            let refused = refusal(&path("a/b/settings"));
            assert!(refused.contains(path(name).to_str().unwrap()) && refused.contains("chmod"), "{name}: {refused}");
            fs::set_permissions(path(name), before).unwrap();
        }
        if !geteuid().is_root() {
            return eprintln!("skipped: owners: needs root");
        }
        for name in ["a/b/settings", "a/b", "a"] {
            chown(path(name), Some(33), None).unwrap();
            let refused = refusal(&path("a/b/settings"));
            assert!(refused.contains("owner 33") && refused.contains("chown"), "{name}: {refused}");
            chown(path(name), Some(0), None).unwrap();
        }
        for (name, mode) in [("a/b/settings", 0o664), ("a/b", 0o775), ("a", 0o775)] {
            let before = fs::metadata(path(name)).unwrap().permissions();
            chown(path(name), None, Some(33)).unwrap();
            fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
            let refused = refusal(&path("a/b/settings"));
            assert!(refused.contains("group 33") && refused.contains("chown"), "{name}: {refused}");
            fs::set_permissions(path(name), before).unwrap();
            assert!(refusal(&path("a/b/settings")).starts_with("accepted"), "{name}: the group may not write");
        }
    }

    #[test]
    fn a_path_that_an_acl_lets_others_change_is_not_trusted() {
        if !geteuid().is_root() {
            return eprintln!("skipped: needs root: the group of another user's directory does not count");
        }
        let directory = tempfile::tempdir().unwrap();
        let (above, path) = (directory.path().join("a"), directory.path().join("a/settings"));
        fs::create_dir(&above).unwrap();
        fs::write(&path, "").unwrap();
        for changed in [&above, &path] {
            let acl = |permissions, mask| {
                // As `setfacl --modify user:33:PERMISSIONS,mask::MASK`: the mask is the group's mode.
                let entries = [
                    (1u16, 7u16, u32::MAX),
                    (2, permissions, 33),
                    (4, 5, u32::MAX),
                    (16, mask, u32::MAX),
                    (32, 5, u32::MAX),
                ];
                let mut acl = 2u32.to_le_bytes().to_vec();
                for (tag, permissions, id) in entries {
                    acl.extend(tag.to_le_bytes());
                    acl.extend(permissions.to_le_bytes());
                    acl.extend(id.to_le_bytes());
                }
                setxattr(changed, ACL_ACCESS, &acl, XattrFlags::empty())
            };
            if acl(7, 7) == Err(Errno::OPNOTSUPP) {
                return eprintln!("skipped: this file system has no ACLs");
            }
            let refused = refusal(&path);
            assert!(refused.contains(changed.to_str().unwrap()) && refused.contains("setfacl"), "{refused}");
            acl(7, 5).unwrap();
            assert!(refusal(&path).starts_with("accepted"), "the mask allows no writing: {}", refusal(&path));
            removexattr(changed, ACL_ACCESS).unwrap();
            fs::set_permissions(changed, fs::Permissions::from_mode(0o755)).unwrap();
            assert!(refusal(&path).starts_with("accepted"), "{}", refusal(&path));
        }
    }

    #[test]
    fn a_symlink_of_another_user_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("target")).unwrap();
        fs::create_dir(path("open")).unwrap();
        symlink("../target", path("open/link")).unwrap();
        symlink("target", path("link")).unwrap();
        assert_eq!(follow(&path("open/link")).unwrap().whole(), path("target").canonicalize().unwrap());
        assert_eq!(follow(&path("link/x/y")).unwrap().missing, ["x", "y"]);
        fs::set_permissions(path("open"), fs::Permissions::from_mode(0o777)).unwrap();
        let refused = format!("{:#}", follow(&path("open/link/x")).map(drop).unwrap_err());
        assert!(refused.contains("is a symlink") && refused.contains("open"), "{refused}");
        // As /var/tmp: everybody may make a symlink, and only its owner may replace it.
        fs::set_permissions(path("open"), fs::Permissions::from_mode(0o1777)).unwrap();
        assert_eq!(follow(&path("open/link")).unwrap().whole(), path("target").canonicalize().unwrap());
        if !geteuid().is_root() {
            return eprintln!("skipped: owners: needs root");
        }
        lchown(path("open/link"), Some(33), None).unwrap();
        let refused = format!("{:#}", follow(&path("open/link/x")).map(drop).unwrap_err());
        assert!(refused.contains("is a symlink") && refused.contains("open"), "{refused}");
    }

    #[test]
    fn symlinks_without_an_end_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for (name, target) in [("itself", "itself"), ("one", "other/x"), ("other", "one")] {
            symlink(target, path(name)).unwrap();
        }
        for name in ["itself", "itself/below", "one", "other/x"] {
            let refused = format!("{:#}", follow(&path(name)).map(drop).unwrap_err());
            assert!(refused.contains("too many symlinks"), "{name}: {refused}");
        }
    }

    #[test]
    fn a_group_of_root_or_of_this_process_may_write() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("settings");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
        assert!(refusal(&path).starts_with("accepted"), "{}", refusal(&path));
    }

    #[test]
    fn a_path_may_have_as_many_symlinks_as_in_the_kernel() {
        let directory = tempfile::tempdir().unwrap();
        // Symlinks above the directory would count, too.
        let root = directory.path().canonicalize().unwrap();
        let path = |number: u32| root.join(number.to_string());
        fs::write(path(0), "").unwrap();
        (0..=SYMLINKS_MAX).for_each(|number| symlink(path(number), path(number + 1)).unwrap());
        assert_eq!(follow(&path(SYMLINKS_MAX)).unwrap().whole(), path(0));
        assert!(follow(&path(SYMLINKS_MAX + 1)).is_err() && fs::metadata(path(SYMLINKS_MAX + 1)).is_err());
    }
}
