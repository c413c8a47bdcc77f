//! A package whose module the client's package has, too: the package diverts the module of the client, and restores it
//! on removal.

use anyhow::{Result, ensure};

use crate::device::{Device, journal};

/// Installs the package of `module` beside the client, and purges it.
pub fn run(device: &mut Device, module: &str) -> Result<()> {
    let package = format!("mender-update-module-{module}");
    let executable = format!("/usr/share/mender/modules/v3/{module}");
    let (journal, client) = (journal(module), device.generation().package);
    device.power_on()?;
    let upstream = device.ok(&format!("sha256sum {executable}"))?;
    device.install_package_with_apt(module)?;
    let installed = device.ok(&format!("{executable} --version && sha256sum {executable}"))?;
    ensure!(!installed.contains(&upstream), "the module of the client is still installed: {executable}");
    device.ok(&format!("dpkg --verify {package} {client} && systemctl is-enabled {package}-recover.service"))?;
    // A package with an unfinished update cannot be removed.
    device.ok(&format!("mkdir -p $(dirname {journal}) && touch {journal}"))?;
    device.fails(&format!("dpkg --remove {package}"), "under way")?;
    device.ok(&format!("rm {journal}"))?;
    device.purge_package(&package)?;
    let after = device.ok(&format!("sha256sum {executable}"))?;
    ensure!(after == upstream, "the module of the client was not restored: {after}");
    device.ok(&format!("dpkg --verify {client} && test -z \"$(dpkg-divert --list '*v3/{module}*')\"")).map(drop)
}
