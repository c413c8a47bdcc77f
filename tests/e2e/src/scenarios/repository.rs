//! Scenarios of the APT repository: `web-file` is installed from it, upgraded while an update is pending, and removed.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use host::directory;
use mender_server::Files;

use super::destination::Destination;
use super::web_file::{FILES, differences};
use crate::device::Device;

const PACKAGE: &str = "mender-update-module-web-file";
const MODULE: &str = "web-file";
const SETTINGS: &str = "/etc/mender-modules/web-file.toml";

/// A version that is older than that of the repository. Its package has the same files.
const PREVIOUS: &str = "0.0.1";

/// The file of the source on the device.
const SOURCE: &str = "/etc/apt/sources.list.d/mender-rust-modules.sources";

/// Downloads the lists of this source only: those of Debian's packages would take minutes on an emulated processor.
const UPDATE: &str = "apt-get -o Dir::Etc::sourcelist=sources.list.d/mender-rust-modules.sources \
    -o Dir::Etc::sourceparts=- -o APT::Get::List-Cleanup=0 -o APT::Update::Error-Mode=any update";

/// Installs the package from the repository, removes and purges it. apt refuses a repository that was changed.
pub fn install(device: &mut Device) -> Result<()> {
    device.power_on()?;
    let before = device.ok(FILES)?;
    let changed = Files::start(&changed_repository(device)?)?;
    add_source(device, &changed)?;
    device.fails(UPDATE, "is not signed")?;
    device.fails(&format!("apt-get install --yes {PACKAGE}"), PACKAGE)?;
    let server = Files::start(device.repository())?;
    add_source(device, &server)?;
    device.package(UPDATE)?;
    device.apt(&format!("install --yes {PACKAGE}"))?;
    let version = installed(device)?;
    let origin = device.ok(&format!("apt-cache policy {PACKAGE}"))?;
    ensure!(origin.contains(&server.url()), "{PACKAGE} {version} is not from the repository:\n{origin}");
    device.ok(&format!("dpkg --verify {PACKAGE} && systemctl is-enabled {PACKAGE}-recover.service"))?;
    device.apt(&format!("remove --yes {PACKAGE}"))?;
    device.ok(&format!("test ! -e /usr/share/mender/modules/v3/{MODULE} -a -e {SETTINGS}"))?;
    device.apt(&format!("purge --yes {PACKAGE}"))?;
    device.ok(&format!("rm {SOURCE}"))?;
    let after = device.ok(FILES)?;
    ensure!(before == after, "purging {PACKAGE} left changes:\n{}", differences(&before, &after));
    Ok(())
}

/// Installs the previous version of the package and the update `artifact`. Upgrades the package from the repository
/// while the update is pending. Then rolls the update back; and once more, with a commit. `web_root` has the contents
/// `before`.
pub fn upgrade(
    device: &Device,
    web_root: &Destination,
    before: &str,
    artifact: &str,
    files: &[(&str, &str)],
) -> Result<()> {
    device.apt(&format!("purge --yes {PACKAGE}"))?;
    let previous = device.copy_in(&device.package_with_version(MODULE, PREVIOUS)?)?;
    let server = Files::start(device.repository())?;
    add_source(device, &server)?;
    for end in ["rollback", "commit"] {
        // From the second time on, this is a downgrade; no update is pending.
        device.package(&format!("dpkg --install {previous}"))?;
        ensure!(installed(device)? == PREVIOUS, "the previous version is not installed");
        device.install(artifact)?;
        device.package(UPDATE)?;
        device.fails(&format!("apt-get remove --yes {PACKAGE}"), "is under way")?;
        device.apt("upgrade --yes")?;
        let version = installed(device)?;
        ensure!(version != PREVIOUS, "apt-get upgrade left version {version}");
        web_root.is_active(device, files).context("after the upgrade")?;
        device.client(end, 0).with_context(|| format!("{end} after the upgrade"))?;
        match end {
            "rollback" => web_root.is_unchanged(device, before)?,
            _ => web_root.is_active(device, files)?,
        }
        web_root.is_clean(device)?;
    }
    device.apt(&format!("remove --yes {PACKAGE}"))?;
    device.apt(&format!("purge --yes {PACKAGE}"))?;
    web_root.is_active(device, files).context("after purging the package")
}

/// Adds the source with the repository's own file, which contains the key, but with the URL of `server`.
fn add_source(device: &Device, server: &Files) -> Result<()> {
    let path = device.repository().join("mender-rust-modules.sources");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {} failed", path.display()))?;
    let line = |line: &str| match line.starts_with("URIs: ") {
        true => format!("URIs: {}\n", server.url()),
        false => format!("{line}\n"),
    };
    let text: String = text.lines().map(line).collect();
    let copy = device.write_file("mender-rust-modules.sources", text.as_bytes())?;
    device.ok(&format!("mv {copy} {SOURCE} && chmod 644 {SOURCE}")).map(drop)
}

/// A copy of the repository in which the signed file is not what was signed.
fn changed_repository(device: &Device) -> Result<PathBuf> {
    let (repository, copy) = (device.repository(), device.directory().join("changed-repository"));
    for path in directory::files(repository)? {
        let content = fs::read(&path).with_context(|| format!("reading {} failed", path.display()))?;
        let name = path.strip_prefix(repository).context("a file outside of the repository")?;
        let content = match name.ends_with("InRelease") {
            true => {
                String::from_utf8_lossy(&content).replace("Components: main", "Components: main other").into_bytes()
            }
            false => content,
        };
        directory::write(&copy.join(name), content)?;
    }
    // Without the other signature, which would be as wrong.
    let other = copy.join("dists/stable/Release.gpg");
    fs::remove_file(&other).with_context(|| format!("removing {} failed", other.display()))?;
    Ok(copy)
}

/// The version of the installed package.
fn installed(device: &Device) -> Result<String> {
    device.ok(&format!("dpkg-query --show --showformat='${{Version}}' {PACKAGE}"))
}
