//! `container` on the device, with real podman and real systemd: install, rollback, and every power loss. Podman takes
//! seconds for everything on this machine, so a scenario shows several things in one life. What else there is runs on the
//! host: `cargo xtask engines`.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use test_image::{Archive, Mode};

use crate::Scenario;
use crate::artifact::Artifact;
use crate::lab::Lab;

/// The machine whose image has a container engine.
pub const MACHINE: &str = "raspi3b";

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "container-install",
        says: "a first install rolls back to nothing, installs and commits; an update of the same tag rolls back and commits",
        play: install,
    },
    Scenario {
        name: "container-power-cut-load",
        says: "power lost while an image is loaded: the old answers after the boot, and the next update installs",
        play: cut_load,
    },
    Scenario {
        name: "container-power-cut-install",
        says: "power lost when the old has been stopped: the old answers after the boot",
        play: cut_install,
    },
    Scenario {
        name: "container-power-cut-rollback",
        says: "power lost in ArtifactRollback: the old answers after the boot",
        play: cut_rollback,
    },
];

pub const MODULE: &str = "container";
const STATE: &str = "/data/mender/update-modules/container";
const JOURNAL: &str = "/data/mender/update-modules/container/journal.json";
const SETTINGS: &str = "/etc/mender-modules/container.toml";
/// Every directory for podman's temporary files, to a shell.
const SCRATCH: &str = "/var/tmp/mender-update-module-container-*";
const TAG: &str = "localhost/shop:latest";

/// Switches on and installs the package.
fn begin(lab: &mut Lab) -> Result<()> {
    lab.power_on_with(MODULE)?;
    lab.ok(&format!("printf 'stable_seconds = 3\\nhealth_seconds = 180\\n' > {SETTINGS} && sync")).map(drop)
}

/// An artifact of the project shop with one service of `image`, which answers at port 8080.
fn release(lab: &Lab, version: &str, image: &Archive) -> Result<String> {
    let web = json!({
        "image": TAG,
        "network": "host",
        "env": {"PORT": "8080"},
        "volumes": ["data:/data"],
        "stop_seconds": 1,
    });
    let meta_data = json!({
        "project": "shop",
        "images": [{"file": "app.tar", "id": image.id, "ref": TAG}],
        "run": {"web": web},
    });
    let files = vec![("app.tar", image.content.clone())];
    let (name, device_type) = (&*format!("release-{version}"), lab.device_type());
    let meta_data = Some(meta_data.to_string());
    lab.copy_in(&lab.artifact_on_host(Artifact { module: MODULE, name, device_type, files, meta_data })?)
}

/// One with an image of its own.
fn shop(lab: &Lab, version: &str) -> Result<String> {
    release(lab, version, &lab.image(TAG, version, Mode::Well, 0)?)
}

/// Switches on and installs the first version, and returns another image, with `noise` bytes beside its server.
pub fn with_first_version(lab: &mut Lab, noise: usize) -> Result<Archive> {
    begin(lab)?;
    install_and_commit(lab, &shop(lab, "1")?)?;
    lab.image("localhost/other:latest", "other", Mode::Well, noise)
}

/// An artifact with the second version, in an image with `noise` bytes beside its server.
pub fn second_version(lab: &Lab, noise: usize) -> Result<String> {
    release(lab, "2", &lab.image(TAG, "2", Mode::Well, noise)?)
}

fn install_and_commit(lab: &Lab, artifact: &str) -> Result<()> {
    lab.client(&format!("install {artifact}"), 0)?;
    lab.client("commit", 0).map(drop)
}

/// Has to get `version` for an answer, now or soon: after a boot, systemd comes to it when it does.
fn answers(lab: &Lab, version: &str) -> Result<()> {
    let ask = "busybox wget -q -O - http://127.0.0.1:8080/ 2>/dev/null";
    lab.wait(&format!("[ \"$({ask})\" = {version} ]"))
        .with_context(|| format!("version {version} does not answer"))
}

fn images(lab: &Lab) -> Result<Vec<String>> {
    let said = lab.ok("podman images --no-trunc --format '{{.ID}} {{.Repository}}:{{.Tag}}' | sort")?;
    Ok(said.lines().map(str::to_owned).collect())
}

/// Has to find nothing left of an update, and the images that were there `before`.
fn is_clean(lab: &Lab, before: &[String]) -> Result<()> {
    lab.ok(&format!("test ! -e {JOURNAL} && test ! -e {STATE}/staging"))
        .context("something is left of the update")?;
    let now = images(lab)?;
    ensure!(now == before, "the images were {before:#?} and are {now:#?}");
    Ok(())
}

fn install(lab: &mut Lab) -> Result<()> {
    begin(lab)?;
    let first = shop(lab, "1")?;
    let nothing = images(lab)?;
    lab.client(&format!("install {first}"), 0)?;
    answers(lab, "1")?;
    lab.client("rollback", 0)?;
    lab.ok("test -z \"$(podman ps --all --quiet)\" && ! systemctl is-active mender-shop.web.service")?;
    is_clean(lab, &nothing)?;
    install_and_commit(lab, &first)?;
    answers(lab, "1")?;
    let old = images(lab)?;
    // The old and the new have one tag.
    let second = shop(lab, "2")?;
    lab.client(&format!("install {second}"), 0)?;
    answers(lab, "2")?;
    lab.client("rollback", 0)?;
    answers(lab, "1")?;
    is_clean(lab, &old)?;
    install_and_commit(lab, &second)?;
    answers(lab, "2")?;
    ensure!(images(lab)?.len() == old.len(), "the old image is still there: {:#?}", images(lab)?);
    lab.ok("podman volume exists data").map(drop)
}

/// Cuts the power in an update to `second`: after the boot the old version answers by itself, nothing is left of a load, and
/// the update made again leaves as many images as there were `before`.
fn cut_and_update_again(lab: &mut Lab, second: &str, before: &[String]) -> Result<()> {
    lab.power_cut()?;
    lab.power_on()?;
    lab.ok(&format!("! ls -d {SCRATCH}")).context("podman's temporary files are left after the boot")?;
    answers(lab, "1").context("after the boot")?;
    install_and_commit(lab, second)?;
    answers(lab, "2")?;
    ensure!(images(lab)?.len() == before.len(), "images are left: {:#?}", images(lab)?);
    Ok(())
}

fn cut_load(lab: &mut Lab) -> Result<()> {
    begin(lab)?;
    install_and_commit(lab, &shop(lab, "1")?)?;
    let old = images(lab)?;
    // Large enough for podman to be met at it.
    let second = second_version(lab, 8 << 20)?;
    // Its temporary copy has to be durable: the boot is to remove it.
    let loads = format!("test -n \"$(ls {SCRATCH} 2> /dev/null)\"");
    lab.client_until(&format!("install {second}"), &format!("{loads} && sleep 1 && sync"))?;
    lab.ok(&loads).context("podman was not met at its load")?;
    cut_and_update_again(lab, &second, &old)
}

fn cut_install(lab: &mut Lab) -> Result<()> {
    begin(lab)?;
    install_and_commit(lab, &shop(lab, "1")?)?;
    let old = images(lab)?;
    let second = shop(lab, "2")?;
    // The old has been stopped, and nothing of the new is started yet.
    lab.client_until(
        &format!("install {second}"),
        &format!("grep -q Switching {JOURNAL} && ! busybox pidof tiny-http > /dev/null"),
    )?;
    cut_and_update_again(lab, &second, &old)
}

fn cut_rollback(lab: &mut Lab) -> Result<()> {
    begin(lab)?;
    install_and_commit(lab, &shop(lab, "1")?)?;
    let old = images(lab)?;
    let second = shop(lab, "2")?;
    lab.client(&format!("install {second}"), 0)?;
    answers(lab, "2")?;
    // The new has been stopped, and nothing of the old is started yet.
    lab.client_until(
        "rollback",
        &format!("grep -q RollingBack {JOURNAL} && ! busybox pidof tiny-http > /dev/null"),
    )?;
    lab.power_cut()?;
    lab.power_on()?;
    answers(lab, "1").context("after the boot")?;
    lab.client("rollback", 0)?;
    answers(lab, "1")?;
    is_clean(lab, &old)
}
