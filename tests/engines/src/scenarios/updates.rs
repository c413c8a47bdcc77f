//! Scenarios of the form `run`, from Download to Cleanup.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use test_image::{Archive, Mode};

use super::ENGINES;
use crate::Scenario;
use crate::device::{Device, STATE};
use crate::release::{Release, release};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "install",
        summary: "a first install and an update with the same tag roll back, install and commit",
        on: ENGINES,
        run: install,
    },
    Scenario {
        name: "unhealthy",
        summary: "an unhealthy version and one that exits at its start are rolled back, and the log has the cause",
        on: ENGINES,
        run: unhealthy,
    },
    Scenario {
        name: "interrupted",
        summary: "a device that loses power in ArtifactInstall or ArtifactRollback boots with the previous version",
        on: ENGINES,
        run: interrupted,
    },
    Scenario {
        name: "projects",
        summary: "two projects share an image, are updated independently, start at a boot, and return with docker",
        on: ENGINES,
        run: projects,
    },
];

const TAG: &str = "localhost/shop:latest";

/// A service that answers at `port`.
pub fn service(image: &str, port: u16) -> Value {
    json!({
        "image": image,
        "network": "host",
        "env": {"PORT": port.to_string()},
        "volumes": ["data:/data"],
        "stop_seconds": 1,
    })
}

/// A release of `project` with one service.
pub fn plain(name: &str, project: &str, reference: &str, image: &Archive, port: u16) -> Release {
    release(name, project, &[(reference, image)], json!({"run": {"web": service(reference, port)}}))
}

fn shop(device: &Device, version: &str, mode: Mode) -> Release {
    plain(version, "shop", TAG, &device.image(TAG, version, mode), 8080)
}

fn install(device: &mut Device) -> Result<()> {
    let before = device.images()?;
    let first = device.artifact(&shop(device, "1", Mode::Healthy))?;
    device.client(&format!("install {first}"), 0)?;
    device.answers(8080, "1")?;
    device.client("rollback", 0)?;
    let engine = device.setup.engine();
    device.ok(&format!("test -z \"$({engine} ps --all --quiet)\""))?;
    device.exits_with("systemctl is-active mender-shop.web.service", 4)?;
    device.is_clean(&before)?;
    device.client(&format!("install {first}"), 0)?;
    device.client("commit", 0)?;
    device.answers(8080, "1")?;
    let previous = device.images()?;
    let second = device.artifact(&shop(device, "2", Mode::Healthy))?;
    device.client(&format!("install {second}"), 0)?;
    device.answers(8080, "2")?;
    device.client("rollback", 0)?;
    device.answers(8080, "1")?;
    device.is_clean(&previous)?;
    device.client(&format!("install {second}"), 0)?;
    device.client("commit", 0)?;
    device.answers(8080, "2")?;
    ensure!(device.images()?.len() == previous.len(), "the previous image is left: {:#?}", device.images()?);
    device.lose_power()?;
    device.power_on()?;
    device.answers(8080, "2").context("after a boot")?;
    device.ok(&format!("{engine} volume inspect data")).map(drop)
}

fn unhealthy(device: &mut Device) -> Result<()> {
    device.unhealthy(|device| device.refuses(&shop(device, "0", Mode::Exit), &["this version is broken"]))?;
    // Monitoring must not find the unit of a version that is gone.
    device.ok("test -z \"$(systemctl list-units --failed --no-legend 'mender-*')\"")?;
    device.update(&shop(device, "1", Mode::Healthy))?;
    let previous = device.images()?;
    device.unhealthy(|device| device.refuses(&shop(device, "2", Mode::Exit), &["this version is broken"]))?;
    device.answers(8080, "1")?;
    device.is_clean(&previous)?;
    // With a health check in the image.
    let checked = |version, mode| {
        let image = device.image_of(TAG, version, mode).with_health_check().archive();
        plain(version, "shop", TAG, &image, 8080)
    };
    let third = checked("3", Mode::Unhealthy);
    device.unhealthy(|device| device.refuses(&third, &["version 3 begins", "health check"]))?;
    device.answers(8080, "1")?;
    device.is_clean(&previous)?;
    device.update(&checked("4", Mode::Healthy))?;
    device.answers(8080, "4")
}

fn interrupted(device: &mut Device) -> Result<()> {
    device.update(&shop(device, "1", Mode::Healthy))?;
    let previous = device.images()?;
    let second = device.artifact(&shop(device, "2", Mode::Healthy))?;
    let stopped = "! pidof tiny-http > /dev/null";
    for (arguments, phase) in [(format!("install {second}"), "Switching"), ("rollback".to_owned(), "RollingBack")] {
        if phase == "RollingBack" {
            device.client(&format!("install {second}"), 0)?;
            device.answers(8080, "2")?;
        }
        let condition = format!("grep -q {phase} {STATE}/journal.json && {stopped}");
        let mut client = device.client_until(&arguments, &condition)?;
        device.lose_power()?;
        client.wait()?;
        device.power_on()?;
        device.answers(8080, "1").with_context(|| format!("power lost in the phase {phase}"))?;
    }
    device.client("rollback", 0)?;
    device.answers(8080, "1")?;
    device.is_clean(&previous)?;
    device.client(&format!("install {second}"), 0)?;
    device.client("commit", 0)?;
    device.answers(8080, "2")
}

/// Stops docker, stops it for longer, and lets it fail once at a boot: the project of `unit`, which answers at `port`,
/// returns each time.
pub fn returns_with_docker(device: &mut Device, unit: &str, port: u16, version: &str) -> Result<()> {
    if device.setup.is_podman() {
        return Ok(());
    }
    device.ok("systemctl stop docker.service docker.socket")?;
    device.answers(port, version).context("after a stop of docker")?;
    device.ok("systemctl mask --runtime --now docker.service docker.socket")?;
    device.wait(&format!("test $(systemctl show --value --property=NRestarts {unit}) -ge 6"))?;
    device.ok("systemctl unmask --runtime docker.service docker.socket && systemctl start docker.service")?;
    device.answers(port, version).context("after a start of docker")?;
    let fails = "[Service]\nExecStartPre=/bin/sh -c 'test -e /run/failed || { touch /run/failed; exit 1; }'\n";
    device.write("/etc/systemd/system/docker.service.d/fails-once.conf", fails.as_bytes())?;
    device.lose_power()?;
    device.power_on()?;
    device.ok("test -e /run/failed").context("docker has not failed")?;
    device.answers(port, version).context("after a failure of docker at a boot")
}

fn projects(device: &mut Device) -> Result<()> {
    let base = device.image("localhost/base:1", "1", Mode::Healthy);
    device.update(&plain("shop-1", "shop", "localhost/base:1", &base, 8080))?;
    device.update(&plain("museum-1", "museum", "localhost/base:1", &base, 8081))?;
    let second = device.image("localhost/shop:2", "2", Mode::Healthy);
    device.update(&plain("shop-2", "shop", "localhost/shop:2", &second, 8080))?;
    device.lose_power()?;
    device.power_on()?;
    device.answers(8080, "2")?;
    device.answers(8081, "1")?;
    let third = device.image("localhost/museum:3", "3", Mode::Healthy);
    device.update(&plain("museum-3", "museum", "localhost/museum:3", &third, 8081))?;
    device.answers(8081, "3")?;
    let left = device.images()?;
    ensure!(!left.iter().any(|image| image.contains("base")), "the shared image is left: {left:#?}");
    returns_with_docker(device, "mender-museum.web.service", 8081, "3")
}
