//! Level 3: root file systems with meta-mender's client and the project's packages, made with each package manager of
//! BitBake. The client is packaged by meta-mender's recipe; only its executables are replaced (see meta-mender-image).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use host::command::run as run_command;
use host::directory;
use host::status::{Step, step};
use xshell::{Shell, cmd};

use crate::bitbake::BuildDirectory;
use crate::build::{self, builds_from_source};
use crate::{Layer, Release, client, downloads, lists};

/// The machine of the root file systems.
const MACHINE: &str = "qemuarm64";

/// The content of modules by name.
type Modules = BTreeMap<String, Vec<u8>>;

/// A package manager.
struct Manager {
    name: &'static str,
    /// The format of its packages.
    format: &'static str,
    /// Its error message about two packages that both have the module `directory`.
    conflict: &'static str,
}

const MANAGERS: &[Manager] = &[
    Manager {
        name: "dpkg",
        format: "deb",
        conflict: "trying to overwrite '/usr/share/mender/modules/v3/directory', which is also in package mender-update",
    },
    Manager {
        name: "rpm",
        format: "rpm",
        conflict: "file /usr/share/mender/modules/v3/directory conflicts between attempted installs",
    },
    Manager { name: "opkg", format: "ipk", conflict: "But that file is already provided by package  * mender-update" },
];

/// Makes all root file systems for `release` and returns a summary.
pub fn run(sh: &Shell, layer: &Layer, release: &Release, meta_mender: &Path) -> Result<String> {
    downloads::mirror(sh, layer)?;
    client::provide(sh, layer, meta_mender)?;
    let suite = Suite { sh, layer, release, meta_mender };
    let versions = client::versions(meta_mender)?;
    for version in &versions {
        suite.assemble(version)?;
    }
    suite.refused()?;
    let tasks = suite.unchanged()?;
    let go = if suite.splits_go_client()? { "; the client in Go is split, too (checked without a build)" } else { "" };
    let names: Vec<_> = suite.managers().iter().map(|manager| manager.name).collect();
    let skipped = if layer.opkg.is_some() {
        ""
    } else {
        "; opkg: skipped: no executable opkg: run cargo xtask layer --test --opkg FILE"
    };
    Ok(format!(
        "client {} with all modules, with prebuilt modules, and without modules: {}; conflict of packages without the \
         split; {tasks} tasks of the client unchanged without the variable{go}{skipped}",
        versions.join(" and "),
        names.join(", ")
    ))
}

/// The inputs of all root file systems of one release.
struct Suite<'a> {
    sh: &'a Shell,
    layer: &'a Layer,
    release: &'a Release,
    meta_mender: &'a Path,
}

impl<'a> Suite<'a> {
    /// The available package managers. Debian has no opkg.
    fn managers(&self) -> Vec<&'static Manager> {
        MANAGERS.iter().filter(|manager| manager.format != "ipk" || self.layer.opkg.is_some()).collect()
    }

    /// A build directory with the client's layer, and with the project's layer if `with_layer`.
    fn directory(&self, name: &str, with_layer: bool, settings: &str) -> Result<BuildDirectory<'a>> {
        let mut layers = build::stand_ins(self.layer);
        if with_layer {
            layers.extend([self.layer.directory.clone(), downloads::checksums(self.layer)?]);
        }
        layers.extend(build::client_layers(self.layer, self.meta_mender));
        let settings = format!("{}{}{settings}", build::SETTINGS, build::CLIENT_SETTINGS);
        BuildDirectory::new(self.sh, self.layer, self.release, name, &layers, &settings)
    }

    /// Makes the images of `flavours` with every package manager.
    fn images(&self, step: &Step, directory: &BuildDirectory, flavours: &[&str]) -> Result<String> {
        let images = flavours.iter().flat_map(|flavour| {
            self.managers().into_iter().map(move |manager| format!("{flavour}-{}", manager.format))
        });
        let images: Vec<_> = images.collect();
        let command: Vec<_> =
            ["bitbake", "--continue", "--cmd=rootfs"].into_iter().chain(images.iter().map(String::as_str)).collect();
        directory.run(step, MACHINE, &command)
    }

    /// Makes root file systems with the client `version`: with the modules, with the prebuilt modules, and without
    /// modules.
    fn assemble(&self, version: &str) -> Result<()> {
        let name = format!("{}: root file systems with the client {version}", self.release.series);
        step(name, |step| {
            let preferred = format!("{}{}", build::SPLIT, build::preferred(version));
            let directory = self.directory(&format!("client-{version}"), true, &preferred)?;
            // In one command, BitBake would select one provider of a module for all images.
            for flavours in [&["client-image", "client-image-alone"][..], &["client-image-bin"]] {
                self.images(step, &directory, flavours)?;
            }
            let own = self.modules(step, &directory, |name| {
                name == "mender-update" || name.starts_with("mender-client-module-")
            })?;
            ensure!(
                own.contains_key("directory"),
                "no module directory in the packages of the client {version}: {:?}",
                own.keys()
            );
            let project = |ending: &str| {
                let names: Vec<_> =
                    self.layer.modules.iter().map(|name| format!("mender-update-module-{name}{ending}")).collect();
                self.modules(step, &directory, |name| names.iter().any(|own| own == name))
            };
            let chosen = project(if builds_from_source(self.release) { "" } else { "-bin" })?;
            let flavours = [
                ("client-image", chosen),
                ("client-image-bin", project("-bin")?),
                ("client-image-alone", Modules::new()),
            ];
            for (flavour, project) in flavours {
                for manager in self.managers() {
                    compare(&directory, &format!("{flavour}-{}", manager.format), &own, &project)?;
                }
            }
            Ok(())
        })
    }

    /// The modules in the `.deb` packages of `directory` whose name `is_it` accepts.
    fn modules(&self, step: &Step, directory: &BuildDirectory, is_it: impl Fn(&str) -> bool) -> Result<Modules> {
        let mut modules = Modules::new();
        for package in directory::files(&directory.path.join("deploy/deb"))? {
            let name = package.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some((name, _)) = name.strip_suffix(".deb").and_then(|name| name.split_once('_')) else {
                continue;
            };
            if is_it(name) {
                let unpacked = directory.path.join("unpacked").join(name);
                fs::create_dir_all(&unpacked).with_context(|| format!("creating {} failed", unpacked.display()))?;
                run_command(step, cmd!(self.sh, "dpkg-deb --extract {package} {unpacked}"))?;
                modules.extend(read(&unpacked)?);
            }
        }
        Ok(modules)
    }

    /// A negative control: without the bbappend that splits the client's package, every package manager reports a
    /// conflict.
    fn refused(&self) -> Result<()> {
        let name = format!("{}: conflict of packages without the split", self.release.series);
        step(name, |step| {
            let masked = format!("{}BBMASK += \"/dynamic-layers/mender/\"\n", build::SPLIT);
            let directory = self.directory("client-refused", true, &masked)?;
            let Err(_) = self.images(step, &directory, &["client-image"]) else {
                bail!("no conflict between two packages with the same module in one root file system");
            };
            for manager in self.managers() {
                let work = directory.work(&format!("client-image-{}", manager.format))?;
                let log = work.join("temp/log.do_rootfs");
                let output = fs::read_to_string(&log).with_context(|| format!("reading {} failed", log.display()))?;
                // opkg wraps its message.
                let output = output.replace('\n', " ");
                ensure!(
                    output.contains(manager.conflict),
                    "no conflict reported by {}: no {:?} in {}",
                    manager.name,
                    manager.conflict,
                    log.display()
                );
            }
            Ok(())
        })
    }

    /// Whether this meta-mender has the client in Go, whose package must be split, too. It is not built, because the
    /// host has no compiler for it.
    fn splits_go_client(&self) -> Result<bool> {
        if !self.meta_mender.join("recipes-mender/mender-client/mender-client_git.bb").is_file() {
            return Ok(false);
        }
        let mut layers = build::stand_ins(self.layer);
        layers.extend([self.layer.directory.clone(), self.meta_mender.to_owned()]);
        let settings = format!(
            "{}{}BBMASK += \"/meta-mender-core/recipes-(?!mender/mender-client/)\"\n",
            build::SETTINGS,
            build::SPLIT
        );
        let directory = BuildDirectory::new(self.sh, self.layer, self.release, "client-go", &layers, &settings)?;
        step(format!("{}: the client in Go", self.release.series), |step| {
            let command = ["bitbake-getvar", "--recipe", "mender-client", "--value", "PACKAGESPLITFUNCS"];
            let functions = directory.run(step, MACHINE, &command)?;
            ensure!(
                functions.contains("update_modules_split"),
                "the package of the client in Go is not split: PACKAGESPLITFUNCS = {functions:?}"
            );
            Ok(true)
        })
    }

    /// Compares the signatures of the client's tasks with and without the layer. They must be the same unless the
    /// variable is set. Returns their number.
    fn unchanged(&self) -> Result<usize> {
        let name = format!("{}: the client's tasks without the variable", self.release.series);
        step(name, |step| {
            let signatures = |name: &str, with_layer: bool, settings: &str| {
                let directory = self.directory(name, with_layer, settings)?;
                directory.run(step, MACHINE, &["bitbake", "-S", "lockedsigs", "mender"])?;
                signatures(&directory.path.join("locked-sigs.inc"))
            };
            let without = signatures("client-without", false, "")?;
            let changed: Vec<_> =
                signatures("client-unset", true, "")?.symmetric_difference(&without).cloned().collect();
            ensure!(changed.is_empty(), "the layer changes tasks of the client: {}", changed.join(", "));
            ensure!(
                signatures("client-set", true, build::SPLIT)? != without,
                "the variable does not change the signature of any task of the client"
            );
            Ok(without.len())
        })
    }
}

/// The signatures of the client's tasks in the file `path`, as `mender:TASK:HASH`.
fn signatures(path: &Path) -> Result<BTreeSet<String>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {} failed", path.display()))?;
    let lines = text.lines().map(|line| line.trim().trim_end_matches(" \\").to_owned());
    let own: BTreeSet<_> = lines.filter(|line| line.starts_with("mender:")).collect();
    ensure!(!own.is_empty(), "no signature of the client in {}", path.display());
    Ok(own)
}

/// Compares the modules in the root file system of `image` with those of the client. Modules in `project` replace those
/// with the same name.
fn compare(directory: &BuildDirectory, image: &str, client: &Modules, project: &Modules) -> Result<()> {
    let root = directory.work(image)?.join("rootfs");
    let found = read(&root)?;
    let mut expected = client.clone();
    expected.extend(project.clone());
    let names = |modules: &Modules| modules.keys().cloned().collect::<Vec<_>>().join(" ");
    ensure!(
        names(&found) == names(&expected),
        "unexpected modules in {image}: {}: {:?} instead of {:?}",
        root.display(),
        names(&found),
        names(&expected)
    );
    let other: Vec<_> =
        found.iter().filter(|(name, content)| expected[*name] != **content).map(|(name, _)| name).collect();
    ensure!(other.is_empty(), "modules of another package in {image}: {}: {other:?}", root.display());
    Ok(())
}

/// The modules in the root file system `root`.
fn read(root: &Path) -> Result<Modules> {
    let directory: PathBuf = root.join(lists::MODULES.trim_start_matches('/'));
    if !directory.is_dir() {
        return Ok(Modules::new());
    }
    let mut modules = Modules::new();
    for path in directory::entries(&directory)? {
        let content = fs::read(&path).with_context(|| format!("reading {} failed", path.display()))?;
        modules.insert(path.file_name().unwrap_or_default().to_string_lossy().into_owned(), content);
    }
    Ok(modules)
}
