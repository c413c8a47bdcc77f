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
}
