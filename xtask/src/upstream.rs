//! The shell modules of Debian's package mender-client, with which ours are compared. They are downloaded and
//! unpacked into the cache directory, and not installed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use host::apt::{self, Root};
use host::cache;
use host::status::step;
use xshell::Shell;

use crate::dist::modules;
use crate::dpkg;

/// The package. Its successor, mender-update, is not in Debian.
const PACKAGE: &str = "mender-client";

/// The directory from which the client runs modules.
pub const MODULES: &str = "usr/share/mender/modules/v3";

/// The modules that cannot run on a developer's machine, with the reason.
pub const NOT_TRIED: &[(&str, &str)] = &[
    ("deb", "would install a package on this machine"),
    ("docker", "would stop every container of this machine, and needs its engine"),
    ("rpm", "would install a package on this machine, and needs rpm"),
];

/// The directory of the shell modules of the host's release. The first call downloads the newest version. Later calls
/// use that version without network and apt, until cargo's target directory is cleaned.
pub fn modules(sh: &Shell) -> Result<PathBuf> {
    let build = modules::workspace(sh)?.target.join("upstream");
    let release = apt::codename()?;
    let record = build.join(format!("{PACKAGE}-{release}"));
    if let Some(directory) = fs::read_to_string(&record).ok().map(|directory| PathBuf::from(directory).join(MODULES)) {
        if directory.is_dir() {
            return Ok(directory);
        }
    }
    let directory = fetch(sh, &build.join("apt"), &release)?;
    fs::write(&record, directory.as_os_str().as_encoded_bytes())
        .with_context(|| format!("writing {} failed", record.display()))?;
    Ok(directory.join(MODULES))
}

/// Unpacks the newest version of the package into the cache, and returns the directory.
fn fetch(sh: &Shell, build: &Path, release: &str) -> Result<PathBuf> {
    let architecture = dpkg::architecture(sh)?;
    step(format!("fetching {PACKAGE} of Debian {release}"), |step| {
        let root = Root::new(sh, step, build, release, &architecture)?;
        let version = root.versions(PACKAGE)?.into_iter().next();
        let version = version.with_context(|| format!("no package {PACKAGE} in Debian {release}"))?;
        let key = cache::key([release, &architecture, &version].map(str::as_bytes));
        cache::entry(PACKAGE, &key, |directory| {
            for deb in root.download(step, &[&format!("{PACKAGE}={version}")])? {
                dpkg::unpack(sh, step, &deb, directory)?;
            }
            Ok(())
        })
    })
}
