//! `deb` on the device: its package, real packages through the real client, every way back, and the client's own update.

use anyhow::{Context, Result, ensure};
use mock_client::debian::Package;

use crate::Scenario;
use crate::artifact::Artifact;
use crate::lab::Lab;
use crate::scenarios::takeover;

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "deb-package",
        says: "the package takes the place of mender-client's module, and purging it gives it back",
        play: package,
    },
    Scenario {
        name: "deb-update",
        says: "bare .deb files install and roll back exactly, a failing postinst rolls back by itself, and a commit stays",
        play: update,
    },
    Scenario {
        name: "deb-power-cut",
        says: "power lost in the middle of unpacking: after the boot the packages are what they were",
        play: power_cut,
    },
    Scenario {
        name: "deb-client-update",
        says: "an update of mender-client, which restarts the service that the update runs in, survives and is committed",
        play: client_update,
    },
];

pub const MODULE: &str = "deb";
const PACKAGE: &str = "mender-update-module-deb";
const JOURNAL: &str = "/data/mender/update-modules/deb/journal.json";
const EXECUTABLE: &str = "/usr/share/mender/modules/v3/deb";

/// A package with a file that tells its version, one of this version only, and a configuration file.
fn app(version: &str) -> Package {
    Package::new("app", version)
        .file("/usr/share/app/data", &format!("{version}\n"))
        .file(&format!("/usr/share/app/only-in-{version}"), "")
        .conffile("/etc/app.conf", &format!("settings of {version}\n"))
}

/// Switches on, installs the module, and a package with a past: its configuration file is changed, its mark automatic.
fn with_old(lab: &mut Lab) -> Result<String> {
    lab.power_on_with(MODULE)?;
    install_with_dpkg(lab, &app("1.0"))?;
    lab.ok("echo mine > /etc/app.conf && touch -d 2001-02-03T04:05:06.789 /etc/app.conf && apt-mark auto app && sync")?;
    state(lab)
}

fn install_with_dpkg(lab: &Lab, package: &Package) -> Result<()> {
    let there = lab.put("old.deb", &package.build()?)?;
    lab.ok(&format!("dpkg --install {there} && rm {there}")).map(drop)
}

/// All that has to come back: what dpkg and apt say, `/etc`, and the package's files.
fn state(lab: &Lab) -> Result<String> {
    let programs = lab.ok(
        "dpkg-query --show --showformat='${binary:Package} ${db:Status-Abbrev} ${Version} ${Conffiles}\\n' \
         && apt-mark showauto && (dpkg --verify app mender-client || true) && find /usr/share/app /opt",
    )?;
    // Directories' own times are left out: whatever is put beside a file and taken away changes them.
    let etc = lab.ok(
        "cd /etc && find . ! -type d -printf '%y %m %U:%G %T@ %s %p %l\\n' | sort && find . -type f -exec sha256sum {} + | sort",
    )?;
    Ok(format!("{programs}{etc}"))
}

fn is_as_before(lab: &Lab, before: &str) -> Result<()> {
    let now = state(lab)?;
    let only = |one: &str, other: &str| -> Vec<String> {
        one.lines().filter(|line| !other.lines().any(|other| other == *line)).map(str::to_owned).collect()
    };
    ensure!(now == before, "was {:#?}, and is {:#?}", only(before, &now), only(&now, before));
    Ok(())
}

/// An artifact of `packages`, under names that an artifact can hold.
fn artifact(lab: &Lab, name: &str, packages: &[Vec<u8>]) -> Result<String> {
    let names: Vec<_> = (0..packages.len()).map(|number| format!("package-{number}.deb")).collect();
    let files = names.iter().map(String::as_str).zip(packages.iter().cloned()).collect();
    let (module, device_type) = (MODULE, lab.device_type());
    lab.copy_in(&lab.artifact_on_host(Artifact { module, name, device_type, files, meta_data: None })?)
}

/// Has to find nothing left of an update.
fn is_clean(lab: &Lab) -> Result<()> {
    let directory = "/data/mender/update-modules/deb";
    lab.ok(&format!("test ! -e {JOURNAL} && test ! -e {directory}/staging && test ! -e {directory}/old"))
        .context("something is left of the update")
        .map(drop)
}

fn package(lab: &mut Lab) -> Result<()> {
    takeover::play(lab, MODULE)
}

fn update(lab: &mut Lab) -> Result<()> {
    let old = with_old(lab)?;
    let extra =
        Package::new("extra", "1:1+b1~rc1").field("Depends", "app (>= 2)").file("/opt/extra/file", "x");
    let good = artifact(lab, "release-2", &[app("2.0").build()?, extra.build()?])?;
    lab.client(&format!("install {good}"), 0)?;
    lab.ok("grep -q 2.0 /usr/share/app/data && grep -q mine /etc/app.conf && test -e /etc/app.conf.dpkg-dist -a -e /opt/extra/file")?;
    lab.client("rollback", 0)?;
    is_as_before(lab, &old).context("after the rollback")?;
    is_clean(lab)?;
    let bad = app("3.0").script("postinst", "echo the new version has no luck; exit 1");
    let bad = artifact(lab, "release-3", &[bad.build()?, extra.build()?])?;
    let said = lab.client(&format!("install {bad}"), 1)?;
    ensure!(said.contains("has no luck"), "the deployment log does not show what the script said:\n{said}");
    is_as_before(lab, &old).context("after a failing postinst")?;
    is_clean(lab)?;
    lab.client(&format!("install {good}"), 0)?;
    lab.client("commit", 0)?;
    lab.ok("test \"$(dpkg-query --show --showformat='${Version}' app)\" = 2.0 && apt-mark showauto | grep -qx app")?;
    is_clean(lab)
}

fn power_cut(lab: &mut Lab) -> Result<()> {
    let old = with_old(lab)?;
    // Its script is run between the unpacking of two packages, and holds everything.
    let last = Package::new("zz-last", "1")
        .field("Pre-Depends", "app (>= 2)")
        .file("/opt/last", "x")
        .script("preinst", "touch /run/reached; sleep 3600");
    let artifact = artifact(lab, "release-2", &[app("2.0").build()?, last.build()?])?;
    lab.client_until(&format!("install {artifact}"), "test -e /run/reached")?;
    lab.ok("grep -q 2.0 /usr/share/app/data").context("the first package is not unpacked yet")?;
    lab.power_cut()?;
    lab.power_on()?;
    lab.wait(&format!("grep -q RolledBack {JOURNAL}")).context("the boot does not recover")?;
    lab.wait(&format!(
        "test $(systemctl show --property=ActiveState --value {PACKAGE}-recover.service) = inactive"
    ))
    .context("the recovery fails, or does not end")?;
    is_as_before(lab, &old).context("after the boot")?;
    lab.client("rollback", 2).context("client 3.4 has forgotten an install that was cut")?;
    lab.ok(&format!("{EXECUTABLE} Cleanup /data/mender/modules/v3/payloads/0000/tree"))?;
    is_as_before(lab, &old)?;
    is_clean(lab)
}

/// What is put in the place of the client's daemon: the same service, which makes the update as the daemon would.
const DAEMON: &str = "[Service]\nExecStartPre=\nExecStart=\nType=simple\nExecStart=/bin/sh /root/daemon\n";

/// Installs and commits when it is started for the first time, and then only counts its starts.
const DAEMON_SCRIPT: &str = "echo started >> /root/starts\n\
    test -e /root/done && exec sleep infinity\n\
    mender --no-syslog install ARTIFACT > /root/log 2>&1 && mender --no-syslog commit >> /root/log 2>&1\n\
    echo $? > /root/done\nexec sleep infinity\n";

fn client_update(lab: &mut Lab) -> Result<()> {
    lab.power_on_with(MODULE)?;
    let newer = lab.newer_client()?;
    let artifact = artifact(lab, "release-2", &[newer])?;
    lab.ok(&format!(
        "rm /etc/systemd/system/mender-client.service && mkdir /etc/systemd/system/mender-client.service.d \
         && printf '%s' '{DAEMON}' > /etc/systemd/system/mender-client.service.d/daemon.conf \
         && printf '%s' '{}' > /root/daemon && systemctl daemon-reload && systemctl start mender-client.service",
        DAEMON_SCRIPT.replace("ARTIFACT", &artifact)
    ))?;
    let told = |error: anyhow::Error| error.context(lab.ok("cat /root/log").unwrap_or_default());
    lab.wait("test -e /root/done").map_err(told)?;
    ensure!(lab.ok("cat /root/done")? == "0\n", "the update failed: {}", lab.ok("cat /root/log")?);
    // That the package's script asked for a restart, and what systemd said to that.
    let said = lab.ok("cat /root/log")?;
    ensure!(said.contains("Operation refused"), "nobody has tried to restart the service:\n{said}");
    let version = lab.ok("dpkg-query --show --showformat='${Version} ${db:Status-Abbrev}' mender-client")?;
    ensure!(version.ends_with("+newer ii "), "mender-client is {version:?}");
    // Nobody has ended the update, and when it has ended the new client is started.
    lab.wait("test $(grep -c started /root/starts) = 2")
        .context("the service was not restarted exactly once")?;
    lab.ok(
        "test ! -e /run/systemd/system/mender-client.service.d && systemctl is-active mender-client.service",
    )?;
    ensure!(lab.client("show-artifact", 0)?.contains("release-2"), "the update is not committed");
    is_clean(lab)
}
