//! Scenarios of `container` with real podman and systemd: install, rollback, and power losses. Every command of podman
//! takes seconds on this machine, so one scenario tests several things. `cargo xtask engines` tests the other features
//! on the host.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use test_image::{Archive, Mode};

use crate::Scenario;
use crate::device::{Device, journal, module_directory};
use crate::scenarios::HEALTH_PASSES;

/// The machine whose image has a container engine.
pub const MACHINE: &str = "raspi3b";

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "container-install",
        description: "a first install and an update with the same tag are rolled back, installed and committed",
        run: install,
    },
    Scenario {
        name: "container-power-loss-load",
        description: "power loss while an image is loaded: the previous version answers, and an update installs",
        run: power_loss_load,
    },
    Scenario {
        name: "container-power-loss-install",
        description: "power loss after the previous version was stopped: it answers after the boot",
        run: power_loss_install,
    },
    Scenario {
        name: "container-power-loss-rollback",
        description: "power loss in ArtifactRollback: the previous version answers after the boot",
        run: power_loss_rollback,
    },
];

pub const MODULE: &str = "container";
const SETTINGS: &str = "/etc/mender-modules/container.toml";
/// A shell pattern for the directories of podman's temporary files.
const TEMPORARY: &str = "/var/tmp/mender-update-module-container-*";
const TAG: &str = "localhost/shop:latest";

/// Starts the device with the module and its settings.
fn start(device: &mut Device) -> Result<()> {
    device.power_on_with_package(MODULE)?;
    write_settings(device)
}

/// Writes the module's settings.
pub fn write_settings(device: &Device) -> Result<()> {
    let settings = format!("stable_seconds = 3\\nhealth_seconds = {HEALTH_PASSES}\\n");
    device.ok(&format!("printf '{settings}' > {SETTINGS} && sync")).map(drop)
}

/// Starts the device and installs the first version. Returns the images.
fn with_previous_version(device: &mut Device) -> Result<Vec<String>> {
    start(device)?;
    device.install_and_commit(&shop(device, "1", 0)?)?;
    images(device)
}

/// An artifact of the project shop. Its only service runs an image with `padding` bytes in addition to the server, and
/// answers at port 8080.
fn shop(device: &Device, version: &str, padding: usize) -> Result<String> {
    device.copy_in(&shop_on_host(device, &format!("release-{version}"), version, padding, &[])?)
}

/// The artifact of [`shop`] with this name, on the host.
pub fn shop_on_host(device: &Device, name: &str, version: &str, padding: usize, options: &[&str]) -> Result<PathBuf> {
    let image = device.image(TAG, version, Mode::Healthy, padding)?;
    let web = json!({
        "image": TAG,
        "network": "host",
        "env": {"PORT": "8080"},
        "volumes": ["data:/data"],
        "stop_seconds": 1,
    });
    let services = device.directory().join(format!("run-{version}.json"));
    fs::write(&services, json!({"web": web}).to_string())
        .with_context(|| format!("writing {} failed", services.display()))?;
    let run = format!("--run={}", services.display());
    let options = [&["--project", "shop", &run], options].concat();
    device.generate_on_host(MODULE, name, &options, vec![("app.tar", image.content)])
}

/// Starts the device and installs the first version. Returns another image, with `padding` bytes in addition to its
/// server.
pub fn with_first_version(device: &mut Device, padding: usize) -> Result<Archive> {
    with_previous_version(device)?;
    device.image("localhost/other:latest", "other", Mode::Healthy, padding)
}

/// An artifact of the second version, in an image with `padding` bytes in addition to its server.
pub fn second_version(device: &Device, padding: usize) -> Result<String> {
    shop(device, "2", padding)
}

/// Waits until the service answers with `version`.
fn is_active(device: &Device, version: &str) -> Result<()> {
    let request = "busybox wget -q -O - http://127.0.0.1:8080/ 2>/dev/null";
    device
        .wait_until(&format!("[ \"$({request})\" = {version} ]"))
        .with_context(|| format!("version {version} does not answer"))
}

fn images(device: &Device) -> Result<Vec<String>> {
    let list = device.ok("podman images --no-trunc --format '{{.ID}} {{.Repository}}:{{.Tag}}' | sort")?;
    Ok(list.lines().map(str::to_owned).collect())
}

/// Fails unless the images are the same as `before` and an update has left no files behind.
fn is_clean(device: &Device, before: &[String]) -> Result<()> {
    device.is_clean(MODULE, &[&format!("{}/staging", module_directory(MODULE))])?;
    let now = images(device)?;
    ensure!(now == before, "the images were changed: {now:#?} instead of {before:#?}");
    Ok(())
}

fn install(device: &mut Device) -> Result<()> {
    start(device)?;
    let first = shop(device, "1", 0)?;
    let none = images(device)?;
    device.install(&first)?;
    is_active(device, "1")?;
    device.client("rollback", 0)?;
    device.ok("test -z \"$(podman ps --all --quiet)\" && ! systemctl is-active mender-shop.web.service")?;
    is_clean(device, &none)?;
    device.install_and_commit(&first)?;
    is_active(device, "1")?;
    let before = images(device)?;
    let second = second_version(device, 0)?; // with the same tag
    device.install(&second)?;
    is_active(device, "2")?;
    device.client("rollback", 0)?;
    is_active(device, "1")?;
    is_clean(device, &before)?;
    device.install_and_commit(&second)?;
    is_active(device, "2")?;
    let after = images(device)?;
    ensure!(after.len() == before.len(), "the previous image was not removed: {after:#?}");
    device.ok("podman volume exists data").map(drop)
}

/// Makes the device lose power during an update to `second`. The previous version must answer after the boot without
/// podman's temporary files, and a repeated update must leave as many images as `before`.
fn survives_power_loss(device: &mut Device, second: &str, before: &[String]) -> Result<()> {
    device.reboot_by_power_loss()?;
    device.ok(&format!("! ls -d {TEMPORARY}")).context("the boot left podman's temporary files")?;
    is_active(device, "1").context("after the boot")?;
    device.install_and_commit(second)?;
    is_active(device, "2")?;
    let after = images(device)?;
    ensure!(after.len() == before.len(), "the update left images behind: {after:#?}");
    Ok(())
}

fn power_loss_load(device: &mut Device) -> Result<()> {
    let before = with_previous_version(device)?;
    // So large that loading takes longer than the condition needs to find it.
    let second = second_version(device, 8 << 20)?;
    // podman is stopped while it has a temporary copy, so that it cannot end before the power is lost. The copy must be
    // durable, because the boot must remove it.
    let has_copy = format!("test -n \"$(find {TEMPORARY} -type f -size +0 2> /dev/null)\"");
    let stopped = format!("{has_copy} && busybox killall -q -STOP podman && {has_copy} && sync");
    device.start_client_until(&format!("install {second}"), &stopped)?;
    survives_power_loss(device, &second, &before)
}

/// A shell condition: the journal contains `phase`, and no version runs.
fn stopped_in(phase: &str) -> String {
    format!("grep -q {phase} {} && ! busybox pidof tiny-http > /dev/null", journal(MODULE))
}

fn power_loss_install(device: &mut Device) -> Result<()> {
    let before = with_previous_version(device)?;
    let second = second_version(device, 0)?;
    device.start_client_until(&format!("install {second}"), &stopped_in("Switching"))?;
    survives_power_loss(device, &second, &before)
}

fn power_loss_rollback(device: &mut Device) -> Result<()> {
    let before = with_previous_version(device)?;
    let second = second_version(device, 0)?;
    device.install(&second)?;
    is_active(device, "2")?;
    device.start_client_until("rollback", &stopped_in("RollingBack"))?;
    device.reboot_by_power_loss()?;
    is_active(device, "1").context("after the boot")?;
    device.client("rollback", 0)?;
    is_active(device, "1")?;
    is_clean(device, &before)
}
