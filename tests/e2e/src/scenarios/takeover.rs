//! A package whose module Debian's mender-client has too: it takes that one's place, and gives it back.

use anyhow::{Result, ensure};

use crate::lab::Lab;

/// Installs the package of `module` over mender-client's module, and purges it again.
pub fn play(lab: &mut Lab, module: &str) -> Result<()> {
    let package = format!("mender-update-module-{module}");
    let executable = format!("/usr/share/mender/modules/v3/{module}");
    let journal = format!("/data/mender/update-modules/{module}/journal.json");
    lab.power_on()?;
    let theirs = lab.ok(&format!("sha256sum {executable}"))?;
    lab.install_package_with_apt(module)?;
    let ours = lab.ok(&format!("{executable} --version && sha256sum {executable}"))?;
    ensure!(!ours.contains(&theirs), "mender-client's module is still in place");
    lab.ok(&format!(
        "dpkg --verify {package} mender-client && systemctl is-enabled {package}-recover.service"
    ))?;
    lab.ok(&format!("mkdir -p $(dirname {journal}) && touch {journal}"))?;
    lab.fails(&format!("dpkg --remove {package}"), "under way")?;
    lab.ok(&format!("rm {journal}"))?;
    lab.purge_package(&package)?;
    let after = lab.ok(&format!("sha256sum {executable}"))?;
    ensure!(after == theirs, "mender-client's module has not come back: {after}");
    lab.ok(&format!("dpkg --verify mender-client && test -z \"$(dpkg-divert --list '*v3/{module}*')\""))?;
    Ok(())
}
