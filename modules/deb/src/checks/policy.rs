//! Refuses what an update may not do. Every message names the package and the reason.

use anyhow::{Result, bail, ensure};
use mender_update_module::durable::Dir;

use crate::apt::get::Transaction;
use crate::dpkg::database::Database;
use crate::dpkg::program;
use crate::dpkg::stanza::{PackageKey, Stanza};
use crate::options::Options;
use crate::payload::package::StagedPackage;

/// The directory on whose file system the space is checked: most files of packages are below it.
const SYSTEM: &str = "/usr";

/// Refuses packages for another architecture, and packages older than the installed ones.
pub fn check_payload(staged: &[StagedPackage], database: &Database, options: &Options) -> Result<()> {
    let foreign = program::foreign_architectures()?;
    for StagedPackage { key, control, .. } in staged {
        let version = control.required("Version")?;
        if let Some(architecture) = &key.foreign {
            ensure!(
                foreign.contains(architecture),
                "package {} {version} refused: it is for {architecture}, and this device is {}",
                key.name,
                database.native
            );
        }
        let Some(installed) = database.installed_version(key) else { continue };
        ensure!(
            options.allow_downgrade || !program::is_older(version, installed)?,
            "package {key} {version} refused: it is older than the installed {installed}: set \
             allow_downgrade to allow that"
        );
    }
    Ok(())
}

/// Refuses a transaction that changes a held package, removes or installs more than was asked for, or leaves
/// out a package. `removals` are the packages that the artifact removes.
pub fn check_transaction(
    transaction: &Transaction,
    staged: &[StagedPackage],
    removals: &[PackageKey],
    database: &Database,
) -> Result<()> {
    for key in transaction.packages() {
        let held = database.find(key).is_some_and(|package| package.selection() == "hold");
        ensure!(!held, "update refused: package {key} is held on this device: run apt-mark unhold {key}");
    }
    for key in &transaction.remove {
        check_removal(key, staged, removals, database)?;
    }
    for key in &transaction.install {
        ensure!(
            staged.iter().any(|package| package.key == *key),
            "update refused: package {key} would be installed, and is not in the payload: add it there, or \
             let apt download it (network = true, and a source other than file:)"
        );
    }
    for StagedPackage { key, .. } in staged {
        ensure!(
            transaction.install.contains(key),
            "update refused: apt would not install package {key} of the payload: see the lines of apt-get above"
        );
    }
    Ok(())
}

fn check_removal(
    key: &PackageKey,
    staged: &[StagedPackage],
    removals: &[PackageKey],
    database: &Database,
) -> Result<()> {
    if database.find(key).is_some_and(Stanza::is_essential) {
        bail!(
            "update refused: package {key} would be removed, and is essential: change the artifact so that it \
             stays"
        );
    }
    let is_replaced = staged.iter().any(|package| package.control.replaces(&key.name));
    ensure!(
        removals.contains(key) || is_replaced,
        "update refused: package {key} would be removed, because it conflicts with the payload: to remove \
         it, name it under remove in the artifact's meta-data"
    );
    Ok(())
}

/// Refuses an update on a device with packages that dpkg has not finished, and that `transaction` does not
/// finish.
pub fn check_repaired(transaction: &Transaction, database: &Database) -> Result<()> {
    for package in database.unfinished() {
        let key = package.key(&database.native)?;
        let is_dependency = |other: &PackageKey| package.depends_on(&other.name);
        let may_help = transaction.configure.contains(&key) && transaction.install.iter().any(is_dependency);
        ensure!(
            transaction.packages().any(|other| *other == key) || may_help,
            "update refused: package {key} is {}, and this update does not repair it: repair it (dpkg \
             --configure -a, apt-get --fix-broken install), or add a package that does to the artifact",
            package.state()
        );
    }
    Ok(())
}

/// Refuses an update whose packages are larger than the free space without `reserve` bytes.
pub fn check_space(staged: &[StagedPackage], reserve: u64) -> Result<()> {
    // dpkg unpacks a package beside the previous version: the space of what is removed does not count.
    let size = |package: &StagedPackage| package.control.installed_size().max(package.bytes);
    let size = staged.iter().fold(0_u64, |sum, package| sum.saturating_add(size(package)));
    Dir::open(SYSTEM.as_ref())?.check_space(size, reserve)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_device::{database, error, installed, on_device, options, staged, write};

    #[test]
    fn the_larger_of_announced_and_real_size_has_to_fit() {
        let package = |announced: &str, bytes| StagedPackage {
            path: "a.deb".into(),
            key: PackageKey::from_apt("a"),
            control: Stanza(format!("Package: a\n{announced}").into()),
            conffiles: Vec::new(),
            diverts: false,
            downloaded: false,
            items: Vec::new(),
            bytes,
        };
        for (announced, bytes) in
            [("Installed-Size: 1125899906842624", 1), ("Installed-Size: 1", 1 << 60), ("", 1 << 60)]
        {
            let error = check_space(&[package(announced, bytes)], 0).unwrap_err().to_string();
            assert!(error.contains(&format!("{} bytes needed", 1_u64 << 60)), "{announced:?} {bytes}: {error}");
        }
        check_space(&[package("", 0)], 0).unwrap();
    }

    fn keys(names: &[&str]) -> Vec<PackageKey> {
        names.iter().map(|name| PackageKey::from_apt(name)).collect()
    }

    fn transaction(install: &[&str], remove: &[&str], configure: &[&str]) -> Transaction {
        Transaction { install: keys(install), remove: keys(remove), configure: keys(configure) }
    }

    #[test]
    fn packages_for_another_machine_and_older_ones_are_refused() {
        on_device(|| {
            write("/var/lib/dpkg/arch", "arm64\narmhf\n");
            let database = database(&installed("a", "3"));
            let check = |package: StagedPackage, options: &Options| check_payload(&[package], &database, options);
            let foreign = |architecture: &str| {
                let mut package = staged("b", "", &[]);
                package.key.foreign = Some(architecture.into());
                package
            };
            check(staged("b", "", &[]), &options()).unwrap();
            check(foreign("armhf"), &options()).unwrap();
            assert!(error(check(foreign("s390x"), &options())).contains("b 2 refused: it is for s390x"));
            assert!(error(check(staged("a", "", &[]), &options())).contains("older than the installed 3"));
            check(staged("a", "", &[]), &Options { allow_downgrade: true, ..options() }).unwrap();
        });
    }

    #[test]
    fn only_what_was_asked_for_is_changed() {
        let status = |name, more: &str| format!("{}{more}\n", installed(name, "1"));
        let held = status("held", "").replace("install ok", "hold ok");
        let all = [status("a", ""), held, status("base", "Essential: yes\n"), status("other", "")].concat();
        let (database, payload) = (database(&all), [staged("a", "Replaces: old (<< 2)\n", &[])]);
        let check = |install: &[&str], remove: &[&str]| {
            check_transaction(&transaction(install, remove, &[]), &payload, &keys(&["other", "base"]), &database)
        };
        check(&["a"], &["other"]).unwrap();
        check(&["a"], &["old"]).unwrap();
        for (install, remove, expected) in [
            (&["a", "held"][..], &[][..], "package held is held"),
            (&["a"], &["held"], "package held is held"),
            (&["a"], &["base"], "package base would be removed, and is essential"),
            (&["a"], &["another"], "package another would be removed"),
            (&["a", "new"], &[], "package new would be installed"),
            (&[], &["other"], "would not install package a"),
        ] {
            let error = error(check(install, remove));
            assert!(error.contains(expected), "{install:?} {remove:?}: {error}");
        }
    }

    #[test]
    fn unfinished_packages_have_to_be_repaired_by_the_update() {
        let unfinished = installed("u", "1").replace("ok installed", "ok unpacked") + "Depends: lib\n";
        let database = database(&[unfinished, installed("a", "1")].join("\n"));
        let check = |transaction| check_repaired(&transaction, &database);
        check(transaction(&["u"], &[], &[])).unwrap();
        check(transaction(&["a"], &["u"], &[])).unwrap();
        check(transaction(&["lib"], &[], &["u"])).unwrap();
        for other in
            [transaction(&["a"], &[], &["u"]), transaction(&["lib"], &[], &["a"]), transaction(&["a"], &[], &[])]
        {
            assert!(error(check(other)).contains("package u is unpacked"));
        }
    }
}
