//! What an update may not do, checked before anything is touched: every refusal names the package and why.

use anyhow::{Result, bail, ensure};
use update_module::durable::Dir;
use update_module::say;

use crate::control::{Key, Stanza};
use crate::database::{self, Database};
use crate::dpkg;
use crate::plan::Plan;
use crate::settings::Wishes;
use crate::staged::Staged;

/// Where most of a package's files come to lie.
const SYSTEM: &str = "/usr";

/// Brings an interrupted dpkg to its end, if there was one.
///
/// # Errors
/// When it does not come to one: which packages are in the way.
pub fn repair() -> Result<()> {
    let unfinished = |database: &Database| -> Vec<String> {
        let told = |package: &Stanza| {
            format!("{} ({})", package.field("Package").unwrap_or_default(), package.state())
        };
        database.unfinished().map(told).collect()
    };
    let before = unfinished(&Database::read()?);
    if before.is_empty() && !database::is_interrupted()? {
        return Ok(());
    }
    say(format_args!("dpkg was interrupted, repairing it first: {}", before.join(", ")));
    let repaired =
        dpkg::change("dpkg").args(["--force-confdef", "--force-confold", "--configure", "--pending"]).run();
    let after = unfinished(&Database::read()?);
    ensure!(
        after.is_empty(),
        "dpkg was interrupted before this update, and its repair did not help {}: mend that by hand (dpkg --configure -a, \
         apt-get --fix-broken install), then install again",
        after.join(", ")
    );
    repaired
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
pub fn check_plan(
    plan: &Plan,
    staged: &[Staged],
    asked: &[Key],
    database: &Database,
    network: bool,
) -> Result<()> {
    for key in plan.keys() {
        let held = database.find(key).is_some_and(|package| package.want() == "hold");
        ensure!(!held, "package {key} is held on this device: apt-mark unhold {key} would let it change");
    }
    for key in &plan.remove {
        check_removal(key, staged, asked, database)?;
    }
    for key in &plan.install {
        ensure!(
            network || staged.iter().any(|package| package.key == *key),
            "package {key} would have to be installed too, and is not in the payload"
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
    let size = staged.iter().map(|package| package.control.installed_size()).sum();
    Dir::open(SYSTEM.as_ref())?.check_space(size, reserve)
}
