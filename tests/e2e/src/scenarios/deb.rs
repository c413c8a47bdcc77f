//! Scenarios of `deb`: its package, updates of real packages with rollbacks, a power loss, and an update of the client.

use anyhow::{Context, Result, ensure};
use mender_update_module_test::debian::Package;

use crate::Scenario;
use crate::device::{Device, journal, module_directory};
use crate::scenarios::diversion;

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "deb-package",
        description: "the package replaces the client's module; purging it restores that module",
        run: package,
    },
    Scenario {
        name: "deb-update",
        description: "packages are installed, rolled back exactly, also after a failing postinst, and committed",
        run: update,
    },
    Scenario {
        name: "deb-power-loss",
        description: "power loss while packages are unpacked: the boot restores the previous packages",
        run: power_loss,
    },
    Scenario {
        name: "deb-client-update",
        description: "an update of the client, which restarts the service that installs it, is committed",
        run: client_update,
    },
];

pub const MODULE: &str = "deb";
const PACKAGE: &str = "mender-update-module-deb";
const EXECUTABLE: &str = "/usr/share/mender/modules/v3/deb";

/// A package with a file that contains the version, a file of this version only, and a configuration file.
fn app(version: &str) -> Package {
    Package::new("app", version)
        .file("/usr/share/app/data", &format!("{version}\n"))
        .file(&format!("/usr/share/app/only-in-{version}"), "")
        .conffile("/etc/app.conf", &format!("settings of {version}\n"))
}

/// Starts the device with the module, and installs the previous version of a package. Its configuration file is
/// changed, and it is marked as automatically installed. Returns the [`state`].
fn with_previous_version(device: &mut Device) -> Result<String> {
    device.power_on_with_package(MODULE)?;
    let path = device.write_file("previous.deb", &app("1.0").build()?)?;
    device.ok(&format!("dpkg --install {path} && rm {path}"))?;
    device.ok(
        "echo mine > /etc/app.conf && touch -d 2001-02-03T04:05:06.789 /etc/app.conf && apt-mark auto app && sync",
    )?;
    state(device)
}

/// Everything that a rollback must restore: the state of dpkg and apt, `/etc`, and the files of the package.
fn state(device: &Device) -> Result<String> {
    let query = "dpkg-query --show --showformat='${binary:Package} ${db:Status-Abbrev} ${Version} ${Conffiles}\\n'";
    let client = device.generation().package;
    let packages = device.ok(&format!(
        "{query} && apt-mark showauto && (dpkg --verify app {client} || true) && find /usr/share/app /opt"
    ))?;
    // Without directories: their times change whenever a temporary file is created in them.
    let etc = device.ok("cd /etc && find . ! -type d -printf '%y %m %U:%G %T@ %s %p %l\\n' | sort \
         && find . -type f -exec sha256sum {} + | sort")?;
    Ok(format!("{packages}{etc}"))
}

/// Fails unless the state is the same as `before`.
fn is_unchanged(device: &Device, before: &str) -> Result<()> {
    let now = state(device)?;
    let only = |one: &str, other: &str| -> Vec<String> {
        one.lines().filter(|line| !other.lines().any(|other| other == *line)).map(str::to_owned).collect()
    };
    ensure!(
        now == before,
        "the packages or /etc were changed: {:#?} instead of {:#?}",
        only(&now, before),
        only(before, &now)
    );
    Ok(())
}

/// An artifact of `packages`. Their files have names as Debian gives them, which mender-artifact would refuse.
fn artifact(device: &Device, name: &str, packages: &[Vec<u8>]) -> Result<String> {
    let names: Vec<_> = (0..packages.len()).map(|number| format!("package-{number}_1+b1~rc1.deb")).collect();
    let files = names.iter().map(String::as_str).zip(packages.iter().cloned()).collect();
    device.generate(MODULE, name, &[], files)
}

/// Fails if an update has left files behind.
fn is_clean(device: &Device) -> Result<()> {
    let paths = ["staging", "old"].map(|name| format!("{}/{name}", module_directory(MODULE)));
    device.is_clean(MODULE, &paths.each_ref().map(String::as_str))
}

fn package(device: &mut Device) -> Result<()> {
    diversion::run(device, MODULE)
}

fn update(device: &mut Device) -> Result<()> {
    let before = with_previous_version(device)?;
    let extra = Package::new("extra", "1:1+b1~rc1").field("Depends", "app (>= 2)").file("/opt/extra/file", "x");
    let good = artifact(device, "release-2", &[app("2.0").build()?, extra.build()?])?;
    device.install(&good)?;
    device.ok("grep -q 2.0 /usr/share/app/data && grep -q mine /etc/app.conf \
         && test -e /etc/app.conf.dpkg-dist -a -e /opt/extra/file")?;
    device.client("rollback", 0)?;
    is_unchanged(device, &before).context("after the rollback")?;
    is_clean(device)?;
    let bad = app("3.0").script("postinst", "echo postinst of app fails; exit 1");
    let bad = artifact(device, "release-3", &[bad.build()?, extra.build()?])?;
    let output = device.client(&format!("install {bad}"), 1)?;
    ensure!(
        output.contains("postinst of app fails"),
        "the deployment log does not have the output of the postinst:\n{output}"
    );
    is_unchanged(device, &before).context("after a failing postinst")?;
    is_clean(device)?;
    device.install_and_commit(&good)?;
    device
        .ok("test \"$(dpkg-query --show --showformat='${Version}' app)\" = 2.0 && apt-mark showauto | grep -qx app")?;
    is_clean(device)
}

fn power_loss(device: &mut Device) -> Result<()> {
    let before = with_previous_version(device)?;
    // dpkg runs this preinst between the unpacking of the two packages, and it blocks.
    let last = Package::new("zz-last", "1")
        .field("Pre-Depends", "app (>= 2)")
        .file("/opt/last", "x")
        .script("preinst", "touch /run/reached; sleep 3600");
    let artifact = artifact(device, "release-2", &[app("2.0").build()?, last.build()?])?;
    device.start_client_until(&format!("install {artifact}"), "test -e /run/reached")?;
    device.ok("grep -q 2.0 /usr/share/app/data").context("the first package is not unpacked")?;
    device.reboot_by_power_loss()?;
    device.wait_until(&format!("grep -q RolledBack {}", journal(MODULE))).context("no recovery after the boot")?;
    device
        .wait_until(&format!(
            "test $(systemctl show --property=ActiveState --value {PACKAGE}-recover.service) = inactive"
        ))
        .context("the recovery failed or did not end")?;
    is_unchanged(device, &before).context("after the boot")?;
    device.has_no_update_to_roll_back()?;
    device.ok(&format!("{EXECUTABLE} Cleanup /data/mender/modules/v3/payloads/0000/tree"))?;
    is_unchanged(device, &before)?;
    is_clean(device)
}

/// A drop-in for the service of the client's daemon: the service runs [`UPDATE_SCRIPT`] instead of the daemon.
const DROP_IN: &str = "[Service]\nExecStartPre=\nExecStart=\nType=simple\nExecStart=/bin/sh /root/update\n";

/// Installs and commits the artifact at the first start of the service. Counts all starts.
const UPDATE_SCRIPT: &str = "echo started >> /root/starts\n\
    test -e /root/done && exec sleep infinity\n\
    CLIENT install ARTIFACT > /root/log 2>&1 && CLIENT commit >> /root/log 2>&1\n\
    echo $? > /root/done\nexec sleep infinity\n";

fn client_update(device: &mut Device) -> Result<()> {
    device.power_on_with_package(MODULE)?;
    let newer = device.newer_client()?;
    let artifact = artifact(device, "release-2", &[newer])?;
    let (client, service) = (device.generation(), device.generation().service());
    let script = UPDATE_SCRIPT.replace("ARTIFACT", &artifact).replace("CLIENT", client.command_line("").trim_end());
    device.ok(&format!(
        "cd /etc/systemd/system && rm {service} && mkdir {service}.d \
         && printf '%s' '{DROP_IN}' > {service}.d/update.conf && printf '%s' '{script}' > /root/update \
         && systemctl daemon-reload && systemctl start {service}"
    ))?;
    let with_log = |error: anyhow::Error| error.context(device.ok("cat /root/log").unwrap_or_default());
    device.wait_until("test -e /root/done").map_err(with_log)?;
    ensure!(device.ok("cat /root/done")? == "0\n", "the update failed: {}", device.ok("cat /root/log")?);
    // The maintainer script requested a restart of the service, which systemd refused.
    let output = device.ok("cat /root/log")?;
    ensure!(output.contains("Operation refused"), "no restart of the service was refused:\n{output}");
    let package = client.package;
    let version =
        device.ok(&format!("dpkg-query --show --showformat='${{Version}} ${{db:Status-Abbrev}}' {package}"))?;
    ensure!(version.ends_with("+newer ii "), "unexpected version of {package}: {version:?}");
    // The service was restarted after the update, and not during it.
    device
        .wait_until("test $(grep -c started /root/starts) = 2")
        .context("the service was not restarted exactly once")?;
    device.ok(&format!("test ! -e /run/systemd/system/{service}.d && systemctl is-active {service}"))?;
    ensure!(device.client("show-artifact", 0)?.contains("release-2"), "the update is not committed");
    is_clean(device)
}
