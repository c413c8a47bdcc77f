//! Restores the configuration of dpkg and apt, because the new version may have broken it. The first step of a
//! rollback: it runs no program.

use std::path::PathBuf;

use anyhow::Result;
use mender_update_module::{durable, first_error};

use crate::backup::contents::Backup;
use crate::backup::directory::BackupDirectory;
use crate::backup::path_state::PathState;
use crate::configuration;
use crate::dpkg::database::Database;
use crate::dpkg::stanza::PackageKey;
use crate::paths::remove_unless_directory;
use crate::rollback::source::Recorded;
use crate::rollback::{path_restore, structure};

/// Restores what the update has changed in the configuration. Attributes of files and empty directories are left to
/// the other steps.
pub fn restore(backup: &Backup, directory: &BackupDirectory, record: Option<&Recorded>) -> Result<()> {
    // A part that fails must not keep the others from being restored.
    let files = backup.files.restore_those(&directory.files(), configuration::contains);
    let recorded = record.map_or(Ok(()), |recorded| remove_new(&restore_recorded(recorded)?, backup));
    first_error([files, recorded])
}

/// Restores directories and symlinks. Returns the new files.
fn restore_recorded(recorded: &Recorded) -> Result<Vec<PathBuf>> {
    let mut new = Vec::new();
    recorded.record.for_each(|entry| {
        if !configuration::contains(&entry.path) {
            return Ok(());
        }
        structure::restore_entry(&entry, recorded)?;
        match &entry.previous {
            PathState::Symlink { .. } => path_restore::restore(&entry.path, &entry.previous)?,
            PathState::Absent if durable::exists(&entry.path)? => new.push(entry.path),
            _ => {}
        }
        Ok(())
    })?;
    Ok(new)
}

/// Removes the files `new`, except those that packages outside the update have now.
fn remove_new(new: &[PathBuf], backup: &Backup) -> Result<()> {
    if new.is_empty() {
        return Ok(());
    }
    let owners = Database::read_without_dpkg()?.owners(new)?;
    let is_of_update = |owner: &PackageKey| backup.packages.iter().any(|package| package.key.name == owner.name);
    let of_update = new.iter().filter(|path| owners.of(path).iter().all(is_of_update));
    of_update.into_iter().try_for_each(|path| remove_unless_directory(path))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use mender_update_module_test::debian::Package;

    use super::*;
    use crate::payload::deb::Kind;
    use crate::test_device::{back_up, backup_directory, error, install, on_device, staged, text, write, write_list};

    #[test]
    fn files_directories_and_symlinks_of_the_configuration_are_restored() {
        on_device(|| {
            install(&[Package::new("a", "1").file("/etc/apt/of-a", "1"), Package::new("z", "1").file("/srv/z", "")]);
            write("/etc/dpkg/directory/file", "");
            symlink("of-a", "/etc/apt/symlink").unwrap();
            let items = [
                ("/etc/apt/of-a", Kind::File),
                ("/etc/apt/new", Kind::File),
                ("/etc/apt/of-z", Kind::File),
                ("/etc/apt/symlink", Kind::Symlink),
                ("/etc/dpkg/directory", Kind::Directory),
                ("/srv/new", Kind::File),
            ];
            let backup = back_up(&[staged("a", "", &items)], &[]);
            let restored =
                || restore(&backup, &backup_directory(), Recorded::read(&backup_directory()).unwrap().as_ref());
            for path in ["/etc/apt/of-a", "/etc/apt/new", "/etc/apt/of-z", "/srv/new"] {
                write(path, "broken");
            }
            fs::remove_file("/etc/apt/symlink").unwrap();
            symlink("new", "/etc/apt/symlink").unwrap();
            fs::remove_dir_all("/etc/dpkg/directory").unwrap();
            write("/etc/dpkg/directory", "");
            write_list("a", &["/etc/apt/of-a", "/etc/apt/new"]);
            write_list("z", &["/etc/apt/of-z"]);
            restored().unwrap();
            assert_eq!(text("/etc/apt/of-a"), "1");
            assert_eq!(fs::read_link("/etc/apt/symlink").unwrap(), Path::new("of-a"));
            assert!(Path::new("/etc/dpkg/directory").is_dir());
            assert!(!Path::new("/etc/apt/new").exists());
            assert_eq!(
                [text("/etc/apt/of-z"), text("/srv/new")],
                ["broken", "broken"],
                "not of the configuration, or of z"
            );
            fs::remove_file("/etc/apt/of-z").unwrap();
            // Without new files, it does not need the database.
            fs::remove_file("/var/lib/dpkg/status").unwrap();
            restored().unwrap();
            write("/etc/apt/new", "");
            assert!(error(restored()).contains("/var/lib/dpkg/status"));
        });
    }
}
