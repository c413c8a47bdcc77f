//! `directory` on the device: its package, both forms of artifact, users' data, a health check, and every power loss.

use anyhow::{Context, Result, ensure};

use crate::Scenario;
use crate::artifact::Artifact;
use crate::lab::Lab;
use crate::scenarios::takeover;

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "directory-package",
        says: "the package takes the place of mender-client's module, and purging it gives it back",
        play: package,
    },
    Scenario {
        name: "directory-official",
        says: "an artifact for Mender's own module installs unchanged, rolls back exactly, and commits",
        play: official,
    },
    Scenario {
        name: "directory-streamed",
        says: "a tree streams to a destination that the meta-data name, which was not there before",
        play: streamed,
    },
    Scenario {
        name: "directory-keep",
        says: "users' data are in the new tree, and in the old one after a rollback",
        play: keep,
    },
    Scenario {
        name: "directory-health-gate",
        says: "a new version that does not answer rolls back, and the old one answers again",
        play: health_gate,
    },
    Scenario {
        name: "directory-power-cut-download",
        says: "power lost in Download: the old is untouched, and the next update installs",
        play: cut_download,
    },
    Scenario {
        name: "directory-power-cut-install",
        says: "power lost in ArtifactInstall, while the new is on trial: the boot brings the old back",
        play: cut_install,
    },
    Scenario {
        name: "directory-power-cut-commit",
        says: "power lost in ArtifactCommit: the commit is made again",
        play: cut_commit,
    },
    Scenario {
        name: "directory-power-cut-rollback",
        says: "power lost in ArtifactRollback: the boot brings it to its end",
        play: cut_rollback,
    },
];

pub const MODULE: &str = "directory";
const APP: &str = "/srv/my app";
const STAGING: &str = "/srv/.my app.directory";
const JOURNAL: &str = "/data/mender/update-modules/directory/journal.json";
const SETTINGS: &str = "/etc/mender-modules/directory.toml";

const NEW: &[(&str, &str)] =
    &[("index.html", "<h1>new</h1>\n"), ("lib/a/b/data", "deep\n"), ("run", "#!/bin/sh\nexit 1\n")];

/// Switches on, installs the package, and makes a tree with a past: owners, times, links and attributes of its own.
fn with_old(lab: &mut Lab) -> Result<String> {
    lab.power_on_with(MODULE)?;
    lab.ok(&format!(
        "mkdir -p '{APP}/uploads' && cd '{APP}' && echo old > index.html && echo gone > gone.html && echo me > uploads/photo \
         && ln gone.html second && ln -s gone.html link && chown 33:33 gone.html && chmod 2750 uploads \
         && setfattr -n user.origin -v factory index.html \
         && touch -d 2001-02-03T04:05:06.789 index.html gone.html uploads . && sync"
    ))?;
    lab.snapshot(APP)
}

/// An artifact as Mender's `directory-artifact-gen` makes it.
fn official_artifact(lab: &Lab, files: &[(&str, &str)]) -> Result<String> {
    let files = vec![("dest_dir", format!("{APP}\n").into_bytes()), ("update.tar", lab.archive(files)?)];
    let (name, device_type) = ("release-2", lab.device_type());
    lab.copy_in(&lab.artifact_on_host(Artifact {
        module: MODULE,
        name,
        device_type,
        files,
        meta_data: None,
    })?)
}

/// An artifact of our own form.
fn streamed_artifact(lab: &Lab, files: &[(&str, &str)], meta_data: String) -> Result<String> {
    let files = vec![("tree.tar", lab.archive(files)?)];
    let (name, device_type, meta_data) = ("release-2", lab.device_type(), Some(meta_data));
    lab.copy_in(&lab.artifact_on_host(Artifact { module: MODULE, name, device_type, files, meta_data })?)
}

/// Has to find exactly `files` in the destination.
fn is_live(lab: &Lab, files: &[(&str, &str)]) -> Result<()> {
    let names = lab.ok(&format!("cd '{APP}' && find . -type f | sort"))?;
    let mut expected: Vec<_> = files.iter().map(|(name, _)| format!("./{name}")).collect();
    expected.sort();
    ensure!(names.lines().eq(expected.iter()), "{APP} has {names:?} instead of {expected:?}");
    for (name, content) in files {
        let found = lab.ok(&format!("stat -c '%U:%G' '{APP}/{name}' && cat '{APP}/{name}'"))?;
        ensure!(found == format!("root:root\n{content}"), "{APP}/{name} is {found:?}");
    }
    Ok(())
}

/// Has to find nothing left of an update.
fn is_clean(lab: &Lab) -> Result<()> {
    lab.ok(&format!("test ! -e '{STAGING}' && test ! -e {JOURNAL}"))
        .context("something is left of the update")
        .map(drop)
}

fn package(lab: &mut Lab) -> Result<()> {
    takeover::play(lab, MODULE)
}

fn official(lab: &mut Lab) -> Result<()> {
    let old = with_old(lab)?;
    let artifact = official_artifact(lab, NEW)?;
    lab.client(&format!("install {artifact}"), 0)?;
    is_live(lab, NEW)?;
    lab.client("rollback", 0)?;
    lab.is_as_before(APP, &old)?;
    is_clean(lab)?;
    lab.client(&format!("install {artifact}"), 0)?;
    lab.client("commit", 0)?;
    is_live(lab, NEW)?;
    is_clean(lab)
}

fn streamed(lab: &mut Lab) -> Result<()> {
    lab.power_on_with(MODULE)?;
    lab.ok("rm -rf /srv")?;
    let artifact = streamed_artifact(lab, NEW, format!(r#"{{"dest_dir": "{APP}"}}"#))?;
    lab.client(&format!("install {artifact}"), 0)?;
    is_live(lab, NEW)?;
    lab.client("rollback", 0)?;
    lab.ok("test ! -e /srv").context("what the install made is still there")?;
    lab.client(&format!("install {artifact}"), 0)?;
    lab.client("commit", 0)?;
    is_live(lab, NEW)?;
    is_clean(lab)
}

fn keep(lab: &mut Lab) -> Result<()> {
    let old = with_old(lab)?;
    lab.ok(&format!("echo 'keep = [\"uploads/**\"]' > {SETTINGS}"))?;
    let artifact = official_artifact(lab, NEW)?;
    lab.client(&format!("install {artifact}"), 0)?;
    is_live(lab, &[NEW[0], NEW[1], NEW[2], ("uploads/photo", "me\n")])?;
    lab.client("rollback", 0)?;
    lab.is_as_before(APP, &old)?;
    is_clean(lab)
}

/// A service that answers as long as its tree has a program that does.
const SERVICE: &str = "[Service]\nExecStart=\"/srv/my app/run\"\nRestart=always\nRestartSec=1\n";

/// Its working program.
const SERVER: &str = "#!/bin/sh\nexec busybox httpd -f -p 127.0.0.1:8080 -h \"/srv/my app\"\n";

fn health_gate(lab: &mut Lab) -> Result<()> {
    with_old(lab)?;
    let settings = "[units]\nstop = [\"app.service\"]\nstart = [\"app.service\"]\n\
                    [health]\nurl = \"http://127.0.0.1:8080/index.html\"\nlimit_seconds = 20\nstable_seconds = 3\n";
    lab.ok(&format!(
        "printf '%s' '{SERVICE}' > /etc/systemd/system/app.service && printf '%s' '{SERVER}' > '{APP}/run' \
         && chmod 755 '{APP}/run' && printf '%s' '{settings}' > {SETTINGS} \
         && systemctl daemon-reload && systemctl start app.service"
    ))?;
    let old = lab.snapshot(APP)?;
    let broken = official_artifact(lab, NEW)?; // its program exits at once
    let said = lab.client(&format!("install {broken}"), 1)?;
    ensure!(said.contains("health check"), "the deployment log does not name the health check:\n{said}");
    lab.is_as_before(APP, &old)?;
    is_clean(lab)?;
    let answer = "for try in 1 2 3 4 5 6 7 8 9; do busybox wget -q -O - http://127.0.0.1:8080/index.html && break; sleep 1; done";
    ensure!(lab.ok(answer)? == "old\n", "the old version does not answer");
    let working = official_artifact(lab, &[("index.html", "new\n"), ("run", SERVER)])?;
    lab.client(&format!("install {working}"), 0)?;
    lab.client("commit", 0)?;
    ensure!(lab.ok(answer)? == "new\n", "the new version does not answer");
    is_clean(lab)
}

fn cut_download(lab: &mut Lab) -> Result<()> {
    let old = with_old(lab)?;
    let artifact = official_artifact(lab, NEW)?;
    // Held before the new tree is brought to the medium: all of it is in the page cache, and goes.
    lab.client_held(&format!("install {artifact}"), "syncfs", 1, &format!("test -e '{STAGING}/new/run'"))?;
    lab.power_cut()?;
    lab.power_on()?;
    lab.is_as_before(APP, &old).context("after the boot")?;
    lab.client(&format!("install {artifact}"), 0)?;
    lab.client("commit", 0)?;
    is_live(lab, NEW)?;
    is_clean(lab)
}

fn cut_install(lab: &mut Lab) -> Result<()> {
    let old = with_old(lab)?;
    let forever = "[health]\ncommand = [\"sleep\", \"3600\"]\nlimit_seconds = 3600\n";
    lab.ok(&format!("printf '%s' '{forever}' > {SETTINGS} && sync"))?;
    let artifact = official_artifact(lab, NEW)?;
    lab.client_until(
        &format!("install {artifact}"),
        &format!("grep -q Switching {JOURNAL} && grep -q new '{APP}/index.html'"),
    )?;
    lab.power_cut()?;
    lab.power_on()?;
    lab.is_as_before(APP, &old).context("after the boot")?;
    lab.client("rollback", 2).context("client 3.4 has forgotten an install that was cut")?;
    lab.ok(&format!("rm {SETTINGS}"))?;
    lab.client(&format!("install {artifact}"), 0)?;
    lab.client("commit", 0)?;
    is_live(lab, NEW)?;
    is_clean(lab)
}

fn cut_commit(lab: &mut Lab) -> Result<()> {
    with_old(lab)?;
    let artifact = official_artifact(lab, NEW)?;
    lab.client(&format!("install {artifact}"), 0)?;
    let in_commit = format!("test -e {JOURNAL}.new && grep -q Committed {JOURNAL}.new");
    lab.client_held("commit", "renameat2", 1, &in_commit)?;
    lab.power_cut()?;
    lab.power_on()?;
    is_live(lab, NEW).context("after the boot")?;
    lab.client("commit", 0)?;
    is_live(lab, NEW)?;
    is_clean(lab)
}

fn cut_rollback(lab: &mut Lab) -> Result<()> {
    let old = with_old(lab)?;
    let artifact = official_artifact(lab, NEW)?;
    lab.client(&format!("install {artifact}"), 0)?;
    // The first rename is the journal's, the second the exchange: held before the third, the old is back and nobody knows.
    let exchanged = format!("grep -q RollingBack {JOURNAL} && grep -q old '{APP}/index.html'");
    lab.client_held("rollback", "renameat2", 3, &exchanged)?;
    lab.power_cut()?;
    lab.power_on()?;
    lab.is_as_before(APP, &old).context("after the boot")?;
    lab.client("rollback", 0)?;
    lab.is_as_before(APP, &old)?;
    is_clean(lab)
}
