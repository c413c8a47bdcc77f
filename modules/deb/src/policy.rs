//! What an update may not do, checked before anything is touched: every refusal names the package and why.

use anyhow::{Result, bail, ensure};
use mender_update_module::durable::Dir;
use mender_update_module::log;

use crate::control::{Key, Stanza};
use crate::database::{self, Database};
use crate::dpkg;
use crate::hooks::Hooks;
use crate::plan::{self, Plan};
use crate::settings::{Conffiles, Wishes};
use crate::staged::Staged;

/// Where most of a package's files come to lie.
const SYSTEM: &str = "/usr";

/// Completes an interrupted run of dpkg, if there was one, with `hooks` around it. What cannot be completed is for
/// [`check_repaired`].
///
/// # Errors
/// When dpkg's database cannot be read.
pub fn repair(hooks: &Hooks) -> Result<()> {
    let before = unfinished(&Database::read()?);
    if before.is_empty() && !database::is_interrupted()? {
        return Ok(());
    }
    log!("dpkg was interrupted, repairing it first: {}", before.join(", "));
    let options = plan::conffile_options(Conffiles::Keep);
    hooks.around(|| {
        if let Err(error) = dpkg::change("dpkg").args(options).args(["--configure", "--pending"]).run() {
            log!("the repair is incomplete: {error:#}");
        }
        Ok(())
    })
}

fn unfinished(database: &Database) -> Vec<String> {
    let told =
        |package: &Stanza| format!("{} ({})", package.field("Package").unwrap_or_default(), package.state());
    database.unfinished().map(told).collect()
}

/// Refuses an update on a device with packages that dpkg has not finished, and that `plan` does not finish either.
///
/// # Errors
/// As said.
pub fn check_repaired(plan: &Plan, database: &Database) -> Result<()> {
    for package in database.unfinished() {
        let key = package.key(&database.native)?;
        let needs = |other: &Key| package.depends_on(&other.name);
        let may_help = plan.configure.contains(&key) && plan.install.iter().any(needs);
        ensure!(
            plan.keys().any(|other| *other == key) || may_help,
            "package {key} is {}, and this update does not repair it: repair it (dpkg --configure -a, \
             apt-get --fix-broken install), or put its repair into the artifact",
            package.state()
        );
    }
    Ok(())
}

/// Refuses packages of the payload that are not for this device, or older than what it has.
///
/// # Errors
/// As said.
pub fn check_payload(staged: &[Staged], database: &Database, wishes: &Wishes) -> Result<()> {
    let foreign = dpkg::foreign()?;
    for Staged { key, control, .. } in staged {
        let version = control.required("Version")?;
        if let Some(architecture) = &key.foreign {
            ensure!(
                foreign.contains(architecture),
                "package {} {version} is for {architecture}, this device is {}",
                key.name,
                database.native
            );
        }
        let Some(installed) = database.installed_version(key) else { continue };
        ensure!(
            wishes.allow_downgrade || !dpkg::is_older(version, installed)?,
            "package {key} {version} is older than the installed {installed}: allow_downgrade would allow it"
        );
    }
    Ok(())
}

/// Refuses a transaction that does more than it was asked for.
///
/// # Errors
/// As said.
pub fn check_plan(plan: &Plan, staged: &[Staged], asked: &[Key], database: &Database) -> Result<()> {
    for key in plan.keys() {
        let held = database.find(key).is_some_and(|package| package.want() == "hold");
        ensure!(!held, "package {key} is held on this device: apt-mark unhold {key} would let it change");
    }
    for key in &plan.remove {
        check_removal(key, staged, asked, database)?;
    }
    for key in &plan.install {
        ensure!(
            staged.iter().any(|package| package.key == *key),
            "package {key} would have to be installed too, and is not in the payload: put it there, or allow apt to download it \
             (network, with a source that is not file:)"
        );
    }
    for Staged { key, .. } in staged {
        ensure!(plan.install.contains(key), "apt would not install package {key} of the payload");
    }
    Ok(())
}

fn check_removal(key: &Key, staged: &[Staged], asked: &[Key], database: &Database) -> Result<()> {
    if database.find(key).is_some_and(Stanza::is_essential) {
        bail!("package {key} is essential, and would be removed");
    }
    let replaced = staged.iter().any(|package| package.control.replaces(&key.name));
    ensure!(
        asked.contains(key) || replaced,
        "package {key} would be removed, because it does not go together with the payload: name it under remove in the \
         artifact's meta-data if that is meant"
    );
    Ok(())
}

/// Refuses an update that does not fit.
///
/// # Errors
/// As said, with the figures.
pub fn check_space(staged: &[Staged], reserve: u64) -> Result<()> {
    // The old lies beside the new until dpkg is through with a package: nothing is saved by what goes.
    let size = |package: &Staged| package.control.installed_size().max(package.bytes);
    let size = staged.iter().fold(0_u64, |sum, package| sum.saturating_add(size(package)));
    Dir::open(SYSTEM.as_ref())?.check_space(size, reserve)
}
