//! Restores one path from its recorded state.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use mender_update_module::durable::{self, Attributes, Dir, parent_and_name};

use crate::backup::path_state::PathState;

/// Restores `path` as far as that needs no content of files. An empty directory in its place is removed.
pub fn restore(path: &Path, previous: &PathState) -> Result<()> {
    let now = PathState::read(path)?;
    if previous.difference(&now, path)?.is_none() {
        return Ok(());
    }
    match (previous, &now) {
        (PathState::File { attributes, .. }, PathState::File { attributes: attributes_now, .. }) => {
            remove_new_xattrs(path, attributes, attributes_now)?;
            durable::set_attributes(path, attributes)
        }
        (PathState::Node { attributes, kind, device }, PathState::Node { kind: kind_now, device: device_now, .. })
            if (kind, device) == (kind_now, device_now) =>
        {
            let (parent, name) = parent_and_name(path)?;
            Dir::open(parent)?.set_attributes_of_name(&name, attributes)
        }
        (PathState::Directory { attributes, .. }, PathState::Directory { attributes: attributes_now, .. }) => {
            remove_new_xattrs(path, attributes, attributes_now)?;
            let attributes = Attributes { modified: attributes_now.modified, ..attributes.clone() };
            Dir::open(path)?.set_attributes(&attributes)
        }
        (PathState::Directory { attributes, .. }, _) => {
            remove_replacement(path, &now)?;
            durable::make_dirs(path)?.set_attributes(attributes)
        }
        (PathState::Symlink { attributes, target, .. }, _) => {
            remove_replacement(path, &now)?;
            let (parent, name) = parent_and_name(path)?;
            let parent = durable::make_dirs(parent)?;
            parent.symlink(&name, target)?;
            parent.set_attributes_of_name(&name, attributes)?;
            parent.sync()
        }
        // The copy or the package has the content of a file.
        _ => Ok(()),
    }
}

/// Removes the extended attributes of `path` that it has `now` and did not have `before`.
fn remove_new_xattrs(path: &Path, before: &Attributes, now: &Attributes) -> Result<()> {
    for (name, _) in &now.extended {
        if before.extended.iter().any(|(own, _)| own == name) {
            continue;
        }
        rustix::fs::lremovexattr(path, name.as_os_str()).with_context(|| {
            format!("removing the extended attribute {} of {}", name.to_string_lossy(), path.display())
        })?;
    }
    Ok(())
}

/// Removes `now`, what is at `path` in the place of something else.
fn remove_replacement(path: &Path, now: &PathState) -> Result<()> {
    match now {
        PathState::Directory { .. } => {
            durable::remove_empty_dir(path)?;
            ensure!(!durable::exists(path)?, "replacing {} failed: it is a directory and not empty", path.display());
            Ok(())
        }
        _ => durable::remove_file(path),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use rustix::fs::{CWD, FileType, Mode, XattrFlags, setxattr};

    use super::*;
    use crate::test_device::error;

    /// The state of `path`, and what changes it.
    fn restored(path: &Path, change: impl FnOnce()) -> (PathState, PathState) {
        let before = PathState::read(path).unwrap();
        change();
        restore(path, &before).unwrap();
        (before, PathState::read(path).unwrap())
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn make_fifo(path: &Path) {
        rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    }

    #[test]
    fn attributes_of_files_directories_and_nodes_are_restored() {
        let top = tempfile::tempdir().unwrap();
        let [file, directory, fifo] = ["file", "directory", "fifo"].map(|name| top.path().join(name));
        fs::write(&file, "1").unwrap();
        fs::create_dir(&directory).unwrap();
        make_fifo(&fifo);
        for path in [&file, &fifo] {
            let (before, now) = restored(path, || set_mode(path, 0o700));
            assert_eq!(now, before);
        }
        let changed = (1, 2);
        let (before, now) = restored(&directory, || {
            let attributes = Dir::open(&directory).unwrap().attributes().unwrap();
            let attributes = Attributes { mode: 0o700, modified: changed, ..attributes };
            Dir::open(&directory).unwrap().set_attributes(&attributes).unwrap();
        });
        let (PathState::Directory { attributes: before, .. }, PathState::Directory { attributes: now, .. }) =
            (before, now)
        else {
            panic!("no directory");
        };
        assert_eq!((now.mode, now.modified), (before.mode, changed), "the times of directories are restored later");
    }

    #[test]
    fn new_extended_attributes_are_removed_and_previous_ones_restored() {
        let top = tempfile::tempdir().unwrap();
        let [file, directory] = ["file", "directory"].map(|name| top.path().join(name));
        fs::write(&file, "").unwrap();
        fs::create_dir(&directory).unwrap();
        let set = |path: &Path, name: &str, value: &[u8]| setxattr(path, name, value, XattrFlags::empty());
        if let Err(error) = set(&file, "user.before", b"1") {
            return eprintln!("skipped: extended attributes: {error}");
        }
        set(&directory, "user.before", b"1").unwrap();
        for path in [&file, &directory] {
            let (before, now) = restored(path, || {
                set(path, "user.before", b"2").unwrap();
                set(path, "user.new", b"").unwrap();
            });
            assert_eq!(now, before);
        }
    }

    #[test]
    fn directories_and_symlinks_replace_what_is_in_their_place() {
        let top = tempfile::tempdir().unwrap();
        let [directory, link] = ["above/directory", "above/link"].map(|name| top.path().join(name));
        fs::create_dir_all(&directory).unwrap();
        set_mode(&directory, 0o711);
        symlink("target", &link).unwrap();
        for path in [&directory, &link] {
            let remove = || if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) }.unwrap();
            let (before, now) = restored(path, remove);
            assert_eq!(now, before, "absent");
            let (before, now) = restored(path, || {
                remove();
                fs::write(path, "").unwrap();
            });
            assert_eq!(now, before, "a file in its place");
        }
        let (before, now) = restored(&link, || {
            fs::remove_file(&link).unwrap();
            fs::create_dir(&link).unwrap();
        });
        assert_eq!(now, before, "an empty directory in its place");
        for path in [&directory, &link] {
            durable::make_dirs(&directory).unwrap();
            restore(&link, &now).unwrap();
            let (before, now) = restored(path, || fs::remove_dir_all(top.path().join("above")).unwrap());
            assert_eq!(now, before, "the directory above is absent");
        }
        let before = PathState::read(&link).unwrap();
        fs::remove_file(&link).unwrap();
        fs::create_dir_all(link.join("full")).unwrap();
        assert!(error(restore(&link, &before)).contains("above/link failed: it is a directory and not empty"));
    }

    #[test]
    fn contents_and_other_nodes_are_left_alone() {
        let top = tempfile::tempdir().unwrap();
        let [file, node] = ["file", "node"].map(|name| top.path().join(name));
        fs::write(&file, "").unwrap();
        let (_, now) = restored(&file, || fs::remove_file(&file).unwrap());
        assert_eq!(now, PathState::Absent);
        make_fifo(&node);
        let mut before = PathState::read(&node).unwrap();
        if let PathState::Node { kind, .. } = &mut before {
            *kind = 0o140_000; // a socket
        }
        set_mode(&node, 0o644);
        let changed = PathState::read(&node).unwrap();
        restore(&node, &before).unwrap();
        assert_eq!(PathState::read(&node).unwrap(), changed);
    }
}
