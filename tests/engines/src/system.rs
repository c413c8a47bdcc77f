//! The Debian system that every device shares, made once by mmdebstrap and kept in the user's cache.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use host::command::run;
use host::packages::as_root;
use host::script::quoted;
use host::status::step;
use host::{apt, cache, packages};
use xshell::Shell;

use crate::HOST_PACKAGES;

/// The Debian release.
const RELEASE: &str = "trixie";

/// The names of the release on the mirror, tried in this order: a mirror's index can be inconsistent for one of them.
const SUITES: &[&str] = &[RELEASE, "stable"];

/// The packages, in addition to Debian's essential ones and apt.
const PACKAGES: &[&str] = &[
    "aardvark-dns",
    "busybox-static", // wget, for requests to the containers
    "ca-certificates",
    "catatonit", // for podman's pods
    "conmon",
    "crun",
    "dbus",
    "docker-cli",
    "docker-compose",
    "docker.io",
    "iproute2",
    "iptables",
    "mender-artifact", // for the generators
    "mender-client",
    "netavark",
    "podman",
    "podman-compose",
    "procps",
    "systemd",
    "systemd-sysv",
];

/// The directories of `/usr/share` that are omitted.
const EXCLUDED: &[&str] = &["doc", "info", "lintian", "locale", "man", "zoneinfo"];

/// The script that mmdebstrap runs on the finished system.
const CUSTOMIZE: &str = include_str!("../guest/customize.sh");

/// The directory of the system. Devices never write to it. If the cache has none for the current recipe, it is made
/// in about two minutes.
///
/// # Errors
/// When host packages are missing and may not be installed, or the mirror does not answer.
pub fn ensure(sh: &Shell) -> Result<PathBuf> {
    packages::ensure(sh, HOST_PACKAGES)?;
    let parts = [RELEASE, CUSTOMIZE].into_iter().chain(PACKAGES.iter().chain(EXCLUDED).copied());
    let key = format!("{RELEASE}-{}", &cache::key(parts.map(str::as_bytes))[..16]);
    let directory = cache::entry("engines", &key, |directory| make(sh, directory))
        .with_context(|| format!("making a Debian system ({RELEASE}) with container engines failed"))?;
    Ok(directory.join("root"))
}

fn make(sh: &Shell, directory: &Path) -> Result<()> {
    let mirror = apt::mirror(sh)?;
    let script = directory.join("customize.sh");
    sh.write_file(&script, CUSTOMIZE)?;
    let root = directory.join("root");
    step(format!("a Debian system ({RELEASE}) with container engines"), |step| {
        let mut errors = String::new();
        for suite in SUITES {
            // In a mount namespace, so that an interrupted build leaves no mount in the directory.
            let command = as_root(sh, "unshare")?
                .args(["--mount", "mmdebstrap", "--mode=root", "--variant=apt", "--format=directory"])
                .arg(format!("--include={}", PACKAGES.join(",")))
                .arg("--aptopt=APT::Install-Recommends \"false\"")
                .arg("--aptopt=Acquire::Languages \"none\"")
                .arg("--aptopt=Acquire::Retries \"3\"")
                .arg("--aptopt=APT::Sandbox::User \"root\"") // _apt cannot read the cache directory
                .arg("--dpkgopt=force-unsafe-io") // an interrupted build is discarded
                .args(EXCLUDED.iter().map(|name| format!("--dpkgopt=path-exclude=/usr/share/{name}/*")))
                .arg(format!("--customize-hook=sh {} \"$1\" {RELEASE}", quoted(&script)))
                .arg(suite)
                .arg(&root)
                .arg(&mirror);
            match run(step, command) {
                Ok(_) => return Ok(()),
                Err(error) => errors.push_str(&format!("\n{error:#}")),
            }
            run(step, as_root(sh, "rm")?.arg("-rf").arg(&root))?;
        }
        bail!("mmdebstrap failed: {RELEASE}: check the network, or try again when the mirror has settled:{errors}")
    })
}
