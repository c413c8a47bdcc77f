//! The directory from which BitBake fetches: every crate and every released file, under the names in the recipes.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use host::command::run;
use host::status::step;
use host::{cache, directory};
use xshell::{Shell, cmd};

use crate::Layer;

/// Fills the directory of downloads and returns it.
pub fn mirror(sh: &Shell, layer: &Layer) -> Result<PathBuf> {
    // A build on this host fetches only the crates for this host's platform. Cargo.lock has those for all platforms.
    step("fetching crates", |step| run(step, cmd!(sh, "cargo fetch --locked")))?;
    let directory = layer.scratch.join("downloads");
    directory::empty(&directory)?;
    for file in crates()?.iter().chain(&layer.released) {
        let name = file.file_name().with_context(|| format!("path without a file name: {}", file.display()))?;
        fs::copy(file, directory.join(name)).with_context(|| format!("copying {} failed", file.display()))?;
    }
    Ok(directory)
}

/// Every crate in cargo's cache.
fn crates() -> Result<Vec<PathBuf>> {
    let home = match env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => {
            PathBuf::from(env::var_os("HOME").context("no directory of cargo: set HOME or CARGO_HOME")?).join(".cargo")
        }
    };
    let mut crates = Vec::new();
    for registry in directory::entries(&home.join("registry/cache"))? {
        crates.extend(directory::entries(&registry)?);
    }
    Ok(crates)
}

/// Writes a layer with the checksums of the packages that this work tree has built, which replace those of the release.
/// Another compiler gives other packages. Returns the directory of the layer.
pub fn checksums(layer: &Layer) -> Result<PathBuf> {
    let directory = layer.scratch.join("meta-checksums");
    directory::remove(&directory)?;
    directory::write(
        &directory.join("conf/layer.conf"),
        "BBFILES += \"${LAYERDIR}/recipes-*/*/*.bbappend\"\nBBFILE_COLLECTIONS += \"checksums\"\n\
         BBFILE_PATTERN_checksums = \"^${LAYERDIR}/\"\nLAYERSERIES_COMPAT_checksums = \"wrynose scarthgap\"\n",
    )?;
    for module in &layer.modules {
        let mut append = "RUST_MODULES_PREBUILT = \"test\"\n".to_owned();
        for package in &layer.released {
            let name = package.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some((name, architecture)) = name.strip_suffix(".deb").and_then(|name| {
                let (name, rest) = name.split_once('_')?;
                Some((name, rest.rsplit_once('_')?.1))
            }) else {
                continue;
            };
            if name == format!("mender-update-module-{module}") {
                let content = fs::read(package).with_context(|| format!("reading {} failed", package.display()))?;
                append += &format!("SRC_URI[{name}-{architecture}.sha256sum] = \"{}\"\n", cache::sha256(&content));
                let libc = c_library(&package.with_extension("spdx.json"))?;
                append += &format!("RUST_MODULES_PREBUILT_LIBC[{architecture}] = \"{libc}\"\n");
            }
        }
        directory::write(
            &directory.join(format!("recipes-mender/prebuilt/mender-update-module-{module}-bin_%.bbappend")),
            &append,
        )?;
    }
    Ok(directory)
}

/// The name of the C library in the SBOM at `path`.
fn c_library(path: &Path) -> Result<&'static str> {
    let sbom = fs::read_to_string(path).with_context(|| format!("reading {} failed", path.display()))?;
    Ok(if sbom.contains("\"SPDXRef-Musl\"") { "musl" } else { "glibc" })
}
