//! Level 3: builds of every recipe that a release can build, for one machine, as `.deb`, `.ipk` and `.rpm`, with
//! do_package_qa.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use host::command::run as run_command;
use host::directory;
use host::script::{self, quoted};
use host::status::{Step, step};
use xshell::{Shell, cmd};

use crate::bitbake::BuildDirectory;
use crate::lists::{self, EXAMPLE, GROUP};
use crate::{Layer, Release, artifacts, client, downloads};

/// The settings of a build directory in which OE-Core's recipes are masked.
pub const SETTINGS: &str = "require conf/debian-tools.conf\nINIT_MANAGER = \"systemd\"\n\
    DISTRO_FEATURES:append = \" ptest virtualization\"\nPACKAGE_CLASSES = \"package_deb package_ipk package_rpm\"\n\
    UPDATE_MODULE_CONFIG[web-file.mode] = '\"replace\"'\nUPDATE_MODULE_CONFIG[web-file.units.stop] = '[]'\n";

/// The start and the end of the settings of web-file with them: keys come before tables.
const CONFIGURED: (&str, &str) = (
    "# Set by UPDATE_MODULE_CONFIG when the image was built.\nmode = \"replace\"\n",
    "# Set by UPDATE_MODULE_CONFIG when the image was built.\n[units]\nstop = []\n",
);

/// Additional settings if meta-mender is one of the layers.
pub const CLIENT_SETTINGS: &str = "require conf/mender-image.conf\n";

/// Additional settings if the project's modules replace those of the client.
pub const SPLIT: &str = "UPDATE_MODULES_SPLIT_FROM_CLIENT = \"deb directory\"\n";

/// A machine for which packages are built.
#[derive(Debug, PartialEq, Eq)]
pub struct Build {
    /// OE-Core's name of the machine.
    pub machine: &'static str,
    /// Debian's name of the architecture.
    pub debian: &'static str,
    /// The command that runs its executables on this host.
    pub emulator: &'static [&'static str],
    /// The C library for executables of the host's cross compiler. Without it, only the prebuilt modules are packaged.
    pub library: Option<Library>,
}

/// A C library on this host.
#[derive(Debug, PartialEq, Eq)]
pub struct Library {
    directory: &'static str,
    loader: &'static str,
}

/// The machines that packages are built for.
pub const BUILDS: &[Build] = &[
    Build {
        machine: "qemuarm64",
        debian: "arm64",
        emulator: &["qemu-aarch64-static"],
        library: Some(Library { directory: "/usr/aarch64-linux-gnu/lib", loader: "ld-linux-aarch64.so.1" }),
    },
    Build {
        machine: "qemuarm",
        debian: "armhf",
        emulator: &["qemu-arm-static"],
        library: Some(Library { directory: "/usr/arm-linux-gnueabihf/lib", loader: "ld-linux-armhf.so.3" }),
    },
    // Debian's cross compiler and C library for armhf are for ARMv7.
    Build { machine: "test-armv6", debian: "armhf", emulator: &["qemu-arm-static", "-cpu", "arm1176"], library: None },
];

/// A package of one of the project's modules, built by BitBake.
pub struct Built {
    /// The module's name.
    pub module: String,
    /// Whether it was built from source; otherwise it is the prebuilt one.
    pub from_source: bool,
    /// The Debian package.
    pub deb: PathBuf,
    /// A script that runs the executable on this host.
    pub runner: PathBuf,
}

/// Whether the Rust of `release` builds the modules. That of scarthgap is 1.75, with which their recipes are skipped.
pub fn builds_from_source(release: &Release) -> bool {
    release.series != "scarthgap"
}

/// The recipes of the project's modules in `release`.
pub fn recipes(layer: &Layer, release: &Release) -> Vec<String> {
    let endings: &[&str] = if builds_from_source(release) { &["", "-bin"] } else { &["-bin"] };
    layer
        .modules
        .iter()
        .flat_map(|name| endings.iter().map(move |end| format!("mender-update-module-{name}{end}")))
        .collect()
}

/// The layers that replace others, for yocto-check-layer and for builds.
pub fn stand_ins(layer: &Layer) -> Vec<PathBuf> {
    ["meta-debian-tools", "meta-virtualization"].map(|name| layer.tests.join(name)).into()
}

/// The setting that selects the client `version`.
pub fn preferred(version: &str) -> String {
    format!("PREFERRED_VERSION_mender = \"{version}\"\n")
}

/// The layers for the client in `meta_mender`.
pub fn client_layers(layer: &Layer, meta_mender: &Path) -> [PathBuf; 2] {
    [meta_mender.to_owned(), layer.tests.join("meta-mender-image")]
}

/// Builds all recipes for `build`, with the client's layer `meta_mender` if there is one. Checks the packages, and
/// returns those of the project's modules.
pub fn run(
    sh: &Shell,
    layer: &Layer,
    release: &Release,
    build: &Build,
    meta_mender: Option<&Path>,
) -> Result<Vec<Built>> {
    downloads::mirror(sh, layer)?;
    let under_test = vec![layer.directory.clone(), downloads::checksums(layer)?, layer.tests.join("meta-example")];
    let mut layers = [stand_ins(layer), under_test].concat();
    let mut settings = SETTINGS.to_owned();
    if let Some(meta_mender) = meta_mender {
        client::provide(sh, layer, meta_mender)?;
        layers.extend(client_layers(layer, meta_mender));
        // The packages recommend the client, so BitBake builds it. Without a preferred version BitBake prints a
        // warning.
        let newest = client::versions(meta_mender)?.pop().unwrap_or_default();
        settings += &format!("{CLIENT_SETTINGS}{SPLIT}{}", preferred(&newest));
    }
    let directory = BuildDirectory::new(sh, layer, release, build.machine, &layers, &settings)?;
    artifacts::prepare(sh, &directory.path)?;
    let from_source = builds_from_source(release) && build.library.is_some();
    let names = to_build(layer, release, build);
    let bitbake: Vec<_> = ["bitbake"].into_iter().chain(names.iter().map(String::as_str)).collect();
    step(format!("{}, {}: bitbake, {} recipes", release.series, build.machine, names.len()), |step| {
        let output = directory.run(step, build.machine, &bitbake)?;
        let warnings: Vec<_> = output.lines().filter(|line| is_warning(line)).collect();
        ensure!(warnings.is_empty(), "BitBake printed warnings or errors:\n{}", warnings.join("\n"));
        if build.library.is_some() {
            artifacts::check(sh, step, &directory.path)?;
        }
        let packaged: Vec<_> =
            names.iter().filter(|name| !artifacts::RECIPES.contains(&name.as_str())).cloned().collect();
        lists::check(sh, step, layer, &directory.path.join("deploy"), &packaged)?;
        let kinds = if from_source { &[true, false][..] } else { &[false][..] };
        let wanted = layer.modules.iter().flat_map(|module| kinds.iter().map(move |source| (module, *source)));
        wanted.map(|(module, from_source)| built(sh, step, &directory.path, build, module, from_source)).collect()
    })
}

/// The recipes that `release` builds for `build`. The package group is built only with the modules that it needs.
fn to_build(layer: &Layer, release: &Release, build: &Build) -> Vec<String> {
    let mut names = recipes(layer, release);
    if build.library.is_none() {
        names.retain(|name| name.ends_with("-bin"));
        return names;
    }
    names.push(GROUP.to_owned());
    names.extend(artifacts::RECIPES.map(str::to_owned));
    if builds_from_source(release) {
        names.push(EXAMPLE.to_owned());
    }
    names
}

/// Whether `line` is a warning or an error. The warning that no recipe of OE-Core is left is expected, because all are
/// masked.
fn is_warning(line: &str) -> bool {
    (line.starts_with("WARNING") || line.starts_with("ERROR"))
        && !line.contains("No bb files in default matched BBFILE_PATTERN_core")
}

/// Checks the packages of one module, unpacks one, and writes a script that runs its executable on this host.
fn built(sh: &Shell, step: &Step, directory: &Path, build: &Build, module: &str, from_source: bool) -> Result<Built> {
    let recipe = format!("mender-update-module-{module}{}", if from_source { "" } else { "-bin" });
    let package = |kind: &str, ending: &str| {
        found(&directory.join("deploy").join(kind), |name| {
            name.starts_with(&format!("{recipe}_")) && name.ends_with(ending)
        })
    };
    let deb = package("deb", &format!("_{}.deb", build.debian))?;
    let ipk = package("ipk", ".ipk")?;
    let unpacked = directory.join("unpacked").join(&recipe);
    fs::create_dir_all(&unpacked).with_context(|| format!("creating {} failed", unpacked.display()))?;
    for package in [&deb, &ipk] {
        let listed = run_command(step, cmd!(sh, "dpkg-deb --info {package} conffiles"))?;
        let settings = format!("/etc/mender-modules/{module}.toml");
        ensure!(
            listed.trim() == settings,
            "unexpected conffiles in {}: {listed:?} instead of {settings}",
            package.display()
        );
    }
    run_command(step, cmd!(sh, "dpkg-deb --extract {deb} {unpacked}"))?;
    if module == "web-file" {
        let settings = unpacked.join("etc/mender-modules/web-file.toml");
        let text = fs::read_to_string(&settings).with_context(|| format!("reading {} failed", settings.display()))?;
        let (first, last) = CONFIGURED;
        ensure!(
            text.starts_with(first) && text.ends_with(last),
            "no settings of UPDATE_MODULE_CONFIG in {}:\n{text}",
            settings.display()
        );
    }
    let executable = unpacked.join("usr/share/mender/modules/v3").join(module);
    ensure!(executable.is_file(), "no executable of the module in {}: {}", deb.display(), executable.display());
    let runner = directory.join("runners").join(if from_source { "source" } else { "prebuilt" }).join(module);
    let runners = runner.parent().unwrap_or(&runner);
    fs::create_dir_all(runners).with_context(|| format!("creating {} failed", runners.display()))?;
    script::write(&runner, &format!("exec {} {} \"$@\"\n", emulated(sh, build, from_source)?, quoted(&executable)))?;
    Ok(Built { module: module.to_owned(), from_source, deb, runner })
}

/// The command that runs an executable on this host, without the executable. It does not use qemu's option -L, with
/// which "/" would be the directory of the C library.
fn emulated(sh: &Shell, build: &Build, from_source: bool) -> Result<String> {
    let (emulator, options) = build.emulator.split_first().context("no emulator for this machine")?;
    let emulator = cmd!(sh, "which {emulator}").quiet().read().with_context(|| format!("no executable {emulator}"))?;
    let mut words = vec![emulator];
    words.extend(options.iter().map(|&option| option.to_owned()));
    if let (true, Some(Library { directory, loader })) = (from_source, &build.library) {
        words.extend([format!("{directory}/{loader}"), format!("--library-path {directory}")]);
    }
    Ok(words.join(" "))
}

/// The file below `directory` whose name `is_it` accepts.
pub fn found(directory: &Path, is_it: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let is_it = |path: &PathBuf| path.file_name().is_some_and(|name| is_it(&name.to_string_lossy()));
    directory::files(directory)?
        .into_iter()
        .find(is_it)
        .with_context(|| format!("no such file after a successful build: below {}", directory.display()))
}
