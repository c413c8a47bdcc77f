//! The tests of the layer, as suites of a summary.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use host::{cache, packages};
use xshell::{Shell, cmd};
use yocto::{BUILDS, Build, Built, HOST_PACKAGES, Layer, Release};

use super::checkouts::Checkouts;
use super::generated::LAYER;
use crate::conformance::{Conformance, add_mocks, needs_debian};
use crate::dist::modules::Workspace;
use crate::dist::{self, Dist, modules};
use crate::e2e;
use crate::record::{NO_TIME, Record};
use crate::summary::Summary;
use crate::target;

/// The module whose package from BitBake is tested on an emulated Raspberry Pi, and the scenarios.
const SCENARIOS: (&str, &[&str]) = ("web-file", &["power-loss-install"]);

/// Runs level 1; with OE-Core also levels 2 and 3; with meta-mender also the assembly of root file systems with the
/// client. The results of suites are added to `summary`.
///
/// # Errors
/// The layer cannot be tested at all.
pub fn run(sh: &Shell, checkouts: &Checkouts, only: Option<&str>, summary: &Summary) -> Result<()> {
    let checkouts = checkouts.stored()?;
    let _lock = cache::lock(&scratch(&modules::workspace(sh)?).with_extension("lock"))?;
    let mut suites = Suites { only, summary };
    let mut layer = layer(sh, &checkouts)?;
    match packages::obstacle(sh, yocto::EVERYWHERE_PACKAGES)? {
        Some(why) => suites.skipped("layer: parse", why),
        None => suites.run("layer: parse", || layer.everywhere(sh)),
    }
    let without = "no checkout of OE-Core: run cargo xtask layer --test --oe-core DIR";
    let why = match &checkouts.oe_core {
        Some(_) => packages::obstacle(sh, HOST_PACKAGES)?,
        None => Some(without.to_owned()),
    };
    let (Some(directory), None) = (&checkouts.oe_core, &why) else {
        let why = why.unwrap_or_default();
        suites.all_skipped(&why);
        return Ok(());
    };
    if summary.is_over() {
        suites.all_skipped(NO_TIME);
        return Ok(());
    }
    let start = Instant::now();
    let made = packages::ensure(sh, HOST_PACKAGES).and_then(|()| Dist::default().run(sh));
    let (failed, result) = (made.is_err(), made.map(|packages| format!("{} packages", packages.len())));
    suites.summary.ended("layer: packages", start, result);
    if failed {
        suites.all_skipped("the packages that it installs cannot be built");
        return Ok(());
    }
    layer.released = dist::released(&sh.current_dir().join("dist"))?;
    let compatible = yocto::compatible(&layer.directory)?;
    for release in yocto::releases(directory)? {
        if compatible.contains(&release.series) {
            test_release(sh, &layer, &release, checkouts.meta_mender.as_deref(), &mut suites)?;
        } else {
            let why = "the layer does not declare compatibility with it";
            suites.skipped(format!("layer: {}", release.series), why);
        }
    }
    Ok(())
}

/// The suites of one run, filtered by name.
struct Suites<'a> {
    /// The text that the names of suites to run contain.
    only: Option<&'a str>,
    summary: &'a Summary,
}

impl Suites<'_> {
    fn run(&mut self, name: impl Into<String>, suite: impl FnOnce() -> Result<String>) {
        let name = name.into();
        match self.only {
            Some(only) if !name.contains(only) => self.summary.skipped(name, format!("--only {only:?}")),
            _ => self.summary.run(name, |_| suite()),
        }
    }

    fn skipped(&mut self, name: impl Into<String>, why: impl Into<String>) {
        self.summary.skipped(name, why);
    }

    /// Skips the suites of all releases, whose names are not known without checkouts.
    fn all_skipped(&mut self, why: &str) {
        for suite in ["layer: OE-Core", "layer: build", "layer: root file system"] {
            self.skipped(suite, why);
        }
    }
}

/// Runs levels 2 and 3 on one release.
fn test_release(
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
        suites.run(name, || test_build(sh, layer, release, build, client.as_deref().ok()));
    }
    let name = format!("layer: {series} root file system");
    match client {
        Ok(client) => suites.run(name, || layer.assembled(sh, release, &client)),
        Err(why) => suites.skipped(name, why),
    }
    Ok(())
}

/// The client's layer for `series` in `meta_mender`, or the reason why the tests cannot use it.
fn client(
    sh: &Shell,
    layer: &Layer,
    series: &str,
    meta_mender: Option<&Path>,
) -> Result<std::result::Result<PathBuf, String>> {
    let Some(directory) = meta_mender else {
        return Ok(Err("no checkout of meta-mender: run cargo xtask layer --test --meta-mender DIR".to_owned()));
    };
    let Some(client) = yocto::meta_mender(directory, series)? else {
        return Ok(Err(format!("no meta-mender for {series} in {}", directory.display())));
    };
    Ok(match layer.client_obstacle(sh, &client)? {
        None => Ok(client),
        Some(why) => Err(why),
    })
}

/// Builds for one machine, checks that the executables conform to the protocol, and runs scenarios with a package
/// that was built from source.
fn test_build(
    sh: &Shell,
    layer: &Layer,
    release: &Release,
    build: &Build,
    meta_mender: Option<&Path>,
) -> Result<String> {
    let packages = layer.built(sh, release, build, meta_mender)?;
    // Conformance of a module that runs dpkg needs a Debian system of that architecture. The emulated Raspberry Pi
    // has one; here its executable is only started.
    let (started, tested): (Vec<_>, Vec<_>) = packages.iter().partition(|package| needs_debian(sh, &package.module));
    for Built { runner, deb, .. } in &packages {
        let version = cmd!(sh, "{runner} --version").quiet().read();
        version
            .with_context(|| format!("starting the executable of {} for {} failed", deb.display(), build.machine))?;
    }
    add_mocks(sh, tested.iter().map(|package| package.runner.as_path()))?;
    for Built { runner, deb, .. } in &tested {
        Conformance::of(runner.clone())
            .run(sh, &Record::default())
            .with_context(|| format!("testing the executable of {} failed", deb.display()))?;
    }
    let (module, scenarios) = SCENARIOS;
    let is_it = |package: &&Built| package.from_source && package.module == module;
    let scenarios = match packages.iter().find(is_it) {
        Some(package) => {
            let target = target::find(build.debian)?;
            let machine = e2e::run_with(sh, target, vec![package.deb.clone()], scenarios)?;
            format!(", {} on {machine}", scenarios.join(" and "))
        }
        None => ", all prebuilt".to_owned(),
    };
    let (count, tested, started) = (packages.len(), tested.len(), started.len());
    Ok(format!(
        "{count} packages built and complete; {tested} executables conform to the protocol, \
         {started} (deb) start{scenarios}"
    ))
}

/// The directory of the builds.
fn scratch(workspace: &Workspace) -> PathBuf {
    workspace.root.join("target/layer")
}

/// The layer as level 1 needs it: with source archives only, so that nothing has to be compiled.
fn layer(sh: &Shell, checkouts: &Checkouts) -> Result<Layer> {
    let workspace = modules::workspace(sh)?;
    let sysroot = cmd!(sh, "rustc --print sysroot").quiet().read().context("reading the sysroot of rustc failed")?;
    Ok(Layer {
        directory: workspace.root.join(LAYER),
        tests: workspace.root.join("tests/yocto"),
        released: dist::sources(sh, &scratch(&workspace).join("sources"))?,
        scratch: scratch(&workspace),
        modules: workspace.modules.into_iter().map(|module| module.name).collect(),
        toolchain: PathBuf::from(sysroot).join("bin"),
        downloads: checkouts.downloads.clone(),
        opkg: checkouts.opkg.clone(),
    })
}
