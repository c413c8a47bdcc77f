//! Restores the directories, and the symlinks to directories, before dpkg installs the previous packages:
//! dpkg follows these or leaves them alone.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use mender_update_module::durable::{self, Dir, parent_and_name};

use crate::backup::path_record::RecordedPath;
use crate::backup::path_state::PathState;
use crate::dpkg::related_files::HELPER_STAGING;
use crate::paths::is_directory;
use crate::rollback::path_restore;
use crate::rollback::source::{Recorded, Source};

/// Restores directories, symlinks to directories, and paths that have become one of these.
pub fn restore(source: &Source) -> Result<()> {
    if let Some(recorded) = &source.record {
        recorded.record.for_each(|entry| restore_entry(&entry, recorded))?;
    }
    // dpkg makes a directory where nothing is, and leaves a symlink alone.
    source.backup.moved_directories.restore_absent(&source.directory.moved_directories())
}

/// Restores one entry of [`restore`].
pub fn restore_entry(RecordedPath { path, previous }: &RecordedPath, recorded: &Recorded) -> Result<()> {
    let found = durable::metadata(path)?;
    let is_directory = found.as_ref().is_some_and(Metadata::is_dir);
    let is_symlink = found.as_ref().is_some_and(Metadata::is_symlink);
    let is_wrong = match previous {
        PathState::Absent => false,
        PathState::Directory { .. } => found.is_some() && !is_directory,
        PathState::Symlink { target, to_directory: true, .. } => {
            !is_symlink || fs::read_link(path).is_ok_and(|now| now != *target)
        }
        PathState::Symlink { .. } => is_directory,
        PathState::File { .. } | PathState::Node { .. } => is_directory || is_symlink,
    };
    if !is_wrong {
        return Ok(());
    }
    if is_directory {
        remove_directory(path, &recorded.paths)?;
    } else if !matches!(previous, PathState::Directory { .. }) {
        durable::remove_file(path)?;
    }
    path_restore::restore(path, previous).with_context(|| format!("restoring {} failed", path.display()))
}

/// Removes the directory `path` with the paths in it that are in `recorded`. If there are others, it is moved
/// aside instead.
fn remove_directory(path: &Path, recorded: &BTreeSet<PathBuf>) -> Result<()> {
    remove_recorded(path, recorded)?;
    durable::remove_empty_dir(path)?;
    if !durable::exists(path)? {
        return Ok(());
    }
    let (parent, name) = parent_and_name(path)?;
    let parent = Dir::open(parent)?;
    parent.move_aside(&name)?;
    parent.sync()
}

/// Removes the paths below `directory` that are in `recorded`. The depth is that of the packages' own paths.
fn remove_recorded(directory: &Path, recorded: &BTreeSet<PathBuf>) -> Result<()> {
    // The directory is closed before the next level is opened, so that depth needs no file descriptors.
    let names = Dir::open(directory)?.names()?;
    for name in names {
        let path = directory.join(&name);
        if !recorded.contains(&path) && name.as_ref() != Path::new(HELPER_STAGING) {
            continue;
        }
        if is_directory(&path)? {
            remove_recorded(&path, recorded)?;
            durable::remove_empty_dir(&path)?;
        } else {
            durable::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use mender_update_module_test::debian::Package;
    use tempfile::TempDir;

    use super::*;
    use crate::backup::file_backup::FileBackup;
    use crate::backup::path_record::PathRecord;
    use crate::test_device::{back_up, backup_directory, install, on_device, source, staged, write};

    /// Paths below a directory, and their record.
    struct Recording(TempDir, Recorded);

    impl Recording {
        /// Records the paths `names`, which `make` makes in the directory.
        fn of(names: &[&str], make: impl FnOnce(&Path)) -> Self {
            let top = tempfile::tempdir().unwrap();
            let path = |name: &&str| top.path().join("top").join(name);
            fs::create_dir(top.path().join("top")).unwrap();
            make(&top.path().join("top"));
            let paths: BTreeSet<_> = names.iter().map(path).collect();
            let record = PathRecord::new(top.path().join("record"));
            record.write(&paths, &BTreeSet::new()).unwrap();
            Self(top, Recorded { record, paths })
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join("top").join(name)
        }

        fn restore(&self) {
            self.1.record.for_each(|entry| restore_entry(&entry, &self.1)).unwrap();
        }

        /// What is at `name`.
        fn kind(&self, name: &str) -> String {
            let path = self.path(name);
            match PathState::read(&path).unwrap() {
                PathState::Symlink { target, .. } => format!("-> {}", target.display()),
                PathState::Directory { .. } => "directory".into(),
                PathState::File { .. } => "file".into(),
                PathState::Absent => "absent".into(),
                PathState::Node { .. } => "node".into(),
            }
        }
    }

    #[test]
    fn what_is_as_before_or_absent_stays() {
        let names = ["directory", "file", "link", "real", "to file", "was directory", "was file", "never"];
        let recording = Recording::of(&names, |top| {
            fs::create_dir(top.join("directory")).unwrap();
            fs::create_dir(top.join("was directory")).unwrap();
            fs::create_dir(top.join("real")).unwrap();
            fs::write(top.join("file"), "").unwrap();
            fs::write(top.join("was file"), "").unwrap();
            symlink("real", top.join("link")).unwrap();
            symlink("file", top.join("to file")).unwrap();
        });
        fs::remove_dir(recording.path("was directory")).unwrap();
        fs::remove_file(recording.path("was file")).unwrap();
        fs::write(recording.path("never"), "").unwrap();
        fs::write(recording.path("directory/x"), "").unwrap();
        let inode = || fs::symlink_metadata(recording.path("link")).unwrap().ino();
        let before = inode();
        recording.restore();
        let expected = ["directory", "file", "-> real", "directory", "-> file", "absent", "absent", "file"];
        assert_eq!(names.map(|name| recording.kind(name)), expected);
        assert!(inode() == before && recording.path("directory/x").exists());
    }

    #[test]
    fn directories_and_symlinks_are_restored_in_the_place_of_others() {
        let names = ["directory", "link 1", "link 2", "link 3", "link 4", "real", "to file", "file 1", "file 2"];
        let recording = Recording::of(&names, |top| {
            fs::create_dir(top.join("directory")).unwrap();
            fs::create_dir(top.join("real")).unwrap();
            (1..5).for_each(|number| symlink("real", top.join(format!("link {number}"))).unwrap());
            symlink("file 1", top.join("to file")).unwrap();
            (1..3).for_each(|number| fs::write(top.join(format!("file {number}")), "").unwrap());
        });
        let path = |name: &str| recording.path(name);
        for name in ["directory", "link 1", "link 2", "link 3", "link 4", "to file", "file 1", "file 2"] {
            if path(name).is_symlink() || path(name).is_file() {
                fs::remove_file(path(name)).unwrap();
            } else {
                fs::remove_dir(path(name)).unwrap();
            }
        }
        fs::write(path("directory"), "").unwrap();
        symlink("other", path("link 1")).unwrap();
        fs::write(path("link 2"), "").unwrap();
        fs::create_dir(path("link 3")).unwrap();
        fs::create_dir(path("to file")).unwrap();
        fs::create_dir(path("file 1")).unwrap();
        symlink("real", path("file 2")).unwrap();
        recording.restore();
        let expected =
            ["directory", "-> real", "-> real", "-> real", "-> real", "directory", "-> file 1", "absent", "absent"];
        assert_eq!(names.map(|name| recording.kind(name)), expected);
    }

    #[test]
    fn a_directory_with_other_files_is_moved_aside() {
        let names = ["file", "file/below", "file/below/new"];
        let recording = Recording::of(&names, |top| fs::write(top.join("file"), "").unwrap());
        fs::remove_file(recording.path("file")).unwrap();
        for path in ["file/below/new", "file/below/of user", "file/.dpkg-staging-dir/x"] {
            write(recording.path(path), "");
        }
        fs::remove_file(recording.path("file/.dpkg-staging-dir/x")).unwrap();
        recording.restore();
        assert_eq!(recording.kind("file"), "absent");
        let aside: Vec<_> = fs::read_dir(recording.path("")).unwrap().map(|entry| entry.unwrap().path()).collect();
        let [aside] = &aside[..] else { panic!("{aside:?}") };
        assert!(aside.join("below/of user").exists());
        assert!(!aside.join("below/new").exists() && !aside.join(".dpkg-staging-dir").exists());
    }

    #[test]
    fn moved_directories_of_old_backups_are_restored_where_they_are_absent() {
        on_device(|| {
            install(&[Package::new("a", "1").file("/srv/a/x", "1")]);
            let mut backup = back_up(&[staged("a", "", &[])], &[]);
            symlink("a", "/srv/moved").unwrap();
            let moved = backup_directory().moved_directories();
            backup.moved_directories = FileBackup::create(&["/srv/moved".into()].into(), &moved, 100, 0).unwrap();
            fs::remove_file("/srv/moved").unwrap();
            fs::remove_dir_all("/srv/a").unwrap();
            write("/srv/a", "");
            restore(&source(&backup)).unwrap();
            assert!(Path::new("/srv/moved").is_symlink() && Path::new("/srv/a").is_dir());
        });
    }
}
