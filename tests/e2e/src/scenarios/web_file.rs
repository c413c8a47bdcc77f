//! Scenarios of `web-file`: its package, and updates that succeed, are refused, fail or are interrupted by a power
//! loss.

use anyhow::{Result, ensure};

use crate::Scenario;
use crate::artifact::Artifact;
use crate::device::{Device, journal};
use crate::scenarios::destination::{Destination, bytes};
use crate::scenarios::repository;

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "package",
        description: "the package is installed; purging it leaves nothing behind",
        run: package,
    },
    Scenario {
        name: "apt-repository",
        description: "the package is installed from the signed repository, removed and purged",
        run: repository::install,
    },
    Scenario {
        name: "apt-upgrade",
        description: "the package is upgraded from the repository while an update is pending: rollback and commit work",
        run: apt_upgrade,
    },
    Scenario { name: "install-commit", description: "an update is installed and committed", run: install_commit },
    Scenario {
        name: "install-rollback",
        description: "an update is installed and rolled back: exactly the previous version",
        run: install_rollback,
    },
    Scenario {
        name: "failing-install",
        description: "ArtifactInstall fails: the update rolls back by itself",
        run: failing_install,
    },
    Scenario { name: "several-files", description: "one artifact replaces all of several files", run: several_files },
    Scenario {
        name: "first-install",
        description: "a first install into a missing or empty web root is rolled back",
        run: first_install,
    },
    Scenario {
        name: "mount-point",
        description: "a web root that is a mount point is updated and rolled back",
        run: mount_point,
    },
    Scenario {
        name: "refused",
        description: "artifacts of another device type and truncated ones are refused without a change",
        run: refused,
    },
    Scenario {
        name: "failing-download",
        description: "Download fails before, in and between files: the client ends, and nothing has changed",
        run: failing_download,
    },
    Scenario {
        name: "power-loss-install",
        description: "an update is rolled back; the next loses power in ArtifactInstall: the boot restores the previous version",
        run: power_loss_install,
    },
    Scenario {
        name: "power-loss-commit",
        description: "power loss in ArtifactCommit: the new version is active, and the commit is repeated",
        run: power_loss_commit,
    },
];

pub const MODULE: &str = "web-file";
const WWW: &str = "/var/www";
const STAGING: &str = "/var/.www.web-file";
const WEB_ROOT: Destination = Destination {
    module: MODULE,
    path: WWW,
    staging: STAGING,
    find: "-maxdepth 1",
    stat: ("%U:%G %a", "root:root 644"),
};

/// The files of the new version.
const NEW: &[(&str, &str)] = &[("index.html", "<h1>new</h1>\n"), ("style.css", "h1 { color: teal }\n")];

/// Lists the files of the device, without those that dpkg, apt and systemd write about their own work.
pub const FILES: &str = "find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp \
    -o -path /root -o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/cache -o -path /var/log \
    -o -path /var/lib/systemd \\) -prune -o -print | sort";

fn with_previous_version(device: &mut Device) -> Result<String> {
    WEB_ROOT.with_previous_version(device, "chmod 640 gone.html")
}

fn artifact(device: &Device, files: &[(&str, &str)]) -> Result<String> {
    device.generate(MODULE, "release-2", &["--software-filesystem", "data-partition"], bytes(files))
}

fn package(device: &mut Device) -> Result<()> {
    const PACKAGE: &str = "mender-update-module-web-file";
    device.power_on()?;
    let before = device.ok(FILES)?;
    device.install_package_with_apt(MODULE)?;
    device.ok("test -x /usr/share/mender/modules/v3/web-file && /usr/share/mender/modules/v3/web-file --version")?;
    device.ok("systemctl is-enabled mender-update-module-web-file-recover.service")?;
    device.ok(&format!("dpkg --verify {PACKAGE}"))?;
    device.purge_package(PACKAGE)?;
    let after = device.ok(FILES)?;
    ensure!(before == after, "purging {PACKAGE} left changes:\n{}", differences(&before, &after));
    Ok(())
}

/// The lines of only one of two texts, marked as in a diff.
pub fn differences(before: &str, after: &str) -> String {
    let only = |one: &str, other: &str, mark: char| -> String {
        one.lines()
            .filter(|line| !other.lines().any(|other| other == *line))
            .map(|line| format!("{mark}{line}\n"))
            .collect()
    };
    only(before, after, '-') + &only(after, before, '+')
}

fn apt_upgrade(device: &mut Device) -> Result<()> {
    let before = with_previous_version(device)?;
    let artifact = artifact(device, NEW)?;
    repository::upgrade(device, &WEB_ROOT, &before, &artifact, NEW)
}

fn install_commit(device: &mut Device) -> Result<()> {
    with_previous_version(device)?;
    let artifact = artifact(device, NEW)?;
    device.install(&artifact)?;
    WEB_ROOT.is_active(device, NEW)?;
    device.client("commit", 0)?;
    WEB_ROOT.is_active(device, NEW)?;
    WEB_ROOT.is_clean(device)?;
    let name = device.client("show-artifact", 0)?;
    ensure!(name.contains("release-2"), "unexpected artifact name: {name:?} instead of release-2");
    device.ok(&format!("cat {WWW}/uploads/photo")).map(drop)
}

fn install_rollback(device: &mut Device) -> Result<()> {
    let before = with_previous_version(device)?;
    let artifact = artifact(device, NEW)?;
    WEB_ROOT.roll_back(device, &artifact, NEW, &before)?;
    WEB_ROOT.is_clean(device)
}

fn failing_install(device: &mut Device) -> Result<()> {
    with_previous_version(device)?;
    // A file that is a mount point cannot be replaced, which is detected in ArtifactInstall.
    device.ok(&format!("mount --bind /etc/hostname {WWW}/index.html"))?;
    let before = device.contents(WWW)?;
    let artifact = artifact(device, NEW)?;
    let output = device.client(&format!("install {artifact}"), 1)?;
    ensure!(output.contains("index.html"), "the deployment log does not name index.html:\n{output}");
    WEB_ROOT.is_unchanged(device, &before)?;
    WEB_ROOT.is_clean(device)?;
    device.client("commit", 2).map(drop)
}

fn several_files(device: &mut Device) -> Result<()> {
    with_previous_version(device)?;
    let contents: Vec<_> = (0..40).map(|number| (format!("page-{number}.html"), format!("page {number}\n"))).collect();
    let files: Vec<_> = contents.iter().map(|(name, content)| (name.as_str(), content.as_str())).collect();
    let artifact = artifact(device, &files)?;
    device.install_and_commit(&artifact)?;
    let listing =
        device.ok(&format!("cd {WWW} && find . -maxdepth 1 -type f | wc -l && cat page-0.html page-39.html"))?;
    ensure!(listing == "40\npage 0\npage 39\n", "unexpected files in {WWW}: {listing:?}");
    WEB_ROOT.is_clean(device)
}

fn first_install(device: &mut Device) -> Result<()> {
    device.power_on_with_package(MODULE)?;
    let artifact = device.artifact(MODULE, "release-1", bytes(NEW), None)?;
    for prepare in ["rm -rf", "mkdir"] {
        device.ok(&format!("{prepare} {WWW}"))?;
        let before = device.contents(WWW)?;
        WEB_ROOT.roll_back(device, &artifact, NEW, &before)?;
    }
    WEB_ROOT.is_clean(device)
}

fn mount_point(device: &mut Device) -> Result<()> {
    device.power_on_with_package(MODULE)?;
    device.ok(&format!(
        "mkdir -p {WWW} && mount -t tmpfs none {WWW} && echo old > {WWW}/index.html && touch -d 2001-02-03 {WWW}"
    ))?;
    let before = device.contents(WWW)?;
    let artifact = artifact(device, NEW)?;
    WEB_ROOT.roll_back(device, &artifact, NEW, &before)
}

/// Client 3.4.0 hangs if a module ends before the client has offered a file, or between two files.
fn failing_download(device: &mut Device) -> Result<()> {
    let before = with_previous_version(device)?;
    let artifact = artifact(device, NEW)?;
    let fails = |device: &Device, artifact: &str, message: &str| -> Result<()> {
        let output = device.client(&format!("install {artifact}"), 1)?;
        ensure!(output.contains(message), "the deployment log does not contain {message:?}:\n{output}");
        Ok(())
    };
    device.ok("printf 'unknown_key = 1\\n' > /etc/mender-modules/web-file.toml")?;
    for _ in 0..3 {
        fails(device, &artifact, "unknown_key")?;
    }
    WEB_ROOT.is_unchanged(device, &before)?;
    device.ok(&format!("rm /etc/mender-modules/web-file.toml && mkdir {WWW}/style.css"))?;
    fails(device, &artifact, "a directory in")?;
    device.ok(&format!("rmdir {WWW}/style.css && mount -t tmpfs -o size=8m none {WWW}"))?;
    let large = "a page of some size\n".repeat(1 << 19);
    let large = device.artifact(MODULE, "release-3", bytes(&[("a.html", &large), ("b.html", "small")]), None)?;
    fails(device, &large, "space")?;
    device.ok(&format!("umount {WWW}"))?;
    WEB_ROOT.update(device, &artifact, NEW)
}

fn refused(device: &mut Device) -> Result<()> {
    let before = with_previous_version(device)?;
    let files = bytes(&[("index.html", "not for this device")]);
    let incompatible =
        Artifact { module: MODULE, name: "incompatible", device_type: "toaster", files, meta_data: None };
    let incompatible = device.copy_artifact(&incompatible)?;
    device.client(&format!("install {incompatible}"), 1)?;
    WEB_ROOT.is_unchanged(device, &before)?;
    let complete = artifact(device, &[("index.html", &"a page of some size\n".repeat(4096))])?;
    device.ok(&format!("head -c $(( $(stat -c %s {complete}) / 2 )) {complete} > /root/truncated.mender"))?;
    device.client("install /root/truncated.mender", 1)?;
    WEB_ROOT.is_unchanged(device, &before)?;
    WEB_ROOT.is_clean(device)
}

/// Also a rollback before the power loss, so that `cargo xtask test` boots each machine for one scenario.
fn power_loss_install(device: &mut Device) -> Result<()> {
    let before = with_previous_version(device)?;
    let artifact = artifact(device, NEW)?;
    WEB_ROOT.roll_back(device, &artifact, NEW, &before)?;
    // In ArtifactInstall the module's first rename is that of the journal, the second that of the directory of previous
    // files, the third that of the first file. Before the fourth, the web root has files of both versions.
    let condition = format!(
        "grep -q Switching {} && test ! -e {STAGING}/new/index.html && test -e {STAGING}/new/style.css",
        journal(MODULE)
    );
    device.start_client_delayed(&format!("install {artifact}"), "renameat2", 4, &condition)?;
    WEB_ROOT.survives_power_loss(device, &before)?;
    device.has_no_update_to_roll_back()?;
    WEB_ROOT.update(device, &artifact, NEW)
}

fn power_loss_commit(device: &mut Device) -> Result<()> {
    with_previous_version(device)?;
    let artifact = artifact(device, NEW)?;
    WEB_ROOT.power_loss_in_commit(device, &artifact, NEW)
}
