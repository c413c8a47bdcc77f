//! The layer's tests, each by its name in a summary: what passed, what failed, what was left out and why.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use host::packages;
use xshell::{Shell, cmd};
use yocto::{BUILDS, Build, Built, HOST_PACKAGES, Layer, Release};

use super::LAYER;
use super::places::Places;
use crate::conformance::{Conformance, add_mocks, needs_debian};
use crate::dist::{self, Dist, modules};
use crate::e2e;
use crate::summary::Summary;
use crate::target;

/// The scenarios that a package of BitBake's is played with, and the module that they are about.
const SCENARIOS: (&str, &[&str]) = ("web-file", &["install-rollback", "power-loss-install"]);

/// Runs level 1 and, where OE-Core is at hand, levels 2 and 3; root file systems with the client where meta-mender is at hand too.
///
/// # Errors
/// When the layer cannot be tested at all; what a test showed is in `summary`.
pub fn run(sh: &Shell, places: &Places, only: Option<&str>, summary: &mut Summary) -> Result<()> {
    let places = places.remembered()?;
    let mut suites = Suites { only, summary };
    let mut layer = layer(sh, &places)?;
    match packages::obstacle(sh, yocto::EVERYWHERE_PACKAGES)? {
        Some(why) => suites.skipped("layer: parse", why),
        None => suites.run("layer: parse", || layer.everywhere(sh)),
    }
    let without = "no OE-Core is at hand: cargo xtask layer --test --oe-core DIR";
    let why = match &places.oe_core {
        Some(_) => packages::obstacle(sh, HOST_PACKAGES)?,
        None => Some(without.to_owned()),
    };
    let (Some(directory), None) = (&places.oe_core, &why) else {
        let why = why.unwrap_or_default();
        for suite in ["layer: OE-Core", "layer: build", "layer: root file system"] {
            suites.skipped(suite, &why);
        }
        return Ok(());
    };
    packages::ensure(sh, HOST_PACKAGES)?;
    Dist::default().run(sh)?;
    layer.released = dist::released(&sh.current_dir().join("dist"))?;
    let compatible = yocto::compatible(&layer.directory)?;
    for release in yocto::releases(directory)? {
        if compatible.contains(&release.series) {
            tested(sh, &layer, &release, places.meta_mender.as_deref(), &mut suites)?;
        } else {
            let why = "the layer does not claim to be compatible with it";
            suites.skipped(format!("layer: {}", release.series), why);
        }
    }
    Ok(())
}

/// The suites of one run, of which some may be left out.
struct Suites<'a> {
    /// A part of the names of those that are run.
    only: Option<&'a str>,
    summary: &'a mut Summary,
}

impl Suites<'_> {
    fn run(&mut self, name: impl Into<String>, suite: impl FnOnce() -> Result<String>) {
        let name = name.into();
        match self.only {
            Some(only) if !name.contains(only) => self.summary.skipped(name, format!("--only {only:?}")),
            _ => self.summary.ended(name, suite()),
        }
    }

    fn skipped(&mut self, name: impl Into<String>, why: impl Into<String>) {
        self.summary.skipped(name, why);
    }
}

/// Runs levels 2 and 3 on one release.
fn tested(
    sh: &Shell,
    layer: &Layer,
    release: &Release,
    meta_mender: Option<&Path>,
    suites: &mut Suites,
) -> Result<()> {
    let series = &release.series;
    let client = client(sh, layer, series, meta_mender)?;
    suites.run(format!("layer: {series}"), || layer.checked(sh, release));
    for build in BUILDS {
        let name = format!("layer: {series} {}", build.machine);
        suites.run(name, || built(sh, layer, release, build, client.as_deref().ok()));
    }
    let name = format!("layer: {series} root file system");
    match client {
        Ok(client) => suites.run(name, || layer.assembled(sh, release, &client)),
        Err(why) => suites.skipped(name, why),
    }
    Ok(())
}

/// The client's layer for `series` in `meta_mender`, or why it cannot be tested with.
fn client(
    sh: &Shell,
    layer: &Layer,
    series: &str,
    meta_mender: Option<&Path>,
) -> Result<std::result::Result<PathBuf, String>> {
    let Some(directory) = meta_mender else {
        return Ok(Err("no meta-mender is at hand: cargo xtask layer --test --meta-mender DIR".to_owned()));
    };
    let Some(client) = yocto::meta_mender(directory, series)? else {
        return Ok(Err(format!("{} has no meta-mender for {series}", directory.display())));
    };
    Ok(match layer.client_obstacle(sh, &client)? {
        None => Ok(client),
        Some(why) => Err(why),
    })
}

/// Builds for one machine, tries the protocol on every executable, and plays scenarios with a package that was built from source.
fn built(
    sh: &Shell,
    layer: &Layer,
    release: &Release,
    build: &Build,
    meta_mender: Option<&Path>,
) -> Result<String> {
    let packages = layer.built(sh, release, build, meta_mender)?;
    // A module that drives dpkg would need a whole Debian of that architecture to keep to the protocol in: the emulated Pi.
    let (alone, tried): (Vec<_>, Vec<_>) =
        packages.iter().partition(|package| needs_debian(sh, &package.module));
    for Built { runner, deb, .. } in &packages {
        let version = cmd!(sh, "{runner} --version").quiet().read();
        version
            .with_context(|| format!("starting the executable of {} for {}", deb.display(), build.machine))?;
    }
    add_mocks(sh, tried.iter().map(|package| package.runner.as_path()))?;
    for Built { runner, deb, .. } in &tried {
        Conformance::of(runner.clone())
            .run(sh)
            .with_context(|| format!("the executable of {}", deb.display()))?;
    }
    let (module, scenarios) = SCENARIOS;
    let is_it = |package: &&Built| package.from_source && package.module == module;
    let proven = match packages.iter().find(is_it) {
        Some(package) => {
            let target = target::find(build.debian)?;
            let machine = e2e::run_with(sh, target, vec![package.deb.clone()], scenarios)?;
            format!(", {} on {machine}", scenarios.join(" and "))
        }
        None => ", all of them prebuilt".to_owned(),
    };
    let (count, tried, alone) = (packages.len(), tried.len(), alone.len());
    Ok(format!(
        "{count} modules built, their packages have the files that they should; {tried} executables conform to the protocol, \
         {alone} (deb) start{proven}"
    ))
}

/// The layer with what it is tested with at level 1: sources only, so that nothing has to be compiled.
fn layer(sh: &Shell, places: &Places) -> Result<Layer> {
    let workspace = modules::workspace(sh)?;
    let sysroot = cmd!(sh, "rustc --print sysroot").quiet().read().context("asking rustc where it is")?;
    Ok(Layer {
        directory: workspace.root.join(LAYER),
        tests: workspace.root.join("tests/yocto"),
        released: dist::sources(sh, &workspace.root.join("target/layer/sources"))?,
        scratch: workspace.root.join("target/layer"),
        modules: workspace.modules.into_iter().map(|module| module.name).collect(),
        toolchain: PathBuf::from(sysroot).join("bin"),
        downloads: places.downloads.clone(),
        opkg: places.opkg.clone(),
    })
}
