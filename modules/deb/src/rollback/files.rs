//! Restores what dpkg does not: files of no package, and attributes that no package has.

use std::path::PathBuf;

use anyhow::Result;
use mender_update_module::durable::{self, Attributes, Dir};
use mender_update_module::log;

use crate::backup::path_record::{PathRecord, RecordedPath};
use crate::backup::path_state::PathState;
use crate::dpkg::related_files::{self, HELPER_STAGING};
use crate::paths::is_directory;
use crate::rollback::source::{Recorded, Source};
use crate::rollback::{leftovers, path_restore};

/// Removes new files, restores the copies, and restores the attributes.
pub fn restore(source: &Source) -> Result<()> {
    match (&source.record, source.new.staged) {
        (Some(recorded), _) => leftovers::remove(&new_paths(recorded)?, source.backup)?,
        (None, Some(staged)) => leftovers::remove_unrecorded(staged, source.backup)?,
        (None, None) => {}
    }
    source.backup.files.restore(&source.directory.files())?;
    source.backup.attributes.restore()?;
    source.record.as_ref().map_or(Ok(()), |recorded| restore_recorded(&recorded.record))
}

/// The paths that were absent and exist now, and the files of dpkg and its helpers beside any path; the
/// innermost first.
fn new_paths(recorded: &Recorded) -> Result<Vec<PathBuf>> {
    let mut new = Vec::new();
    recorded.record.for_each(|RecordedPath { path, previous }| {
        for beside in related_files::beside(&path).filter(|beside| !recorded.paths.contains(beside)) {
            if durable::exists(&beside)? {
                new.push(beside);
            }
        }
        let helper_staging = path.join(HELPER_STAGING);
        match previous {
            PathState::Absent if durable::exists(&path)? => new.push(path),
            PathState::Directory { .. } if durable::exists(&helper_staging)? => new.push(helper_staging),
            _ => {}
        }
        Ok(())
    })?;
    new.reverse();
    Ok(new)
}

/// Restores every recorded path except the contents of files. An error is only logged: the verification lists
/// the path.
fn restore_recorded(record: &PathRecord) -> Result<()> {
    let mut directories = Vec::new();
    record.for_each(|RecordedPath { path, previous }| {
        if let PathState::Directory { attributes, times: true } = &previous {
            directories.push((path.clone(), attributes.clone()));
        }
        if let Err(error) = path_restore::restore(&path, &previous) {
            log!("rollback continues despite an error: restoring {}: {error:#}", path.display());
        }
        Ok(())
    })?;
    restore_times(&directories)
}

/// Restores the times of directories, the innermost first. This comes last, because every change in a
/// directory changes them.
fn restore_times(directories: &[(PathBuf, Attributes)]) -> Result<()> {
    for (path, attributes) in directories.iter().rev() {
        if is_directory(path)? {
            let directory = Dir::open(path)?;
            if directory.attributes()? != *attributes {
                directory.set_attributes(attributes)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use mender_update_module_test::debian::Package;

    use super::*;
    use crate::payload::deb::Kind;
    use crate::test_device::{back_up, backup_directory, install, on_device, source, staged, text, write};

    #[test]
    fn new_paths_are_found_from_the_innermost_outwards() {
        on_device(|| {
            install(&[Package::new("a", "1").file("/srv/a/x", "1")]);
            let new = [("/srv/new", Kind::Directory), ("/srv/new/x", Kind::File), ("/srv/absent", Kind::File)];
            write("/srv/a/x.dpkg-old", "was there");
            let _backup = back_up(&[staged("a", "", &new)], &[]);
            write("/srv/new/x", "");
            write("/srv/new/other", "");
            write("/srv/a/x.dpkg-new", "");
            write("/srv/a/.dpkg-staging-dir/file", "");
            let recorded = Recorded::read(&backup_directory()).unwrap().unwrap();
            let found = new_paths(&recorded).unwrap();
            let expected =
                ["/srv/new/x", "/srv/new", "/srv/a/x.dpkg-new", "/srv/a/.dpkg-staging-dir"].map(PathBuf::from);
            assert_eq!(found.into_iter().filter(|path| path.starts_with("/srv")).collect::<Vec<_>>(), expected);
        });
    }

    #[test]
    fn copies_and_attributes_are_restored_and_new_files_removed() {
        on_device(|| {
            install(&[Package::new("a", "1").file("/srv/a/x", "1")]);
            write("/srv/user", "of no package");
            let new = [("/srv/user", Kind::File), ("/srv/a/new", Kind::File)];
            let backup = back_up(&[staged("a", "", &new)], &[]);
            let attributes = || Dir::open(Path::new("/srv/a")).unwrap().attributes().unwrap();
            let before = (attributes(), durable::attributes(Path::new("/srv/a/x")).unwrap());
            write("/srv/user", "new");
            write("/srv/a/new", "");
            for (path, mode) in [("/srv/a", 0o700), ("/srv/a/x", 0o600)] {
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            }
            restore(&source(&backup)).unwrap();
            assert_eq!((text("/srv/user"), Path::new("/srv/a/new").exists()), ("of no package".into(), false));
            assert_eq!((attributes(), durable::attributes(Path::new("/srv/a/x")).unwrap()), before);
            restore_times(&[("/srv/absent".into(), before.0)]).unwrap();
        });
    }
}
