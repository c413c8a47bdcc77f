//! Tier 2: BitBake with OE-Core parses the layer among all of OE-Core's recipes, finds every recipe, and yocto-check-layer, the
//! Yocto Project's own check, is content.

use anyhow::{Context, Result, ensure};
use host::status::step;
use xshell::Shell;

use crate::bitbake::BuildFolder;
use crate::{Layer, Release, build, downloads};

/// What OE-Core calls the machine that the checks are made for.
const MACHINE: &str = "qemuarm64";

/// Runs the checks and says what they showed.
pub fn run(sh: &Shell, layer: &Layer, release: &Release) -> Result<String> {
    downloads::mirror(sh, layer)?;
    let whole = BuildFolder::new(sh, layer, release, "parse", std::slice::from_ref(&layer.folder), "")?;
    let parsed = step(format!("{}: bitbake -p with all of OE-Core", release.series), |step| {
        whole.run(step, MACHINE, &["bitbake", "-p"])
    })?;
    let count = parsed
        .lines()
        .find(|line| line.starts_with("Parsing of"))
        .context("BitBake does not say what it parsed")?;
    let shown = step(format!("{}: bitbake-layers show-recipes", release.series), |step| {
        whole.run(step, MACHINE, &["bitbake-layers", "show-recipes", "--bare", "mender-update-module-*"])
    })?;
    let expected = build::recipes(layer, release);
    let missing: Vec<_> = expected
        .iter()
        .filter(|name| !shown.lines().any(|line| line.trim_end_matches(':') == name.as_str()))
        .collect();
    ensure!(missing.is_empty(), "bitbake-layers does not show {missing:?} but:\n{shown}");
    let masked =
        BuildFolder::new(sh, layer, release, "check-layer", &build::stand_ins(layer), build::SETTINGS)?;
    let check =
        ["yocto-check-layer", "--no-auto-dependency", &layer.folder.display().to_string()].map(str::to_owned);
    let check: Vec<_> = check.iter().map(String::as_str).collect();
    let verdict =
        step(format!("{}: yocto-check-layer", release.series), |step| masked.run(step, MACHINE, &check))?;
    ensure!(
        verdict.contains("meta-rust-modules ... PASS"),
        "yocto-check-layer does not say PASS:\n{verdict}"
    );
    let count = count.split(" complete").next().unwrap_or(count).to_lowercase();
    Ok(format!("{count}, {} recipes of ours shown, yocto-check-layer PASS", expected.len()))
}
