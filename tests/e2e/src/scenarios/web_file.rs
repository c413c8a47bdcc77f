//! `web-file` on the device: its package, its updates, and what happens when they are refused, fail or lose power.

use anyhow::{Context, Result, ensure};

use crate::Scenario;
use crate::artifact::Artifact;
use crate::lab::Lab;

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "package",
        says: "the package installs, and purging it leaves a clean system",
        play: package,
    },
    Scenario { name: "install-commit", says: "an update installs and commits", play: install_commit },
    Scenario {
        name: "install-rollback",
        says: "an update rolls back to exactly the old",
        play: install_rollback,
    },
    Scenario {
        name: "failing-install",
        says: "an update that fails to install rolls back by itself",
        play: failing,
    },
    Scenario {
        name: "several-files",
        says: "one artifact replaces a whole set of files",
        play: several_files,
    },
    Scenario {
        name: "first-install",
        says: "a first install into a missing web root rolls back to none",
        play: first,
    },
    Scenario {
        name: "mount-point",
        says: "a web root that is a mount point is updated and rolled back",
        play: mounted,
    },
    Scenario {
        name: "refused",
        says: "foreign and truncated artifacts are refused, and nothing changes",
        play: refused,
    },
    Scenario {
        name: "power-cut-install",
        says: "power lost in ArtifactInstall: the boot brings the old back",
        play: cut_install,
    },
    Scenario {
        name: "power-cut-commit",
        says: "power lost in ArtifactCommit: the commit is made again",
        play: cut_commit,
    },
];

pub const MODULE: &str = "web-file";
const WWW: &str = "/var/www";
const STAGING: &str = "/var/.www.web-file";
const JOURNAL: &str = "/data/mender/update-modules/web-file/journal.json";
const PACKAGE: &str = "mender-update-module-web-file";

const NEW: &[(&str, &str)] = &[("index.html", "<h1>new</h1>\n"), ("style.css", "h1 { color: teal }\n")];

/// Switches on, installs the package, and makes a web root with a past: an owner, times and attributes of its own.
fn with_old(lab: &mut Lab) -> Result<String> {
    lab.power_on_with(MODULE)?;
    lab.ok(&format!(
        "mkdir -p {WWW}/uploads && cd {WWW} && echo old > index.html && echo gone > gone.html && echo me > uploads/photo \
         && chown 33:33 gone.html && chmod 640 gone.html && setfattr -n user.origin -v factory index.html \
         && touch -d 2001-02-03T04:05:06.789 index.html gone.html uploads . && sync"
    ))?;
    lab.snapshot(WWW)
}

/// Has to find exactly the artifact's `files` at the top of the web root.
fn is_live(lab: &Lab, files: &[(&str, &str)]) -> Result<()> {
    let names = lab.ok(&format!("cd {WWW} && find . -maxdepth 1 -type f | sort"))?;
    let mut expected: Vec<_> = files.iter().map(|(name, _)| format!("./{name}")).collect();
    expected.sort();
    ensure!(names.lines().eq(expected.iter()), "{WWW} has {names:?} instead of {expected:?}");
    for (name, content) in files {
        let found = lab.ok(&format!("stat -c '%U:%G %a' {WWW}/{name} && cat {WWW}/{name}"))?;
        ensure!(found == format!("root:root 644\n{content}"), "{WWW}/{name} is {found:?}");
    }
    Ok(())
}

/// Has to find nothing left of an update.
fn is_clean(lab: &Lab) -> Result<()> {
    lab.ok(&format!("test ! -e {STAGING} && test ! -e {JOURNAL}"))
        .context("something is left of the update")
        .map(drop)
}

fn package(lab: &mut Lab) -> Result<()> {
    lab.power_on()?;
    // What dpkg, apt and systemd write about their own work is not the package's.
    let files = "find / -xdev \\( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /root \
                 -o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/cache -o -path /var/log \
                 -o -path /var/lib/systemd \\) -prune -o -print | sort";
    let before = lab.ok(files)?;
    lab.install_package_with_apt(MODULE)?;
    lab.ok(
        "test -x /usr/share/mender/modules/v3/web-file && /usr/share/mender/modules/v3/web-file --version",
    )?;
    lab.ok("systemctl is-enabled mender-update-module-web-file-recover.service")?;
    lab.ok(&format!("dpkg --verify {PACKAGE}"))?;
    lab.purge_package(PACKAGE)?;
    let after = lab.ok(files)?;
    ensure!(before == after, "purging leaves another system than before:\n{}", differences(&before, &after));
    Ok(())
}

fn differences(before: &str, after: &str) -> String {
    let only = |one: &str, other: &str, mark: char| -> String {
        one.lines()
            .filter(|line| !other.lines().any(|there| there == *line))
            .map(|line| format!("{mark}{line}\n"))
            .collect()
    };
    only(before, after, '-') + &only(after, before, '+')
}

fn install_commit(lab: &mut Lab) -> Result<()> {
    with_old(lab)?;
    let artifact = lab.artifact(MODULE, "release-2", NEW)?;
    lab.client(&format!("install {artifact}"), 0)?;
    is_live(lab, NEW)?;
    lab.client("commit", 0)?;
    is_live(lab, NEW)?;
    is_clean(lab)?;
    let name = lab.client("show-artifact", 0)?;
    ensure!(name.contains("release-2"), "the client knows the artifact as {name:?}");
    lab.ok(&format!("cat {WWW}/uploads/photo"))?;
    Ok(())
}

fn install_rollback(lab: &mut Lab) -> Result<()> {
    let old = with_old(lab)?;
    let artifact = lab.artifact(MODULE, "release-2", NEW)?;
    lab.client(&format!("install {artifact}"), 0)?;
    is_live(lab, NEW)?;
    lab.client("rollback", 0)?;
    lab.is_as_before(WWW, &old)?;
    is_clean(lab)
}

fn failing(lab: &mut Lab) -> Result<()> {
    with_old(lab)?;
    // A file that something is mounted on can be neither kept nor replaced, which shows only in ArtifactInstall.
    lab.ok(&format!("mount --bind /etc/hostname {WWW}/index.html"))?;
    let old = lab.snapshot(WWW)?;
    let artifact = lab.artifact(MODULE, "release-2", NEW)?;
    let said = lab.client(&format!("install {artifact}"), 1)?;
    ensure!(said.contains("index.html"), "the deployment log does not name the file:\n{said}");
    lab.is_as_before(WWW, &old)?;
    is_clean(lab)?;
    lab.client("commit", 2)?;
    Ok(())
}

fn several_files(lab: &mut Lab) -> Result<()> {
    with_old(lab)?;
    let contents: Vec<_> =
        (0..40).map(|number| (format!("page-{number}.html"), format!("page {number}\n"))).collect();
    let files: Vec<_> = contents.iter().map(|(name, content)| (name.as_str(), content.as_str())).collect();
    let artifact = lab.artifact(MODULE, "release-2", &files)?;
    lab.client(&format!("install {artifact}"), 0)?;
    lab.client("commit", 0)?;
    let listing =
        lab.ok(&format!("cd {WWW} && find . -maxdepth 1 -type f | wc -l && cat page-0.html page-39.html"))?;
    ensure!(listing == "40\npage 0\npage 39\n", "{WWW} has {listing:?}");
    is_clean(lab)
}

fn first(lab: &mut Lab) -> Result<()> {
    lab.power_on_with(MODULE)?;
    let artifact = lab.artifact(MODULE, "release-1", NEW)?;
    for web_root in ["rm -rf", "mkdir"] {
        lab.ok(&format!("{web_root} {WWW}"))?;
        let old = lab.snapshot(WWW)?;
        lab.client(&format!("install {artifact}"), 0)?;
        is_live(lab, NEW)?;
        lab.client("rollback", 0)?;
        lab.is_as_before(WWW, &old)?;
    }
    is_clean(lab)
}

fn mounted(lab: &mut Lab) -> Result<()> {
    lab.power_on_with(MODULE)?;
    lab.ok(&format!(
        "mkdir -p {WWW} && mount -t tmpfs none {WWW} && echo old > {WWW}/index.html && touch -d 2001-02-03 {WWW}"
    ))?;
    let old = lab.snapshot(WWW)?;
    let artifact = lab.artifact(MODULE, "release-2", NEW)?;
    lab.client(&format!("install {artifact}"), 0)?;
    is_live(lab, NEW)?;
    lab.client("rollback", 0)?;
    lab.is_as_before(WWW, &old)
}

fn refused(lab: &mut Lab) -> Result<()> {
    let old = with_old(lab)?;
    let files = vec![("index.html", b"not for this device".to_vec())];
    let foreign =
        Artifact { module: MODULE, name: "foreign", device_type: "toaster", files, meta_data: None };
    let foreign = lab.artifact_on_host(foreign)?;
    let foreign = lab.copy_in(&foreign)?;
    lab.client(&format!("install {foreign}"), 1)?;
    lab.is_as_before(WWW, &old)?;
    let whole =
        lab.artifact(MODULE, "release-2", &[("index.html", &"a page of some size\n".repeat(4096))])?;
    lab.ok(&format!("head -c $(( $(stat -c %s {whole}) / 2 )) {whole} > /root/half.mender"))?;
    lab.client("install /root/half.mender", 1)?;
    lab.is_as_before(WWW, &old)?;
    is_clean(lab)
}

fn cut_install(lab: &mut Lab) -> Result<()> {
    let old = with_old(lab)?;
    let artifact = lab.artifact(MODULE, "release-2", NEW)?;
    // The module's first rename in ArtifactInstall is the journal's, the second that of the directory of previous files, the
    // third the first file's: held before the fourth, the web root is between the previous and the new version.
    let between = format!(
        "grep -q Switching {JOURNAL} && test ! -e {STAGING}/new/index.html && test -e {STAGING}/new/style.css"
    );
    lab.client_held(&format!("install {artifact}"), "renameat2", 4, &between)?;
    lab.power_cut()?;
    lab.power_on()?;
    lab.is_as_before(WWW, &old).context("after the boot")?;
    lab.client("rollback", 2).context("client 3.4 has forgotten an install that was cut")?;
    lab.client(&format!("install {artifact}"), 0)?;
    lab.client("commit", 0)?;
    is_live(lab, NEW)?;
    is_clean(lab)
}

fn cut_commit(lab: &mut Lab) -> Result<()> {
    with_old(lab)?;
    let artifact = lab.artifact(MODULE, "release-2", NEW)?;
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
