//! The shell modules that Debian's mender-client package carries: what ours are compared with. They are downloaded and
//! unpacked into the cache directory, never installed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use host::apt::{self, Root};
use host::cache;
use host::command::run;
use host::status::step;
use xshell::{Shell, cmd};

use crate::dist::modules;

/// The package: mender-update, its successor, is not in Debian.
const PACKAGE: &str = "mender-client";

/// Where the client looks for modules.
pub const MODULES: &str = "usr/share/mender/modules/v3";

/// The modules that cannot be tried on a developer's machine, and why.
pub const NOT_TRIED: &[(&str, &str)] = &[
    ("deb", "would install a package on this machine"),
    ("docker", "would stop every container of this machine, and needs its engine"),
    ("rpm", "would install a package on this machine, and needs rpm"),
];

/// The directory of the shell modules of the host's release. Once they are there, neither network nor apt is asked: the
/// version stays what it was until cargo's target directory is cleaned.
///
/// # Errors
/// When the package cannot be had or unpacked.
pub fn modules(sh: &Shell) -> Result<PathBuf> {
    let build = modules::workspace(sh)?.target.join("upstream");
    let release = apt::codename()?;
    let remembered = build.join(format!("{PACKAGE}-{release}"));
    if let Some(directory) =
        fs::read_to_string(&remembered).ok().map(|directory| PathBuf::from(directory).join(MODULES))
    {
        if directory.is_dir() {
            return Ok(directory);
        }
    }
    let directory = fetch(sh, &build.join("apt"), &release)?;
    fs::write(&remembered, directory.as_os_str().as_encoded_bytes())
        .with_context(|| format!("writing {}", remembered.display()))?;
    Ok(directory.join(MODULES))
}

/// The directory of the cache that has the package's newest version, unpacked.
fn fetch(sh: &Shell, build: &Path, release: &str) -> Result<PathBuf> {
    let architecture = cmd!(sh, "dpkg --print-architecture").quiet().read()?;
    step(format!("fetching {PACKAGE} of Debian {release}"), |step| {
        let root = Root::new(sh, step, build, release, &architecture)?;
        let version = root.versions(PACKAGE)?.into_iter().next();
        let version = version.with_context(|| format!("Debian {release} has no package {PACKAGE}"))?;
        let key = cache::key([release, &architecture, &version].map(str::as_bytes));
        cache::entry(PACKAGE, &key, |directory| {
            for deb in root.download(step, &[&format!("{PACKAGE}={version}")])? {
                run(step, cmd!(sh, "dpkg-deb --extract {deb} {directory}"))
                    .with_context(|| format!("unpacking {} into {}", deb.display(), directory.display()))?;
            }
            Ok(())
        })
    })
}
