//! The order of the steps of a rollback.

use anyhow::Result;

use crate::apt::mark;
use crate::dpkg::database;
use crate::dpkg::lock;
use crate::rollback::source::Source;
use crate::rollback::{files, packages, structure, tables, verification};

/// Restores the backup, and verifies that everything recorded is as it was.
///
/// # Errors
/// When another package manager holds a lock for too long, a package cannot be restored, or
/// something differs: the list of differences.
pub fn roll_back(source: &Source) -> Result<()> {
    drop(lock::take(lock::DATABASE, source.lock_seconds)?);
    database::merge_updates()?;
    source.hooks.run_around(|| restore(source))?;
    mark::set(source.backup.marks())?;
    tables::restore_others(source)?;
    verification::verify(source)
}

/// Restores packages, then files, then dpkg's database.
fn restore(source: &Source) -> Result<()> {
    restore_packages(source)?;
    let mut unrestored = packages::unrestored(source)?;
    if !unrestored.is_empty() {
        packages::disable_scripts(&unrestored)?;
        restore_packages(source)?;
        unrestored = packages::unrestored(source)?;
    }
    packages::check_restored(&unrestored, source)?;
    database::remove_unpacked_control_files(source.lock_seconds)?;
    mark::remove_unfinished_lists()?;
    restore_files(source)?;
    let incomplete = packages::with_wrong_files(source)?;
    if !incomplete.is_empty() {
        packages::reinstall(&incomplete);
        restore_files(source)?;
    }
    database::restore_stanzas(&source.backup.stanzas(), source.lock_seconds)
}

/// Makes dpkg remove the new packages and install the previous ones. Errors of dpkg are only logged:
/// [`restore`] checks the result.
fn restore_packages(source: &Source) -> Result<()> {
    let actions = packages::decide_actions(source)?;
    packages::remove_conffile_symlinks(source)?;
    // The new packages first: their files and conflicts may keep the previous ones from being installed.
    packages::remove_new(&actions);
    tables::restore_paths(source)?;
    if actions.install_any() {
        source.hooks.repeat_before();
        structure::restore(source)?;
    }
    packages::install_previous(&actions);
    packages::configure(source)?;
    source.hooks.repeat_before();
    Ok(())
}

fn restore_files(source: &Source) -> Result<()> {
    source.hooks.repeat_before();
    files::restore(source)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use mender_update_module_test::debian::Package;

    use super::*;
    use crate::dpkg::database::Database;
    use crate::payload::deb::Kind;
    use crate::test_device::{back_up, install, on_device, source, staged, text, write};

    #[test]
    fn a_device_is_as_before_the_update() {
        on_device(|| {
            let script = |package: Package| package.script("prerm", "exit 1").script("postrm", "exit 1");
            install(&[
                Package::new("a", "1").file("/srv/a/x", "1").conffile("/etc/a", "1"),
                Package::new("gone", "1").file("/srv/gone", "1"),
            ]);
            write("/srv/user", "of no package");
            write("/etc/a", "of the administrator");
            write("/etc/dpkg/dpkg.cfg.d/hooks", "pre-invoke=echo >> /var/tmp/hook\n");
            let items = [("/srv/user", Kind::File), ("/srv/a/new", Kind::File)];
            let backup = back_up(&[staged("a", "", &items), staged("new", "", &[])], &["gone"]);
            let status = text("/var/lib/dpkg/status");
            install(&[
                script(Package::new("a", "2").file("/srv/user", "2").file("/srv/a/new", "2")),
                script(Package::new("new", "1").conffile("/etc/new", "1")),
            ]);
            assert!(Command::new("dpkg").args(["--purge", "gone"]).output().unwrap().status.success());
            write("/var/lib/dpkg/tmp.ci/control", "");
            write("/var/lib/apt/extended_states.x", "");
            roll_back(&source(&backup)).unwrap();
            assert_eq!(
                ["/srv/user", "/srv/a/x", "/etc/a", "/srv/gone"].map(text),
                ["of no package", "1", "of the administrator", "1"]
            );
            assert_eq!(["/srv/a/new", "/etc/new"].map(|path| Path::new(path).exists()), [false; 2]);
            assert_eq!(text("/var/lib/dpkg/status"), status);
            let unfinished = ["/var/lib/dpkg/tmp.ci", "/var/lib/apt/extended_states.x"];
            assert_eq!(unfinished.map(|path| Path::new(path).exists()), [false; 2]);
            assert!(Path::new("/var/tmp/hook").exists());
        });
    }

    #[test]
    fn a_removed_package_keeps_its_state_if_the_new_version_leaves_nothing() {
        on_device(|| {
            install(&[Package::new("a", "1"), Package::new("b", "1").script("postrm", "exit 0")]);
            assert!(Command::new("dpkg").args(["--remove", "b"]).output().unwrap().status.success());
            let (status, script) = (text("/var/lib/dpkg/status"), text("/var/lib/dpkg/info/b.postrm"));
            assert!(status.contains("deinstall ok config-files"), "{status}");
            let backup = back_up(&[staged("b", "", &[])], &[]);
            install(&[Package::new("b", "2")]);
            roll_back(&source(&backup)).unwrap();
            assert_eq!((text("/var/lib/dpkg/status"), text("/var/lib/dpkg/info/b.postrm")), (status, script));
        });
    }

    #[test]
    fn the_selection_of_a_package_that_was_never_installed_is_restored() {
        on_device(|| {
            install(&[Package::new("a", "1")]);
            let selected = "\nPackage: b\nStatus: install ok not-installed\nArchitecture: all\n\n";
            write("/var/lib/dpkg/status", text("/var/lib/dpkg/status") + selected);
            database::merge_updates().unwrap();
            let status = text("/var/lib/dpkg/status");
            assert!(status.contains(selected.trim_end()), "dpkg has dropped it: {status}");
            let backup = back_up(&[staged("b", "", &[])], &[]);
            install(&[Package::new("b", "1")]);
            roll_back(&source(&backup)).unwrap();
            assert_eq!(text("/var/lib/dpkg/status"), status);
        });
    }

    #[test]
    fn files_of_packages_that_did_not_change_are_installed_again() {
        on_device(|| {
            install(&[Package::new("a", "1").file("/srv/a/x", "1")]);
            let backup = back_up(&[staged("a", "", &[])], &[]);
            fs::remove_file("/srv/a/x").unwrap();
            roll_back(&source(&backup)).unwrap();
            assert_eq!(text("/srv/a/x"), "1");
        });
    }

    #[test]
    fn the_marks_of_the_previous_packages_are_restored() {
        on_device(|| {
            install(&[Package::new("a", "1")]);
            write("/var/lib/apt/extended_states", "Package: a\nArchitecture: all\nAuto-Installed: 1\n\n");
            let mut backup = back_up(&[staged("a", "", &[])], &[]);
            fs::remove_file("/var/lib/apt/extended_states").unwrap();
            roll_back(&source(&backup)).unwrap();
            assert_eq!(mark::automatic(&Database::read().unwrap()).unwrap().len(), 1);
            backup.packages[0].stanza = None;
            assert!(roll_back(&source(&backup)).is_err());
        });
    }
}
