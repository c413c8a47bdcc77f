//! Level 2: BitBake with OE-Core parses the layer together with all recipes of OE-Core and finds every recipe of the
//! layer. yocto-check-layer, the check of the Yocto Project, passes.

use anyhow::{Context, Result, ensure};
use host::status::step;
use xshell::Shell;

use crate::bitbake::BuildDirectory;
use crate::{Layer, Release, build, downloads};

/// OE-Core's name of the machine for the checks.
const MACHINE: &str = "qemuarm64";

/// Runs the checks and returns a summary.
pub fn run(sh: &Shell, layer: &Layer, release: &Release) -> Result<String> {
    downloads::mirror(sh, layer)?;
    let parsed = parsed(sh, layer, release)?;
    let shown = shown(sh, layer, release)?;
    compatible(sh, layer, release)?;
    Ok(format!("{parsed}; {shown} recipes of the layer found; yocto-check-layer: PASS"))
}

/// Parses all recipes, and returns BitBake's count of them.
fn parsed(sh: &Shell, layer: &Layer, release: &Release) -> Result<String> {
    let directory = BuildDirectory::new(sh, layer, release, "parse", std::slice::from_ref(&layer.directory), "")?;
    let output = step(format!("{}: bitbake -p with all of OE-Core", release.series), |step| {
        directory.run(step, MACHINE, &["bitbake", "-p"])
    })?;
    let count = output.lines().find_map(|line| line.strip_prefix("Parsing of ")?.split(" complete").next());
    Ok(format!("{} parsed", count.context("no count of parsed recipes in the output of bitbake -p")?))
}

/// Checks that `bitbake-layers` shows the recipes of the layer, and returns their number.
fn shown(sh: &Shell, layer: &Layer, release: &Release) -> Result<usize> {
    let layers = [build::stand_ins(layer), vec![layer.directory.clone()]].concat();
    let directory = BuildDirectory::new(sh, layer, release, "recipes", &layers, build::SETTINGS)?;
    let output = step(format!("{}: bitbake-layers show-recipes", release.series), |step| {
        directory.run(step, MACHINE, &["bitbake-layers", "show-recipes", "mender-update-module-*"])
    })?;
    let recipes = build::recipes(layer, release);
    let is_shown = |name: &&String| output.lines().any(|line| line.strip_suffix(':') == Some(name.as_str()));
    let missing: Vec<_> = recipes.iter().filter(|name| !is_shown(name)).collect();
    ensure!(missing.is_empty(), "recipes missing in bitbake-layers show-recipes: {missing:?}:\n{output}");
    Ok(recipes.len())
}

/// Runs yocto-check-layer in a build directory without the layer, which the program adds.
fn compatible(sh: &Shell, layer: &Layer, release: &Release) -> Result<()> {
    let layers = build::stand_ins(layer);
    let directory = BuildDirectory::new(sh, layer, release, "check-layer", &layers, build::SETTINGS)?;
    let path = layer.directory.display().to_string();
    let output = step(format!("{}: yocto-check-layer", release.series), |step| {
        directory.run(step, MACHINE, &["yocto-check-layer", "--no-auto-dependency", &path])
    })?;
    ensure!(output.contains("meta-rust-modules ... PASS"), "yocto-check-layer failed:\n{output}");
    Ok(())
}
