//! `cargo xtask debian`: tests the module `deb` with the real dpkg and apt, on a Debian system of its own.
//!
//! The system is made once and kept in the cache. Tests, fault injection and conformance cases run on copy-on-write
//! mounts of it.

use std::mem;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use host::command::run;
use host::status::step;
use host::{apt, cache, packages};
use xshell::{Shell, cmd};

use crate::needs::{Needs, is_root, refusal};
use crate::record::Record;
use crate::test_output;

/// The host packages that making the system needs.
const HOST_PACKAGES: &[&str] = &["debian-archive-keyring", "mmdebstrap"];

/// The environment variable that names the system to the tests.
pub const SYSTEM: &str = "MENDER_TEST_DEBIAN";

/// Directories of `/usr/share` that are left out of every package, because tests read the whole system thousands of
/// times.
const EXCLUDED: &[&str] = &["doc", "info", "lintian", "locale", "man", "zoneinfo"];

/// The shell command for the finished system. It removes the option that makes dpkg write without syncs, and all
/// package lists.
const CUSTOMIZE: &str = "sed -i /unsafe-io/d \"$1/etc/dpkg/dpkg.cfg.d/99mmdebstrap\" && \
    rm -rf \"$1\"/var/lib/apt/lists/* \"$1\"/var/cache/apt/*.bin";

/// Installs, removes and rolls back real packages on a Debian system, as root
///
/// Takes about 7 minutes on 2 cores. The system is of the host's release, in a chroot.
#[derive(Args, Default)]
pub struct Debian {
    /// Runs only tests whose names contain TEST
    #[arg(value_name = "TEST")]
    test: Option<String>,
}

impl Debian {
    /// Runs the tests of `modules/deb/tests/debian`, and returns their summary.
    pub fn run(self, sh: &Shell, record: &Record) -> Result<String> {
        if let Some(why) = obstacle(sh)? {
            bail!("running the tests failed: {why}");
        }
        let system = system(sh)?;
        // A mount namespace of its own: however the tests end, none of their mounts remains.
        let tests = cmd!(sh, "unshare --mount cargo test --workspace --locked --test debian --").args(&self.test);
        let tests = tests.env(SYSTEM, system);
        let summary = step("packages on a Debian system", |step| test_output::run(step, tests, record))?;
        let wanted = self.test.unwrap_or_default();
        ensure!(!summary.is_empty(), "no test has {wanted} in its name: the tests are in modules/deb/tests/debian");
        Ok(summary)
    }
}

/// The requirements of making and using the system.
pub fn needs() -> Needs {
    Needs::packages(HOST_PACKAGES)
}

/// The reason why this user cannot make or use a Debian system; `None` if this user can.
pub fn obstacle(sh: &Shell) -> Result<Option<String>> {
    Ok(match unavailable()? {
        Some(why) => Some(why),
        None => needs().obstacle(sh)?,
    })
}

/// What making and using a Debian system does, in a directory in memory.
const PROBE: &str = "mount -t tmpfs tmpfs /tmp; cd /tmp; mkdir lower upper work system; mknod device c 1 3
    mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work system
    mkdir system/proc; mount -t proc proc system/proc; : >system/module; mount --bind /proc/version system/module";

/// The reason why no package helps this user to make or use a Debian system; `None` if this user can.
pub fn unavailable() -> Result<Option<String>> {
    if !is_root()? {
        return Ok(Some("dpkg in a chroot needs root: run the command as root".to_owned()));
    }
    let probe = Command::new("unshare").args(["--mount", "sh", "-e", "-c", PROBE]).output();
    let output = probe.context("starting unshare failed: install util-linux")?;
    Ok(refusal(&output).map(|why| format!("mounts are refused: {why}: use a privileged container")))
}

/// Removes those of `modules` that cannot be tested here, because they need a Debian system, as `needs_debian` says:
/// they are recorded as skipped if this user cannot make one, and as failed if it cannot be made. The result is that of
/// making it, for the end of the suite: the other modules can be tested.
pub fn retain_testable(
    sh: &Shell,
    modules: &mut Vec<String>,
    needs_debian: impl Fn(&str) -> bool,
    record: &Record,
) -> Result<Result<()>> {
    if !modules.iter().any(|name| needs_debian(name)) {
        return Ok(Ok(()));
    }
    let (obstacle, made) = match obstacle(sh)? {
        Some(why) => (Some(why), Ok(())),
        None => (None, system(sh).map(drop)),
    };
    if obstacle.is_some() || made.is_err() {
        let (untested, tested): (Vec<_>, Vec<_>) = mem::take(modules).into_iter().partition(|name| needs_debian(name));
        *modules = tested;
        for name in untested {
            match &obstacle {
                Some(why) => {
                    println!("skipped: {name}: no Debian system: {why}");
                    record.skipped(&name, "all", format!("no Debian system: {why}"));
                }
                None => record.ended(&name, "all", &made, None),
            }
        }
    }
    Ok(made)
}

/// The directory of a minimal Debian system of the host's release and architecture. It is made, in about 30 s, if the
/// cache does not have it. Nothing writes to it afterwards.
pub fn system(sh: &Shell) -> Result<PathBuf> {
    packages::ensure(sh, HOST_PACKAGES)?;
    let release = apt::codename()?;
    let parts = [release.as_str(), CUSTOMIZE].into_iter().chain(EXCLUDED.iter().copied());
    let key = format!("{release}-{}", &cache::key(parts.map(str::as_bytes))[..16]);
    let directory = cache::entry("debian", &key, |directory| make(sh, &release, directory))
        .with_context(|| format!("making a Debian system ({release}) failed"))?;
    Ok(directory.join("root"))
}

/// The directory of [`system`], for suites that mount it in this process: moves this process to a mount namespace of
/// its own, which needs root.
pub fn mountable(sh: &Shell) -> Result<PathBuf> {
    let system = system(sh)?;
    mender_update_module_test::debian::own_mounts()?;
    Ok(system)
}

fn make(sh: &Shell, release: &str, directory: &Path) -> Result<()> {
    let mirror = apt::mirror(sh)?;
    let excluded = EXCLUDED.iter().map(|directory| format!("--dpkgopt=path-exclude=/usr/share/{directory}/*"));
    // A mount namespace of its own: however mmdebstrap ends, no mount remains in the directory.
    let mmdebstrap = packages::as_root(sh, "unshare")?
        .args(["--mount", "mmdebstrap", "--mode=root", "--variant=apt", "--format=directory"])
        .arg("--aptopt=APT::Install-Recommends \"false\"")
        .arg("--aptopt=Acquire::Languages \"none\"")
        .arg("--aptopt=APT::Sandbox::User \"root\"") // the user _apt has no access to the cache directory
        .arg("--dpkgopt=force-unsafe-io") // an interrupted build is not used
        .args(excluded)
        .arg(format!("--customize-hook={CUSTOMIZE}"))
        .arg(release)
        .arg(directory.join("root"))
        .arg(mirror);
    step(format!("making a Debian system ({release}) for tests"), |step| run(step, mmdebstrap)).map(drop)
}
