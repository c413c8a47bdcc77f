//! `cargo xtask debian`: what the module deb does with the real dpkg and apt, on Debian systems of its own.
//!
//! The system is made once and kept in the cache; tests, cuts and the protocol's cases run on copy-on-write mounts of it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use host::command::{output, run};
use host::status::step;
use host::{apt, cache, packages};
use xshell::{Shell, cmd};

use crate::needs::{Needs, is_root};

/// What making the system needs on the host.
const HOST_PACKAGES: &[&str] = &["debian-archive-keyring", "mmdebstrap"];

/// Left out of every package: the system is walked through thousands of times.
const EXCLUDED: &[&str] = &["doc", "info", "lintian", "locale", "man", "zoneinfo"];

/// Run on the finished system: it must write as safely as any Debian's, and knows no archive.
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
    /// Runs the tests of `modules/deb/tests/debian`, and says how many there were.
    ///
    /// # Errors
    /// When one fails, or the system cannot be made.
    pub fn run(self, sh: &Shell) -> Result<String> {
        if let Some(why) = obstacle(sh)? {
            bail!("the tests cannot begin: {why}");
        }
        let system = system(sh)?;
        // In a mount namespace of its own: whatever ends it, none of its mounts stays.
        let tests =
            cmd!(sh, "unshare --mount cargo test --locked --package deb --test debian --").args(self.test);
        let said = step("packages on a Debian system", |step| {
            output(step, tests.env("MENDER_TEST_DEBIAN", system))
        })?;
        let result = said.stdout.lines().find_map(|line| line.strip_prefix("test result: "));
        Ok(result.context("cargo test does not say how many tests there were")?.to_owned())
    }
}

/// What making and using the system needs of this machine.
pub fn needs() -> Needs {
    Needs::packages(HOST_PACKAGES)
}

/// Why a Debian system cannot be made or used by this user, if it cannot: for what is left out then.
///
/// # Errors
/// On a host without dpkg.
pub fn obstacle(sh: &Shell) -> Result<Option<String>> {
    if !is_root()? {
        return Ok(Some("root is needed to run dpkg in a chroot: run this as root".to_owned()));
    }
    needs().obstacle(sh)
}

/// A minimal Debian system of the host's release and architecture, made where the cache has none for today's recipe:
/// about 30 s. Nothing in it is ever written to.
///
/// # Errors
/// When host packages are missing and may not be installed, or the mirror does not answer.
pub fn system(sh: &Shell) -> Result<PathBuf> {
    packages::ensure(sh, HOST_PACKAGES)?;
    let release = apt::codename()?;
    let parts = [release.as_str(), CUSTOMIZE].into_iter().chain(EXCLUDED.iter().copied());
    let key = format!("{release}-{}", &cache::key(parts.map(str::as_bytes))[..16]);
    let directory = cache::entry("debian", &key, |directory| make(sh, &release, directory))
        .with_context(|| format!("making a Debian system ({release})"))?;
    Ok(directory.join("root"))
}

/// As [`system`], for suites that mount it in this process: it has mounts of its own from now on.
///
/// # Errors
/// As there, and when this is not run by root.
pub fn mountable(sh: &Shell) -> Result<PathBuf> {
    let system = system(sh)?;
    mock_client::debian::own_mounts()?;
    Ok(system)
}

fn make(sh: &Shell, release: &str, directory: &Path) -> Result<()> {
    let mirror = apt::mirror(sh)?;
    let excluded =
        EXCLUDED.iter().map(|directory| format!("--dpkgopt=path-exclude=/usr/share/{directory}/*"));
    // In a mount namespace of its own: whatever ends this, no mount stays in the directory.
    let mmdebstrap = packages::as_root(sh, "unshare")?
        .args(["--mount", "mmdebstrap", "--mode=root", "--variant=apt", "--format=directory"])
        .arg("--aptopt=APT::Install-Recommends \"false\"")
        .arg("--aptopt=Acquire::Languages \"none\"")
        .arg("--aptopt=APT::Sandbox::User \"root\"") // the cache directory is closed to _apt
        .arg("--dpkgopt=force-unsafe-io") // an interrupted build is thrown away
        .args(excluded)
        .arg(format!("--customize-hook={CUSTOMIZE}"))
        .arg(release)
        .arg(directory.join("root"))
        .arg(mirror);
    step(format!("a Debian system ({release}) for tests"), |step| run(step, mmdebstrap)).map(drop)
}
