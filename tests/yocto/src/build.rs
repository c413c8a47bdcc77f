//! Tier 3: real builds. Every recipe that a release can build, for one machine, to `.deb` and `.ipk`, do_package_qa included.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use host::command::run as run_command;
use host::folder;
use host::status::{Step, step};
use xshell::{Shell, cmd};

use crate::bitbake::BuildFolder;
use crate::{Layer, Release, downloads};

/// What a masked build folder's `local.conf` says.
pub const SETTINGS: &str = "require conf/debian-tools.conf\nPACKAGE_CLASSES = \"package_deb package_ipk\"\n";

/// One machine to build for.
#[derive(Debug, PartialEq, Eq)]
pub struct Build {
    /// OE-Core's name of it.
    pub machine: &'static str,
    /// Debian's name of the architecture.
    pub debian: &'static str,
    /// The program that runs its executables here, and the C library's folder.
    pub emulator: (&'static str, &'static str),
}

/// The machines that packages are built for.
pub const BUILDS: &[Build] = &[
    Build {
        machine: "qemuarm64",
        debian: "arm64",
        emulator: ("qemu-aarch64-static", "/usr/aarch64-linux-gnu"),
    },
    Build { machine: "qemuarm", debian: "armhf", emulator: ("qemu-arm-static", "/usr/arm-linux-gnueabihf") },
];

/// A package of one of our modules that BitBake has made.
pub struct Built {
    /// The module's name.
    pub module: String,
    /// Whether it was built from source, or is the prebuilt one.
    pub from_source: bool,
    /// The Debian package.
    pub deb: PathBuf,
    /// A script that runs its executable on this host.
    pub runner: PathBuf,
}

/// Whether `release` has a Rust that builds the modules: scarthgap's is 1.75, and their recipes leave themselves out.
fn builds_from_source(release: &Release) -> bool {
    release.series != "scarthgap"
}

/// The recipes of our modules that `release` must have.
pub fn recipes(layer: &Layer, release: &Release) -> Vec<String> {
    let endings: &[&str] = if builds_from_source(release) { &["", "-bin"] } else { &["-bin"] };
    layer
        .modules
        .iter()
        .flat_map(|name| endings.iter().map(move |end| format!("mender-update-module-{name}{end}")))
        .collect()
}

/// The layers that stand in for others: what yocto-check-layer compares with, and what builds are made with.
pub fn stand_ins(layer: &Layer) -> Vec<PathBuf> {
    ["meta-debian-tools", "meta-virtualization"].map(|name| layer.tests.join(name)).into()
}

/// Builds everything for `build`, looks at what came out, and returns the packages of our modules.
pub fn run(sh: &Shell, layer: &Layer, release: &Release, build: &Build) -> Result<Vec<Built>> {
    downloads::mirror(sh, layer)?;
    let under_test =
        vec![layer.folder.clone(), downloads::checksums(layer)?, layer.tests.join("meta-example")];
    let layers = [stand_ins(layer), under_test].concat();
    let folder = BuildFolder::new(sh, layer, release, build.machine, &layers, SETTINGS)?;
    let mut names: Vec<String> =
        layer.modules.iter().map(|name| format!("mender-update-module-{name}-bin")).collect();
    names.push("packagegroup-mender-update-modules".to_owned());
    if builds_from_source(release) {
        names.extend(layer.modules.iter().map(|name| format!("mender-update-module-{name}")));
        names.extend(["mender-update-module-example", "example-artifact"].map(str::to_owned));
    }
    let bitbake: Vec<_> = ["bitbake"].into_iter().chain(names.iter().map(String::as_str)).collect();
    step(format!("{}, {}: bitbake, {} recipes", release.series, build.machine, names.len()), |step| {
        let said = folder.run(step, build.machine, &bitbake)?;
        let complaints: Vec<_> = said.lines().filter(|line| complains(line)).collect();
        ensure!(complaints.is_empty(), "BitBake has built everything, but says:\n{}", complaints.join("\n"));
        if builds_from_source(release) {
            artifact(sh, step, &folder.path)?;
        }
        let kinds = if builds_from_source(release) { &[true, false][..] } else { &[false][..] };
        let wanted =
            layer.modules.iter().flat_map(|module| kinds.iter().map(move |source| (module, *source)));
        wanted
            .map(|(module, from_source)| built(sh, step, &folder.path, build, module, from_source))
            .collect()
    })
}

/// A warning or an error; but that of OE-Core nothing is left, since it is masked, is as it should be.
fn complains(line: &str) -> bool {
    (line.starts_with("WARNING") || line.starts_with("ERROR"))
        && !line.contains("No bb files in default matched BBFILE_PATTERN_core")
}

/// The artifact that the example's recipe deploys has to be one.
fn artifact(sh: &Shell, step: &Step, folder: &Path) -> Result<()> {
    let file = found(&folder.join("deploy/images"), |name| {
        name.starts_with("example-artifact-1.0-") && name.ends_with(".mender")
    })?;
    let said = run_command(step, cmd!(sh, "mender-artifact read {file}"))?;
    ensure!(
        said.contains("web-file") && said.contains("index.html"),
        "{} is not the artifact that was asked for:\n{said}",
        file.display()
    );
    Ok(())
}

/// Looks at the packages of one module, unpacks it, and makes its executable runnable here.
fn built(
    sh: &Shell,
    step: &Step,
    folder: &Path,
    build: &Build,
    module: &str,
    from_source: bool,
) -> Result<Built> {
    let recipe = format!("mender-update-module-{module}{}", if from_source { "" } else { "-bin" });
    let package = |kind: &str, ending: &str| {
        found(&folder.join("deploy").join(kind), |name| {
            name.starts_with(&format!("{recipe}_")) && name.ends_with(ending)
        })
    };
    let deb = package("deb", &format!("_{}.deb", build.debian))?;
    let ipk = package("ipk", ".ipk")?;
    let unpacked = folder.join("unpacked").join(&recipe);
    fs::create_dir_all(&unpacked).with_context(|| format!("making {}", unpacked.display()))?;
    for package in [&deb, &ipk] {
        let listed = run_command(step, cmd!(sh, "dpkg-deb --info {package} conffiles"))?;
        let settings = format!("/etc/mender-modules/{module}.toml");
        ensure!(
            listed.trim() == settings,
            "{} has the conffiles {listed:?} instead of {settings}",
            package.display()
        );
    }
    run_command(step, cmd!(sh, "dpkg-deb --extract {deb} {unpacked}"))?;
    let executable = unpacked.join("usr/share/mender/modules/v3").join(module);
    ensure!(executable.is_file(), "{} does not have {}", deb.display(), executable.display());
    let runner = folder.join("runners").join(if from_source { "source" } else { "prebuilt" }).join(module);
    let (emulator, library) = build.emulator;
    let emulator =
        cmd!(sh, "which {emulator}").quiet().read().with_context(|| format!("finding {emulator}"))?;
    let script = format!("#!/bin/sh\nexec {emulator} -L {library} '{}' \"$@\"\n", executable.display());
    folder::write(&runner, &script)?;
    run_command(step, cmd!(sh, "chmod 755 {runner}"))?;
    Ok(Built { module: module.to_owned(), from_source, deb, runner })
}

/// The one file below `folder` whose name `is_it`.
fn found(folder: &Path, is_it: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let is_it = |path: &PathBuf| path.file_name().is_some_and(|name| is_it(&name.to_string_lossy()));
    folder::files(folder)?.into_iter().find(is_it).with_context(|| {
        format!("BitBake has succeeded, but what it should have made is not in {}", folder.display())
    })
}
