//! Restores what the update has changed in the tables of dpkg and apt.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use mender_update_module::{durable, log};

use crate::apt::mark;
use crate::backup::tables::{Change, STAT_OVERRIDES, Tables};
use crate::backup::{state_files, table_text};
use crate::dpkg::database::Database;
use crate::dpkg::lock;
use crate::dpkg::program;
use crate::dpkg::stanza::PackageKey;
use crate::rollback::source::Source;
use crate::rollback::table_changes::TableChanges;

/// Restores diversions and stat overrides, which dpkg applies when it installs the previous packages.
pub fn restore_paths(source: &Source) -> Result<()> {
    let Some(changes) = &source.tables else { return Ok(()) };
    let now = Tables::read()?;
    let diversions = changes.of_update(|tables| &tables.diversions, &now);
    // A previous diversion may lead to a path that a new one has, which dpkg refuses.
    diversions.iter().try_for_each(|change| remove_diversion(change, source))?;
    diversions.iter().try_for_each(add_diversion)?;
    restore_stat_overrides(changes, &now, source.lock_seconds)
}

/// The values are `TARGET OWNER`.
fn remove_diversion(Change { key: from, now, .. }: &Change, source: &Source) -> Result<()> {
    log!("rollback: restoring the diversion of {from}");
    let path = path_of(table_text::to_bytes(from));
    if let Some((to, _)) = now.and_then(target_and_owner) {
        // A file of the new version, while the previous file is at the target.
        if source.is_recorded(&path) && durable::exists(&to)? {
            durable::remove_file(&path)?;
        }
        let rename = if durable::exists(&path)? { "--no-rename" } else { "--rename" };
        program::change_under_lock("dpkg-divert").args([rename, "--remove"]).arg(&path).run()?;
    }
    Ok(())
}

fn add_diversion(Change { key: from, before, .. }: &Change) -> Result<()> {
    let path = path_of(table_text::to_bytes(from));
    if let Some((to, package)) = before.and_then(target_and_owner) {
        let divert = program::change_under_lock("dpkg-divert");
        let divert = if package == ":" { divert.arg("--local") } else { divert.arg("--package").arg(package) };
        divert.args(["--no-rename", "--divert"]).arg(to).arg("--add").arg(path).run()?;
    }
    Ok(())
}

fn target_and_owner(value: &str) -> Option<(PathBuf, OsString)> {
    let mut target = table_text::to_bytes(value);
    let space = target.iter().rposition(|byte| *byte == b' ')?;
    let owner = target.split_off(space + 1);
    target.pop();
    Some((path_of(target), OsString::from_vec(owner)))
}

fn path_of(bytes: Vec<u8>) -> PathBuf {
    OsString::from_vec(bytes).into()
}

/// Writes dpkg's file, because dpkg-statoverride would change the file modes, too.
fn restore_stat_overrides(changes: &TableChanges, now: &Tables, lock_seconds: u64) -> Result<()> {
    let changes = changes.of_update(|tables| &tables.overrides, now);
    if changes.is_empty() {
        return Ok(());
    }
    let mut overrides = now.overrides.clone();
    for Change { key: path, before, .. } in changes {
        log!("rollback: restoring the stat override of {path}");
        match before {
            Some(before) => drop(overrides.insert(path.to_owned(), before.to_owned())),
            None => drop(overrides.remove(path)),
        }
    }
    let _lock = lock::take(lock::DATABASE, lock_seconds)?;
    let line = |(path, attributes): (&String, &String)| {
        [&table_text::to_bytes(attributes), &b" "[..], &table_text::to_bytes(path), b"\n"].concat()
    };
    let text: Vec<u8> = overrides.iter().flat_map(line).collect();
    durable::rewrite_file(Path::new(STAT_OVERRIDES), &text)
}

/// Restores alternatives, enabled units, marks and selections.
pub fn restore_others(source: &Source) -> Result<()> {
    let Some(changes) = &source.tables else { return Ok(()) };
    let now = Tables::read()?;
    restore_state_files(changes, &now)?;
    restore_marks(changes, &now)?;
    restore_selections(changes, &now)
}

fn restore_state_files(changes: &TableChanges, now: &Tables) -> Result<()> {
    let files = changes.of_update(|tables| &tables.state_files, now);
    let (previous, mut new): (Vec<_>, Vec<_>) = files.into_iter().partition(|change| change.before.is_some());
    // New files are removed from the innermost outwards, previous ones restored from the outermost inwards.
    new.reverse();
    // Without the files that name links, a repeated rollback would not find the links: they come last.
    new.sort_by_key(|change| state_files::names_links(Path::new(change.key)));
    for change in new.iter().chain(&previous) {
        state_files::restore(Path::new(change.key), change.before)?;
    }
    Ok(())
}

fn restore_marks(changes: &TableChanges, now: &Tables) -> Result<()> {
    let is_installed = |name: &str| now.states.get(name).is_some_and(|state| state.starts_with("installed"));
    let marks: Vec<_> = changes
        .of_update(|tables| &tables.automatic, now)
        .into_iter()
        .filter(|change| is_installed(change.key))
        .map(|change| (PackageKey::from_apt(change.key), change.before.is_some()))
        .collect();
    mark::set(marks.iter().map(|(key, automatic)| (key, *automatic)))
}

fn restore_selections(changes: &TableChanges, now: &Tables) -> Result<()> {
    let database = Database::read()?;
    let mut selections = String::new();
    for Change { key, before, now } in changes.of_update(|tables| &tables.selections, now) {
        if let (Some(before), Some(_), Some(stanza)) = (before, now, database.find(&PackageKey::from_apt(key))) {
            // Without its architecture, the name of a package for several is ambiguous.
            selections += &format!("{} {before}\n", stanza.dpkg_name()?);
        }
    }
    if selections.is_empty() {
        return Ok(());
    }
    program::change_under_lock("dpkg").arg("--set-selections").feed(&mut selections.as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use mender_update_module_test::debian::Package;
    use rustix::mount::{MountFlags, mount, mount_remount};

    use super::*;
    use crate::dpkg::diversions::{Diversion, Diversions};
    use crate::payload::deb::Kind;
    use crate::test_device::{
        back_up, error, install, installed, on_device, source, staged, text, write, write_list, write_status,
    };

    #[test]
    fn the_target_of_a_diversion_may_have_spaces() {
        let split = |value| target_and_owner(value).map(|(target, owner)| (target, owner.into_string().unwrap()));
        assert_eq!(split("/srv/a b dash"), Some(("/srv/a b".into(), "dash".into())));
        assert_eq!(split("not UTF-8: /srv/é :"), Some((path_of(b"/srv/\xe9".into()), ":".into())));
        assert_eq!(split("/srv/a"), None);
    }

    #[test]
    fn diversions_and_stat_overrides_are_restored() {
        on_device(|| {
            install(&[Package::new("a", "1").file("/srv/x", "of a"), Package::new("b", "1")]);
            let divert = |arguments: &[&str]| {
                let status = Command::new("dpkg-divert").arg("--no-rename").args(arguments).output().unwrap().status;
                assert!(status.success());
            };
            divert(&["--package", "b", "--divert", "/srv/gone.b", "--add", "/srv/gone"]);
            divert(&["--local", "--divert", "/srv/local.b", "--add", "/srv/local"]);
            write(STAT_OVERRIDES, "root root 600 /srv/changed\nroot root 600 /srv/gone\nroot root 600 /srv/same\n");
            let lines = || {
                let lines = Diversions::read().unwrap();
                let shown = |it: &Diversion| format!("{} {} {}", it.from.display(), it.to.display(), it.owner);
                lines.all().iter().map(shown).collect::<BTreeSet<_>>()
            };
            let before = lines();
            let backup = back_up(&[staged("a", "", &[("/srv/x", Kind::File)]), staged("b", "", &[])], &[]);
            divert(&["--remove", "/srv/gone"]);
            divert(&["--remove", "/srv/local"]);
            for name in ["x", "free", "user"] {
                divert(&["--package", "b", "--divert", &format!("/srv/{name}.b"), "--add", &format!("/srv/{name}")]);
            }
            fs::rename("/srv/x", "/srv/x.b").unwrap();
            write("/srv/x", "new");
            write("/srv/free.b", "moved");
            write("/srv/user", "of user");
            write("/srv/user.b", "moved");
            write(STAT_OVERRIDES, "root root 700 /srv/changed\nroot root 700 /srv/new\nroot root 600 /srv/same\n");
            restore_paths(&source(&backup)).unwrap();
            assert_eq!(lines(), before);
            assert_eq!(
                ["/srv/x", "/srv/free", "/srv/user", "/srv/user.b"].map(text),
                ["of a", "moved", "of user", "moved"]
            );
            let expected = "root root 600 /srv/changed\nroot root 600 /srv/gone\nroot root 600 /srv/same\n";
            assert_eq!(text(STAT_OVERRIDES), expected);
        });
    }

    #[test]
    fn a_diversion_may_lead_to_a_path_that_the_update_diverts() {
        on_device(|| {
            install(&[Package::new("a", "1")]);
            let divert = |arguments: &[&str]| {
                let status = Command::new("dpkg-divert").arg("--no-rename").args(arguments).output().unwrap().status;
                assert!(status.success());
            };
            divert(&["--package", "a", "--divert", "/srv/y", "--add", "/srv/x"]);
            let before = text("/var/lib/dpkg/diversions");
            let backup = back_up(&[staged("a", "", &[])], &[]);
            divert(&["--remove", "/srv/x"]);
            divert(&["--package", "a", "--divert", "/srv/z", "--add", "/srv/y"]);
            restore_paths(&source(&backup)).unwrap();
            assert_eq!(text("/var/lib/dpkg/diversions"), before);
        });
    }

    #[test]
    fn a_repeated_rollback_removes_the_links_of_a_new_alternative() {
        on_device(|| {
            let backup = back_up(&[staged("a", "", &[])], &[]);
            mount("tmpfs", make_directory("/srv/bin"), "tmpfs", MountFlags::empty(), None).unwrap();
            symlink("/etc/alternatives/x", "/srv/bin/x").unwrap();
            write("/var/lib/dpkg/alternatives/x", "auto\n/srv/bin/x\n\n/srv/real\n10\n\n");
            symlink("/srv/real", Path::new(make_directory("/etc/alternatives")).join("x")).unwrap();
            mount_remount("/srv/bin", MountFlags::RDONLY, "").unwrap();
            let error = error(restore_others(&source(&backup)));
            assert!(error.contains("/srv/bin/x"), "{error}");
            mount_remount("/srv/bin", MountFlags::empty(), "").unwrap();
            restore_others(&source(&backup)).unwrap();
            let paths = ["/srv/bin/x", "/var/lib/dpkg/alternatives/x", "/etc/alternatives/x"];
            assert_eq!(paths.map(|path| Path::new(path).is_symlink() || Path::new(path).exists()), [false; 3]);
        });
    }

    fn make_directory(path: &str) -> &str {
        fs::create_dir_all(path).unwrap();
        path
    }

    #[test]
    fn the_selection_of_a_package_for_two_architectures_is_restored() {
        on_device(|| {
            let native = program::native_architecture().unwrap();
            write("/var/lib/dpkg/arch", format!("{native}\ns390x\n"));
            let of = |architecture: &str| {
                installed("a", "1")
                    .replace("Architecture: all", &format!("Architecture: {architecture}\nMulti-Arch: same"))
            };
            for architecture in [&*native, "s390x"] {
                write_list(&format!("a:{architecture}"), &["/."]);
            }
            write_status(&[&of(&native).replace("install ok", "hold ok"), &of("s390x")]);
            let backup = back_up(&[staged("b", "", &[])], &[]);
            let before = Tables::read().unwrap().selections;
            write_status(&[&of(&native), &of("s390x")]);
            restore_others(&source(&backup)).unwrap();
            assert_eq!(Tables::read().unwrap().selections, before);
        });
    }

    #[test]
    fn alternatives_marks_and_selections_are_restored() {
        on_device(|| {
            write("/etc/rc2.d/S01changed", "1");
            write("/etc/systemd/system/gone/x", "1");
            write_status(&[&installed("a", "1"), &installed("b", "1").replace("install ok", "hold ok")]);
            let marks = |names: &[&str]| {
                let mark = |name| format!("Package: {name}\nArchitecture: all\nAuto-Installed: 1\n\n");
                write("/var/lib/apt/extended_states", names.iter().map(mark).collect::<String>());
            };
            marks(&["b"]);
            let backup = back_up(&[staged("a", "", &[]), staged("b", "", &[])], &[]);
            let before = Tables::read().unwrap();
            write("/etc/rc2.d/S01changed", "2");
            fs::remove_dir_all("/etc/systemd/system/gone").unwrap();
            write("/etc/systemd/system/new/y", "");
            write_status(&[&installed("a", "1"), &installed("b", "1")]);
            marks(&["a"]);
            restore_others(&source(&backup)).unwrap();
            let now = Tables::read().unwrap();
            assert_eq!(now.state_files, before.state_files);
            assert_eq!((now.automatic, now.selections), (before.automatic, before.selections));
        });
    }
}
