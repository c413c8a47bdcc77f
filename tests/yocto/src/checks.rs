//! Level 2: BitBake with OE-Core parses the layer among all of OE-Core's recipes, finds every recipe, and yocto-check-layer, the
//! Yocto Project's own check, is content.

use anyhow::{Context, Result, ensure};
use host::status::step;
use xshell::Shell;

use crate::bitbake::BuildDirectory;
use crate::{Layer, Release, build, downloads};

/// What OE-Core calls the machine that the checks are made for.
const MACHINE: &str = "qemuarm64";

/// Runs the checks and says what they showed.
pub fn run(sh: &Shell, layer: &Layer, release: &Release) -> Result<String> {
    downloads::mirror(sh, layer)?;
    let parsed = parsed(sh, layer, release)?;
    let shown = shown(sh, layer, release)?;
    compatible(sh, layer, release)?;
    Ok(format!("{parsed}; {shown} recipes of ours shown; yocto-check-layer: PASS"))
}

/// Parses everything, and returns how BitBake counts it.
fn parsed(sh: &Shell, layer: &Layer, release: &Release) -> Result<String> {
    let directory =
        BuildDirectory::new(sh, layer, release, "parse", std::slice::from_ref(&layer.directory), "")?;
    let said = step(format!("{}: bitbake -p with all of OE-Core", release.series), |step| {
        directory.run(step, MACHINE, &["bitbake", "-p"])
    })?;
    let count = said.lines().find_map(|line| line.strip_prefix("Parsing of ")?.split(" complete").next());
    Ok(format!("{} parsed", count.context("BitBake does not say what it has parsed")?))
}

/// Has `bitbake-layers` show the layer's recipes, and returns how many they are.
fn shown(sh: &Shell, layer: &Layer, release: &Release) -> Result<usize> {
    let layers = [build::stand_ins(layer), vec![layer.directory.clone()]].concat();
    let directory = BuildDirectory::new(sh, layer, release, "recipes", &layers, build::SETTINGS)?;
    let said = step(format!("{}: bitbake-layers show-recipes", release.series), |step| {
        directory.run(step, MACHINE, &["bitbake-layers", "show-recipes", "mender-update-module-*"])
    })?;
    let recipes = build::recipes(layer, release);
    let is_shown = |name: &&String| said.lines().any(|line| line.strip_suffix(':') == Some(name.as_str()));
    let missing: Vec<_> = recipes.iter().filter(|name| !is_shown(name)).collect();
    ensure!(missing.is_empty(), "bitbake-layers does not show {missing:?} but:\n{said}");
    Ok(recipes.len())
}

/// Runs yocto-check-layer on a build directory without the layer, which it adds itself.
fn compatible(sh: &Shell, layer: &Layer, release: &Release) -> Result<()> {
    let layers = build::stand_ins(layer);
    let directory = BuildDirectory::new(sh, layer, release, "check-layer", &layers, build::SETTINGS)?;
    let path = layer.directory.display().to_string();
    let said = step(format!("{}: yocto-check-layer", release.series), |step| {
        directory.run(step, MACHINE, &["yocto-check-layer", "--no-auto-dependency", &path])
    })?;
    ensure!(said.contains("meta-rust-modules ... PASS"), "yocto-check-layer does not say PASS:\n{said}");
    Ok(())
}
