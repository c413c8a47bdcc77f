//! Tier 1, from registries alone: BitBake's engine out of its PyPI package parses every recipe against small stand-ins for OE-Core's
//! classes, and fetches and unpacks its source; oelint-adv and kas' schema find nothing.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use host::command::run as run_command;
use host::status::step;
use host::{cache, folder, packages};
use xshell::{Shell, cmd};

use crate::{Layer, downloads};

/// The Python packages, pinned.
const REQUIREMENTS: &str = include_str!("../python/requirements.txt");

/// Runs everything and says what it showed.
pub fn run(sh: &Shell, layer: &Layer) -> Result<String> {
    let python = python(sh)?;
    let recipes = &files(&layer.folder, "bb")?;
    let mirror = downloads::mirror(sh, layer)?;
    let appends = downloads::checksums(layer)?;
    let build = layer.scratch.join("engine");
    folder::remove(&build)?;
    let layers = [layer.tests.join("meta-core"), layer.folder.clone()].map(|path| path.display().to_string());
    folder::write(
        &build.join("conf/bblayers.conf"),
        format!(
            "BBPATH = \"${{TOPDIR}}\"\nDL_DIR = \"{}\"\nBBLAYERS = \"{}\"\n",
            mirror.display(),
            layers.join(" ")
        ),
    )?;
    let script = layer.tests.join("python/parse.py");
    step(format!("BitBake's engine: {} recipes", recipes.len()), |step| {
        run_command(step, cmd!(sh, "{python} {script} {build} {appends} {recipes...}"))
    })?;
    let linted =
        &[recipes.clone(), files(&layer.folder, "bbclass")?, vec![layer.folder.join("conf/layer.conf")]]
            .concat();
    step(format!("oelint-adv: {} files", linted.len()), |step| {
        let _here = sh.push_dir(&layer.folder); // for its settings, the layer's exceptions
        run_command(step, cmd!(sh, "{python} -m oelint_adv --quiet --mode=all {linted...}"))
    })?;
    let kas = &files(&layer.folder.join("kas"), "yml")?;
    let script = layer.tests.join("python/kas_schema.py");
    step(format!("kas' schema: {} files", kas.len()), |step| {
        run_command(step, cmd!(sh, "{python} {script} {kas...}"))
    })?;
    Ok(format!(
        "{} recipes parsed, their sources unpacked; {} files without a finding of oelint-adv; {} files of kas'",
        recipes.len(),
        linted.len(),
        kas.len()
    ))
}

/// The Debian packages that the checks without OE-Core need on the host.
pub const EVERYWHERE_PACKAGES: &[&str] = &["python3-venv"];

/// A Python with the packages, from the cache.
fn python(sh: &Shell) -> Result<PathBuf> {
    packages::ensure(sh, EVERYWHERE_PACKAGES)?;
    let folder = cache::entry("python", &cache::key([REQUIREMENTS.as_bytes()])[..16], |folder| {
        step("Python packages: BitBake's engine, oelint-adv, kas", |step| {
            run_command(step, cmd!(sh, "python3 -m venv {folder}"))?;
            let requirements = folder.join("requirements.txt");
            folder::write(&requirements, REQUIREMENTS)?;
            let python = folder.join("bin/python");
            run_command(step, cmd!(sh, "{python} -m pip install --quiet --requirement {requirements}"))
                .context("installing Python packages: is the network up?")
        })?;
        Ok(())
    })?;
    Ok(folder.join("bin/python"))
}

/// The files below `folder` with the ending `extension`, sorted.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut files = folder::files(folder)?;
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    Ok(files)
}
