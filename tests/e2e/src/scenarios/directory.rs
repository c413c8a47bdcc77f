//! Scenarios of `directory`: its package, both forms of artifact, kept files, a health check, and power losses.

use anyhow::{Context, Result, ensure};

use crate::Scenario;
use crate::device::{Device, journal};
use crate::scenarios::destination::Destination;
use crate::scenarios::diversion;
use crate::scenarios::{HEALTH_FAILS, HEALTH_PASSES};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "directory-package",
        description: "the package replaces the client's module; purging it restores that module",
        run: package,
    },
    Scenario {
        name: "directory-official",
        description: "an artifact of Mender's generator is installed, rolled back exactly, and committed",
        run: official,
    },
    Scenario {
        name: "directory-streamed",
        description: "an archive is streamed into a missing destination that the meta-data names",
        run: streamed,
    },
    Scenario {
        name: "directory-keep",
        description: "kept files are in the new version, and in the previous one after a rollback",
        run: keep,
    },
    Scenario {
        name: "directory-health-check",
        description: "a new version that fails its health check rolls back; the previous one answers",
        run: health_check,
    },
    Scenario {
        name: "directory-power-loss-download",
        description: "power loss in Download: the previous version is unchanged, and an update installs",
        run: power_loss_download,
    },
    Scenario {
        name: "directory-power-loss-install",
        description: "power loss during the health check in ArtifactInstall: the boot restores the previous version",
        run: power_loss_install,
    },
    Scenario {
        name: "directory-power-loss-commit",
        description: "power loss in ArtifactCommit: the new version is active, and the commit is repeated",
        run: power_loss_commit,
    },
    Scenario {
        name: "directory-power-loss-rollback",
        description: "power loss in ArtifactRollback: the boot completes the rollback",
        run: power_loss_rollback,
    },
];

pub const MODULE: &str = "directory";
const APP: &str = "/srv/my app";
const STAGING: &str = "/srv/.my app.directory";
const SETTINGS: &str = "/etc/mender-modules/directory.toml";
const DESTINATION: Destination =
    Destination { module: MODULE, path: APP, staging: STAGING, find: "", stat: ("%U:%G", "root:root") };

/// The files of the new version.
const NEW: &[(&str, &str)] =
    &[("index.html", "<h1>new</h1>\n"), ("lib/a/b/data", "deep\n"), ("run", "#!/bin/sh\nexit 1\n")];

fn with_previous_version(device: &mut Device) -> Result<String> {
    DESTINATION.with_previous_version(device, "ln gone.html second && ln -s gone.html link && chmod 2750 uploads")
}

/// An artifact as Mender's `directory-artifact-gen` makes it.
fn official_artifact(device: &Device, files: &[(&str, &str)]) -> Result<String> {
    let files = vec![("dest_dir", format!("{APP}\n").into_bytes()), ("update.tar", device.archive(files)?)];
    device.artifact(MODULE, "release-2", files, None)
}

/// An artifact of the project's generator, from an archive.
fn generated_artifact(device: &Device, files: &[(&str, &str)]) -> Result<String> {
    device.generate(MODULE, "release-2", &["--dest-dir", APP], vec![("app.tar", device.archive(files)?)])
}

/// An artifact whose payload is one archive.
fn streamed_artifact(device: &Device, files: &[(&str, &str)], meta_data: String) -> Result<String> {
    let files = vec![("tree.tar", device.archive(files)?)];
    device.artifact(MODULE, "release-2", files, Some(meta_data))
}

fn package(device: &mut Device) -> Result<()> {
    diversion::run(device, MODULE)
}

fn official(device: &mut Device) -> Result<()> {
    let before = with_previous_version(device)?;
    let artifact = official_artifact(device, NEW)?;
    DESTINATION.roll_back(device, &artifact, NEW, &before)?;
    DESTINATION.is_clean(device)?;
    DESTINATION.update(device, &artifact, NEW)
}

fn streamed(device: &mut Device) -> Result<()> {
    device.power_on_with_package(MODULE)?;
    device.ok("rm -rf /srv")?;
    let artifact = streamed_artifact(device, NEW, format!(r#"{{"dest_dir": "{APP}"}}"#))?;
    device.install(&artifact)?;
    DESTINATION.is_active(device, NEW)?;
    device.client("rollback", 0)?;
    device.ok("test ! -e /srv").context("the rollback left the directory that the install created")?;
    DESTINATION.update(device, &artifact, NEW)
}

fn keep(device: &mut Device) -> Result<()> {
    let before = with_previous_version(device)?;
    device.ok(&format!("echo 'keep = [\"uploads/**\"]' > {SETTINGS}"))?;
    let artifact = official_artifact(device, NEW)?;
    let files = [NEW[0], NEW[1], NEW[2], ("uploads/photo", "me\n")];
    DESTINATION.roll_back(device, &artifact, &files, &before)?;
    DESTINATION.is_clean(device)
}

/// A service that runs a program of the destination.
const SERVICE: &str = "[Service]\nExecStart=\"/srv/my app/run\"\nRestart=always\nRestartSec=1\n";

/// A version of that program that answers requests.
const SERVER: &str = "#!/bin/sh\nexec busybox httpd -f -p 127.0.0.1:8080 -h \"/srv/my app\"\n";

/// Writes settings with a health check of that program, with this limit in seconds.
fn check_health(device: &Device, limit: u64) -> Result<()> {
    let settings = format!(
        "[units]\nstop = [\"app.service\"]\nstart = [\"app.service\"]\n\
         [health]\nurl = \"http://127.0.0.1:8080/index.html\"\nlimit_seconds = {limit}\nstable_seconds = 3\n"
    );
    device.ok(&format!("printf '%s' '{settings}' > {SETTINGS}")).map(drop)
}

fn health_check(device: &mut Device) -> Result<()> {
    with_previous_version(device)?;
    device.ok(&format!(
        "printf '%s' '{SERVICE}' > /etc/systemd/system/app.service && printf '%s' '{SERVER}' > '{APP}/run' \
         && chmod 755 '{APP}/run' && systemctl daemon-reload && systemctl start app.service"
    ))?;
    check_health(device, HEALTH_FAILS)?;
    let before = device.contents(APP)?;
    let unhealthy = generated_artifact(device, NEW)?; // its program ends immediately
    let output = device.client(&format!("install {unhealthy}"), 1)?;
    ensure!(output.contains("health check"), "the deployment log does not name the health check:\n{output}");
    DESTINATION.is_unchanged(device, &before)?;
    DESTINATION.is_clean(device)?;
    // Up to the limit of a command.
    let request = "until busybox wget -q -O - http://127.0.0.1:8080/index.html; do sleep 1; done";
    ensure!(device.ok(request)? == "old\n", "the previous version does not answer");
    check_health(device, HEALTH_PASSES)?;
    let healthy = generated_artifact(device, &[("index.html", "new\n"), ("run", SERVER)])?;
    device.install_and_commit(&healthy)?;
    ensure!(device.ok(request)? == "new\n", "the new version does not answer");
    DESTINATION.is_clean(device)
}

fn power_loss_download(device: &mut Device) -> Result<()> {
    let before = with_previous_version(device)?;
    let artifact = official_artifact(device, NEW)?;
    // Before the new files are synced: they are only in the page cache, and are lost.
    device.start_client_delayed(
        &format!("install {artifact}"),
        "syncfs",
        1,
        &format!("test -e '{STAGING}/new/run'"),
    )?;
    DESTINATION.survives_power_loss(device, &before)?;
    DESTINATION.update(device, &artifact, NEW)
}

fn power_loss_install(device: &mut Device) -> Result<()> {
    let before = with_previous_version(device)?;
    let endless = "[health]\ncommand = [\"sleep\", \"3600\"]\nlimit_seconds = 3600\n";
    device.ok(&format!("printf '%s' '{endless}' > {SETTINGS} && sync"))?;
    let artifact = official_artifact(device, NEW)?;
    device.start_client_until(
        &format!("install {artifact}"),
        &format!("grep -q Switching {} && grep -q new '{APP}/index.html'", journal(MODULE)),
    )?;
    DESTINATION.survives_power_loss(device, &before)?;
    device.has_no_update_to_roll_back()?;
    device.ok(&format!("rm {SETTINGS}"))?;
    DESTINATION.update(device, &artifact, NEW)
}

fn power_loss_commit(device: &mut Device) -> Result<()> {
    with_previous_version(device)?;
    let artifact = official_artifact(device, NEW)?;
    DESTINATION.power_loss_in_commit(device, &artifact, NEW)
}

fn power_loss_rollback(device: &mut Device) -> Result<()> {
    let before = with_previous_version(device)?;
    let artifact = official_artifact(device, NEW)?;
    device.install(&artifact)?;
    // The first rename is that of the journal, the second exchanges the directories. Before the third, the previous
    // version is active and the journal does not say so yet.
    let condition = format!("grep -q RollingBack {} && grep -q old '{APP}/index.html'", journal(MODULE));
    device.start_client_delayed("rollback", "renameat2", 3, &condition)?;
    DESTINATION.survives_power_loss(device, &before)?;
    device.client("rollback", 0)?;
    DESTINATION.is_unchanged(device, &before)?;
    DESTINATION.is_clean(device)
}
