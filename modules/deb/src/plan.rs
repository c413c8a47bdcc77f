//! What apt is going to do: simulated, and read from the lines that are made for programs.

use std::path::Path;

use anyhow::{Context, Result, bail};
use mender_update_module::Program;

use crate::control::Key;
use crate::database::Database;
use crate::dpkg;
use crate::settings::{Conffiles, Wishes};
use crate::staged::Staged;

/// The packages of one transaction.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Those that get a version, a new one or the same again.
    pub install: Vec<Key>,
    /// Those that go.
    pub remove: Vec<Key>,
    /// Those that get configured.
    pub configure: Vec<Key>,
}

impl Plan {
    /// Every package that changes.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.install.iter().chain(&self.remove)
    }
}

/// Asks apt what it would do to install `staged` and remove `remove`. What it may not do is not its to say: that
/// would name no package.
///
/// # Errors
/// When it finds no way: which package needs what.
pub fn simulate(staged: &[Staged], remove: &[Key], wishes: &Wishes, database: &Database) -> Result<Plan> {
    if staged.is_empty() && remove.is_empty() {
        return Ok(Plan::default());
    }
    let mut apt = apt_get(staged, remove, wishes, database).args([
        "--simulate",
        "--allow-downgrades",
        "--allow-change-held-packages",
        "--allow-remove-essential",
    ]);
    let (status, said) = apt.answer()?;
    let said = String::from_utf8_lossy(&said);
    if !status.success() {
        bail!("apt finds no way to install this: {}", reasons(&said).unwrap_or("see what it says above"));
    }
    parse(&said).with_context(|| format!("understanding what apt is going to do:\n{said}"))
}

/// Lets apt do it, with what it says in the deployment log.
///
/// # Errors
/// When it fails, and with it the update.
pub fn carry_out(staged: &[Staged], remove: &[Key], wishes: &Wishes, database: &Database) -> Result<()> {
    if staged.is_empty() && remove.is_empty() {
        return Ok(());
    }
    let downgrade = wishes.allow_downgrade.then_some("--allow-downgrades");
    apt_get(staged, remove, wishes, database).args(downgrade).run()
}

/// Lets apt download into the directory `place` what it needs beside `staged`, and change nothing else.
///
/// # Errors
/// When it fails.
pub fn download(
    staged: &[Staged],
    remove: &[Key],
    wishes: &Wishes,
    database: &Database,
    place: &Path,
) -> Result<()> {
    let downgrade = wishes.allow_downgrade.then_some("--allow-downgrades");
    apt_get(staged, remove, wishes, database)
        .args(["--download-only", "-o"])
        .arg(format!("Dir::Cache::Archives={}", place.display()))
        .args(downgrade)
        .run()
}

fn apt_get(staged: &[Staged], remove: &[Key], wishes: &Wishes, database: &Database) -> Program {
    let options = [
        "Dpkg::Use-Pty=0".to_owned(),
        "APT::Sandbox::User=root".to_owned(), // the staging place is closed to everybody else
        // A larger one is a negative number to apt, which waits for ever then.
        format!("DPkg::Lock::Timeout={}", wishes.lock_seconds.min(i32::MAX as u64)),
    ];
    // Without the network nothing counts but what is here: no lists, and no cache made with them.
    let alone = [
        "Dir::Etc::SourceList=/dev/null",
        "Dir::Etc::SourceParts=/dev/null",
        "Dir::Cache::pkgcache=",
        "Dir::Cache::srcpkgcache=",
    ];
    let alone = alone.iter().filter(|_| !wishes.network).map(|option| (*option).to_owned());
    let force = conffile_options(wishes.conffiles).iter().map(|option| format!("Dpkg::Options::={option}"));
    let options = options.into_iter().chain(alone).chain(force).flat_map(|option| ["-o".to_owned(), option]);
    // apt does nothing for a package that lacks something, even where the payload brings it, unless it is to repair that.
    let repairs = database.unfinished().next().map(|_| "--fix-broken");
    dpkg::change("apt-get")
        .args(repairs)
        .env(ucf(wishes.conffiles), "1")
        .args(["--quiet", "--yes", "--reinstall", "--no-install-recommends"])
        .args(options)
        .arg("install")
        .args(staged.iter().map(|package| package.path.as_path()))
        .args(remove.iter().map(|key| format!("{key}-")))
}

/// How dpkg is to decide about a configuration file, without asking. The device's dpkg.cfg, or `DPkg::Options` of its apt,
/// may say otherwise: what comes last counts, so every option is named.
pub fn conffile_options(policy: Conffiles) -> &'static [&'static str] {
    match policy {
        Conffiles::Keep => &[
            "--no-force-confnew",
            "--no-force-confdef",
            "--no-force-confmiss",
            "--no-force-confask",
            "--force-confold",
        ],
        Conffiles::Replace => &[
            "--no-force-confold",
            "--no-force-confdef",
            "--no-force-confmiss",
            "--no-force-confask",
            "--force-confnew",
        ],
        Conffiles::Default => &[
            "--no-force-confnew",
            "--no-force-confmiss",
            "--no-force-confask",
            "--force-confdef",
            "--force-confold",
        ],
    }
}

/// As [`conffile_options`], for packages that use ucf.
fn ucf(policy: Conffiles) -> &'static str {
    if policy == Conffiles::Replace { "UCF_FORCE_CONFFNEW" } else { "UCF_FORCE_CONFFOLD" }
}

/// The lines `Inst NAME …`, `Remv NAME …`, `Purg NAME …` and `Conf NAME …`.
fn parse(said: &str) -> Result<Plan> {
    let mut plan = Plan::default();
    for line in said.lines() {
        let Some((word, rest)) = line.split_once(' ') else { continue };
        let list = match word {
            "Inst" => &mut plan.install,
            "Remv" | "Purg" => &mut plan.remove,
            "Conf" => &mut plan.configure,
            _ => continue,
        };
        let name = rest.split(' ').next().filter(|name| !name.is_empty());
        list.push(Key::of_apt(name.context("a line without a package")?));
    }
    Ok(plan)
}

/// What apt says of unmet dependencies: ` package : Depends: other (>= 1) but it is not installable`.
fn reasons(said: &str) -> Option<&str> {
    let (_, reasons) = said.split_once("unmet dependencies:\n")?;
    Some(reasons.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_for_programs_are_understood_and_others_passed_over() {
        let said = "Reading package lists...\nThe following packages will be REMOVED:\n  a\n\
                    0 upgraded, 1 newly installed, 1 to remove and 0 not upgraded.\n\
                    Remv a [1.0] [x:armhf ]\nPurg gone [1]\nInst c (1.0 local-deb [all])\n\
                    Inst d:armhf [1.0] (2.0~rc1+x local-deb [armhf])\nConf c (1.0 local-deb [all])\n";
        let plan = parse(said).unwrap();
        let names = |keys: &[Key]| keys.iter().map(Key::to_string).collect::<Vec<_>>();
        assert_eq!(names(&plan.install), ["c", "d:armhf"]);
        assert_eq!(names(&plan.remove), ["a", "gone"]);
        assert_eq!(names(&plan.configure), ["c"]);
        assert_eq!(plan.keys().count(), 4);
    }

    #[test]
    fn unmet_dependencies_are_quoted() {
        let said = "The following packages have unmet dependencies:\n b : Depends: a (>= 2.0) but 1.0 is to be installed\n";
        assert_eq!(reasons(said), Some(" b : Depends: a (>= 2.0) but 1.0 is to be installed"));
        assert_eq!(reasons("other"), None);
    }
}
