//! The layer's tests, each by its name in a summary: what passed, what failed, what was left out and why.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use host::packages;
use xshell::{Shell, cmd};
use yocto::{BUILDS, Build, Built, HOST_PACKAGES, Layer, Release};

use super::LAYER;
use crate::conformance::{Conformance, needs_debian, play_beside};
use crate::dist::{self, Dist, modules};
use crate::e2e;
use crate::summary::Summary;
use crate::target;

/// The scenario that a package of BitBake's is played with, and the module that it is about.
const SCENARIO: (&str, &str) = ("web-file", "install-rollback");

/// Runs tier 1 and, where OE-Core is at hand, in `oe_core` or where it was the last time, tiers 2 and 3.
///
/// # Errors
/// When the layer cannot be tested at all; what a test showed is in `summary`.
pub fn run(sh: &Shell, oe_core: Option<&Path>, summary: &mut Summary) -> Result<()> {
    let mut layer = layer(sh)?;
    match packages::obstacle(sh, yocto::EVERYWHERE_PACKAGES)? {
        Some(why) => summary.skipped("layer: parse", why),
        None => summary.ended("layer: parse", layer.everywhere(sh)),
    }
    let Some(folder) = remembered(oe_core)? else {
        let why = "no OE-Core is at hand: cargo xtask layer --test --oe-core DIR";
        summary.skipped("layer: OE-Core", why);
        summary.skipped("layer: build", why);
        return Ok(());
    };
    if let Some(why) = packages::obstacle(sh, HOST_PACKAGES)? {
        summary.skipped("layer: OE-Core", &why);
        summary.skipped("layer: build", why);
        return Ok(());
    }
    packages::ensure(sh, HOST_PACKAGES)?;
    Dist::default().run(sh)?;
    layer.released = dist::released(&sh.current_dir().join("dist"))?;
    let compatible = yocto::compatible(&layer.folder)?;
    for release in yocto::releases(&folder)? {
        let series = &release.series;
        if !compatible.contains(series) {
            summary.skipped(format!("layer: {series}"), "the layer does not claim to be compatible with it");
            continue;
        }
        summary.ended(format!("layer: {series}"), layer.checked(sh, &release));
        for build in BUILDS {
            summary.ended(format!("layer: {series} {}", build.machine), built(sh, &layer, &release, build));
        }
    }
    Ok(())
}

/// Builds for one machine, tries the protocol on every executable, and plays a scenario with a package that was built from source.
fn built(sh: &Shell, layer: &Layer, release: &Release, build: &Build) -> Result<String> {
    let packages = layer.built(sh, release, build)?;
    // A module that drives dpkg would need a whole Debian of that architecture to keep to the protocol in: the emulated Pi.
    let (alone, tried): (Vec<_>, Vec<_>) =
        packages.iter().partition(|package| needs_debian(sh, &package.module));
    play_beside(sh, tried.iter().map(|package| package.runner.as_path()))?;
    for Built { runner, deb, .. } in &tried {
        Conformance::of(runner.clone())
            .run(sh)
            .with_context(|| format!("the executable of {}", deb.display()))?;
    }
    for Built { runner, deb, .. } in &alone {
        let version = cmd!(sh, "{runner} --version").quiet().read();
        version.with_context(|| format!("starting the executable of {}", deb.display()))?;
    }
    let (module, scenario) = SCENARIO;
    let is_it = |package: &&Built| package.from_source && package.module == module;
    let proven = match packages.iter().find(is_it) {
        Some(package) => {
            let target = target::find(build.debian)?;
            let machine = e2e::play_with(sh, target, vec![package.deb.clone()], scenario)?;
            format!(", {scenario} on {machine}")
        }
        None => ", all of them prebuilt: its Rust is too old for the source".to_owned(),
    };
    let (count, tried, alone) = (packages.len(), tried.len(), alone.len());
    Ok(format!(
        "{count} packages built, {tried} executables keep to the protocol, {alone} (deb) are started{proven}"
    ))
}

/// The layer with what it is tested with at level 1: sources only, so that nothing has to be compiled.
fn layer(sh: &Shell) -> Result<Layer> {
    let workspace = modules::workspace(sh)?;
    let sysroot = cmd!(sh, "rustc --print sysroot").quiet().read().context("asking rustc where it is")?;
    Ok(Layer {
        folder: workspace.root.join(LAYER),
        tests: workspace.root.join("tests/yocto"),
        released: dist::sources(sh, &workspace.root.join("target/layer/sources"))?,
        scratch: workspace.root.join("target/layer"),
        modules: workspace.modules.into_iter().map(|module| module.name).collect(),
        toolchain: PathBuf::from(sysroot).join("bin"),
    })
}

/// `oe_core`, which is remembered in the user's configuration, or else what was remembered there.
fn remembered(oe_core: Option<&Path>) -> Result<Option<PathBuf>> {
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
    let configuration = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home);
    let configuration =
        configuration.context("finding the configuration folder: set HOME or XDG_CONFIG_HOME")?;
    let file = configuration.join("mender-rust-modules/oe-core");
    let Some(folder) = oe_core else {
        let text = fs::read_to_string(&file).ok().map(|text| PathBuf::from(text.trim_end()));
        return Ok(text.filter(|folder| folder.is_dir()));
    };
    let folder = folder.canonicalize().with_context(|| format!("looking for {}", folder.display()))?;
    let parent = file.parent().unwrap_or(&configuration);
    fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    fs::write(&file, format!("{}\n", folder.display()))
        .with_context(|| format!("writing {}", file.display()))?;
    Ok(Some(folder))
}
