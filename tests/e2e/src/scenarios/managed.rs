//! Scenarios of managed mode: the real client as a daemon, and a Mender server of this process. After each deployment
//! the disk, the client, the status and the deployment log on the server have to agree.

use anyhow::{Context, Result, ensure};
use mender_server::{Fault, Moment};

use crate::Scenario;
use crate::device::Device;
use crate::managed::{CONTAINER, DEB, DIRECTORY, Managed, Outcome, Subject, Views, WEB_FILE};
use crate::scenarios::{HEALTH_FAILS, HEALTH_PASSES};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "managed-web-file",
        description: "the daemon deploys and commits an artifact of web-file",
        run: |device| deploy(device, &WEB_FILE),
    },
    Scenario {
        name: "managed-directory",
        description: "the daemon deploys and commits an artifact of directory",
        run: |device| deploy(device, &DIRECTORY),
    },
    Scenario {
        name: "managed-deb",
        description: "the daemon deploys and commits an artifact of deb",
        run: |device| deploy(device, &DEB),
    },
    Scenario {
        name: CONTAINER_SCENARIO,
        description: "the daemon deploys and commits an artifact of container",
        run: |device| deploy(device, &CONTAINER),
    },
    Scenario {
        name: "managed-failing-install",
        description: "ArtifactInstall fails: the server has the module's own error; the next deployment is committed",
        run: failing_install,
    },
    Scenario {
        name: "managed-health-check",
        description: "the health check fails: the server has the module's own error; the previous version is active",
        run: health_check,
    },
    Scenario {
        name: "managed-abort",
        description: "the server aborts between Download and ArtifactInstall: the previous version is active",
        run: abort,
    },
    Scenario {
        name: "managed-link",
        description: "the link drops in the middle of Download: the client resumes it with a Range request",
        run: link,
    },
    Scenario {
        name: "managed-no-server",
        description: "the server is absent before ArtifactCommit, and after it: the deployment is a success",
        run: no_server,
    },
    Scenario {
        name: "managed-no-server-rollback",
        description: "the server stays absent before ArtifactCommit: the update rolls back",
        run: no_server_rollback,
    },
    Scenario {
        name: "managed-two-deployments",
        description: "two deployments in a row, and one of an artifact that is already installed",
        run: two_deployments,
    },
    Scenario {
        name: "managed-two-modules",
        description: "deployments of two modules: both versions are active, and show-provides has both",
        run: two_modules,
    },
    Scenario {
        name: "managed-deb-reboot",
        description: "deb requests a reboot: the daemon reboots the device and commits after the boot",
        run: deb_reboot,
    },
];

/// The scenario that needs a container engine.
pub const CONTAINER_SCENARIO: &str = "managed-container";

const NEW: &str = "release-2";

/// The report before ArtifactInstall, by which the client learns that the deployment was aborted.
const BEFORE_INSTALL: Moment = Moment { status: "installing", number: 1 };

/// The report before ArtifactCommit, by which the client learns whether it reaches the server.
const BEFORE_COMMIT: Moment = Moment { status: "installing", number: 2 };

/// Starts the device with the previous version of `subject`, and its daemon.
fn start(device: &mut Device, subject: &Subject) -> Result<Managed> {
    device.power_on_with_package(subject.module)?;
    (subject.prepare)(device)?;
    Managed::start(device)
}

/// Offers the artifact `name` of `subject`, and returns the ID of the deployment.
fn offer(device: &Device, managed: &Managed, subject: &Subject, name: &str) -> Result<String> {
    managed.deploy(device, &(subject.artifact)(device, name, &[])?, name)
}

/// Deploys the artifact `name` of `subject`. The views have to agree on `outcome`.
fn ends(device: &Device, managed: &Managed, subject: &Subject, name: &str, outcome: Outcome) -> Result<Views> {
    let id = offer(device, managed, subject, name)?;
    agree(device, managed, subject, &id, outcome)
}

/// Waits for the end of the deployment `id`. The views have to agree on `outcome`, and the module has left nothing
/// behind.
fn agree(device: &Device, managed: &Managed, subject: &Subject, id: &str, outcome: Outcome) -> Result<Views> {
    let views = managed.views(device, subject, id)?;
    let found = views.outcome()?;
    ensure!(found == outcome, "the deployment ended with {found:?} instead of {outcome:?}: {views:#?}");
    device.is_clean(subject.module, &[])?;
    Ok(views)
}

/// Fails unless ArtifactInstall has failed, and the deployment log on the server has an error of the module that
/// contains `text`.
fn failed_in_install(views: &Views, text: &str) -> Result<()> {
    let statuses = &views.deployment.statuses;
    ensure!(statuses.iter().any(|status| status == "installing"), "it failed before ArtifactInstall: {views:#?}");
    let log = views.deployment.log.as_deref().unwrap_or_default();
    ensure!(log.iter().any(|line| line.contains(text)), "the log on the server does not contain {text:?}: {log:#?}");
    Ok(())
}

fn deploy(device: &mut Device, subject: &Subject) -> Result<()> {
    let managed = start(device, subject)?;
    ends(device, &managed, subject, NEW, Outcome::Committed)?;
    let inventory = managed.server.inventory();
    let device_type = inventory.get("device_type").and_then(|value| value.as_str());
    ensure!(device_type == Some(device.device_type()), "the inventory has no device type: {inventory:?}");
    Ok(())
}

fn failing_install(device: &mut Device) -> Result<()> {
    let managed = start(device, &WEB_FILE)?;
    // A file that is a mount point cannot be replaced, which is detected in ArtifactInstall.
    device.ok("cp /var/www/index.html /run/index.html && mount --bind /run/index.html /var/www/index.html")?;
    let views = ends(device, &managed, &WEB_FILE, NEW, Outcome::Failed)?;
    failed_in_install(&views, "/var/www/index.html")?;
    device.ok("umount /var/www/index.html")?;
    ends(device, &managed, &WEB_FILE, "release-3", Outcome::Committed).map(drop)
}

fn health_check(device: &mut Device) -> Result<()> {
    let managed = start(device, &DIRECTORY)?;
    let check = |device: &Device, limit: u64| -> Result<()> {
        let settings = format!(
            "[health]\ncommand = [\"grep\", \"-q\", \"release-3\", \"/srv/app/index.html\"]\n\
             limit_seconds = {limit}\nstable_seconds = 3\n"
        );
        device.ok(&format!("printf '%s' '{settings}' > /etc/mender-modules/directory.toml")).map(drop)
    };
    check(device, HEALTH_FAILS)?;
    let views = ends(device, &managed, &DIRECTORY, NEW, Outcome::Failed)?;
    failed_in_install(&views, "health check failed")?;
    check(device, HEALTH_PASSES)?;
    ends(device, &managed, &DIRECTORY, "release-3", Outcome::Committed).map(drop)
}

fn abort(device: &mut Device) -> Result<()> {
    let managed = start(device, &WEB_FILE)?;
    managed.server.add_fault(Fault::Abort(BEFORE_INSTALL));
    let views = ends(device, &managed, &WEB_FILE, NEW, Outcome::Aborted)?;
    ensure!(views.deployment.downloads == [0], "the artifact was not downloaded before the abort");
    ends(device, &managed, &WEB_FILE, "release-3", Outcome::Committed).map(drop)
}

fn link(device: &mut Device) -> Result<()> {
    let managed = start(device, &WEB_FILE)?;
    managed.server.add_fault(Fault::ConnectionCloses(32_000));
    let views = ends(device, &managed, &WEB_FILE, NEW, Outcome::Committed)?;
    let downloads = views.deployment.downloads;
    ensure!(downloads == [0, 32_000], "the download was not resumed where the link dropped: {downloads:?}");
    Ok(())
}

fn no_server(device: &mut Device) -> Result<()> {
    let managed = start(device, &WEB_FILE)?;
    for (name, fault) in [(NEW, Fault::AbsentFrom(BEFORE_COMMIT)), ("release-3", Fault::AbsentAfter(BEFORE_COMMIT))] {
        managed.server.add_fault(fault);
        let id = offer(device, &managed, &WEB_FILE, name)?;
        managed.wait_for_unanswered(device)?;
        managed.server.come_back();
        agree(device, &managed, &WEB_FILE, &id, Outcome::Committed).with_context(|| format!("{fault:?}"))?;
    }
    Ok(())
}

fn no_server_rollback(device: &mut Device) -> Result<()> {
    let managed = start(device, &WEB_FILE)?;
    managed.server.add_fault(Fault::AbsentFrom(BEFORE_COMMIT));
    let id = offer(device, &managed, &WEB_FILE, NEW)?;
    managed.wait_for_unanswered(device)?;
    let rolled_back = "grep -qx base /var/www/index.html";
    device.wait_until(rolled_back).context("no rollback while the server is absent")?;
    managed.server.come_back();
    agree(device, &managed, &WEB_FILE, &id, Outcome::Failed).map(drop)
}

fn two_deployments(device: &mut Device) -> Result<()> {
    let managed = start(device, &WEB_FILE)?;
    ends(device, &managed, &WEB_FILE, NEW, Outcome::Committed)?;
    ends(device, &managed, &WEB_FILE, "release-3", Outcome::Committed)?;
    let views = ends(device, &managed, &WEB_FILE, "release-3", Outcome::AlreadyInstalled)?;
    ensure!(views.deployment.downloads.is_empty(), "an artifact that is already installed was downloaded");
    Ok(())
}

fn two_modules(device: &mut Device) -> Result<()> {
    let managed = start(device, &WEB_FILE)?;
    device.install_package(DIRECTORY.module)?;
    (DIRECTORY.prepare)(device)?;
    ends(device, &managed, &WEB_FILE, NEW, Outcome::Committed)?;
    let views = ends(device, &managed, &DIRECTORY, "release-3", Outcome::Committed)?;
    ensure!((WEB_FILE.active)(device)? == NEW, "the deployment of directory has changed the payload of web-file");
    let version = views.provides.get("data-partition.web-file.version");
    ensure!(version.is_some_and(|version| version == NEW), "show-provides lost the version of web-file: {views:#?}");
    Ok(())
}

fn deb_reboot(device: &mut Device) -> Result<()> {
    let managed = start(device, &DEB)?;
    let id = managed.deploy(device, &(DEB.artifact)(device, NEW, &["--reboot"])?, NEW)?;
    device.reboot()?;
    ensure!((DEB.active)(device)? == NEW, "the new package is not installed after the reboot");
    let deployment = managed.server.deployment(&id)?;
    ensure!(deployment.statuses.iter().any(|status| status == "rebooting"), "no reboot was reported: {deployment:?}");
    agree(device, &managed, &DEB, &id, Outcome::Committed).map(drop)
}
