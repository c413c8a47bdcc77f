//! Level 3: root file systems with meta-mender's client and our packages, assembled by each package manager that BitBake knows.
//! The client is packaged by meta-mender's own recipe; its executables alone are stand-ins (see meta-mender-image).

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

/// The machine that root file systems are assembled for.
const MACHINE: &str = "qemuarm64";

/// Modules by name, with their content.
type Modules = BTreeMap<String, Vec<u8>>;

/// A package manager.
struct Manager {
    name: &'static str,
    /// The kind of its packages.
    kind: &'static str,
    /// What it says of two packages that both have the module directory.
    refusal: &'static str,
}

const MANAGERS: &[Manager] = &[
    Manager {
        name: "dpkg",
        kind: "deb",
        refusal: "trying to overwrite '/usr/share/mender/modules/v3/directory', which is also in package mender-update",
    },
    Manager {
        name: "rpm",
        kind: "rpm",
        refusal: "file /usr/share/mender/modules/v3/directory conflicts between attempted installs",
    },
    Manager {
        name: "opkg",
        kind: "ipk",
        refusal: "But that file is already provided by package  * mender-update",
    },
];

/// Assembles all root file systems for `release` and says what was shown.
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
    let go =
        if suite.splits_go_client()? { "; the client in Go is split too (planned, not built)" } else { "" };
    let names: Vec<_> = suite.managers().iter().map(|manager| manager.name).collect();
    let skipped = if layer.opkg.is_some() {
        ""
    } else {
        "; opkg: skipped: no program opkg is at hand: cargo xtask layer --test --opkg FILE"
    };
    Ok(format!(
        "client {} with all modules, with the prebuilt ones, and alone: {}; refused by each without the split; \
         {tasks} tasks of the client unchanged without the variable{go}{skipped}",
        versions.join(" and "),
        names.join(", ")
    ))
}

/// What all root file systems of one release have in common.
struct Suite<'a> {
    sh: &'a Shell,
    layer: &'a Layer,
    release: &'a Release,
    meta_mender: &'a Path,
}

impl<'a> Suite<'a> {
    /// The package managers at hand: Debian has no opkg.
    fn managers(&self) -> Vec<&'static Manager> {
        MANAGERS.iter().filter(|manager| manager.kind != "ipk" || self.layer.opkg.is_some()).collect()
    }

    /// A build directory with the client's layer, and with ours if `ours`.
    fn directory(&self, name: &str, ours: bool, settings: &str) -> Result<BuildDirectory<'a>> {
        let mut layers = build::stand_ins(self.layer);
        if ours {
            layers.extend([self.layer.directory.clone(), downloads::checksums(self.layer)?]);
        }
        layers.extend(build::client_layers(self.layer, self.meta_mender));
        let settings = format!("{}{}{settings}", build::SETTINGS, build::CLIENT_SETTINGS);
        BuildDirectory::new(self.sh, self.layer, self.release, name, &layers, &settings)
    }

    /// Has BitBake assemble the images of `flavours` for every package manager.
    fn images(&self, step: &Step, directory: &BuildDirectory, flavours: &[&str]) -> Result<String> {
        let images = flavours.iter().flat_map(|flavour| {
            self.managers().into_iter().map(move |manager| format!("{flavour}-{}", manager.kind))
        });
        let images: Vec<_> = images.collect();
        let command: Vec<_> = ["bitbake", "--continue", "--cmd=rootfs"]
            .into_iter()
            .chain(images.iter().map(String::as_str))
            .collect();
        directory.run(step, MACHINE, &command)
    }

    /// Root file systems with the client `version`: with our modules, with the prebuilt ones, and with the client alone.
    fn assemble(&self, version: &str) -> Result<()> {
        let name = format!("{}: root file systems with the client {version}", self.release.series);
        step(name, |step| {
            let preferred = format!("{}{}", build::SPLIT, build::preferred(version));
            let directory = self.directory(&format!("client-{version}"), true, &preferred)?;
            // In one command, BitBake would choose between the module from source and the prebuilt one only once.
            for flavours in [&["client-image", "client-image-alone"][..], &["client-image-bin"]] {
                self.images(step, &directory, flavours)?;
            }
            let own = self.modules(step, &directory, |name| {
                name == "mender-update" || name.starts_with("mender-client-module-")
            })?;
            ensure!(
                own.contains_key("directory"),
                "the client {version} has no module directory: {:?}",
                own.keys()
            );
            let ours = |ending: &str| {
                let names: Vec<_> = self
                    .layer
                    .modules
                    .iter()
                    .map(|name| format!("mender-update-module-{name}{ending}"))
                    .collect();
                self.modules(step, &directory, |name| names.iter().any(|own| own == name))
            };
            let chosen = ours(if builds_from_source(self.release) { "" } else { "-bin" })?;
            let flavours = [
                ("client-image", chosen),
                ("client-image-bin", ours("-bin")?),
                ("client-image-alone", Modules::new()),
            ];
            for (flavour, ours) in flavours {
                for manager in self.managers() {
                    compare(&directory, &format!("{flavour}-{}", manager.kind), &own, &ours)?;
                }
            }
            Ok(())
        })
    }

    /// The modules in those `.deb` packages of `directory` whose name `is_it`.
    fn modules(
        &self,
        step: &Step,
        directory: &BuildDirectory,
        is_it: impl Fn(&str) -> bool,
    ) -> Result<Modules> {
        let mut modules = Modules::new();
        for package in directory::files(&directory.path.join("deploy/deb"))? {
            let name = package.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Some((name, _)) = name.strip_suffix(".deb").and_then(|name| name.split_once('_')) else {
                continue;
            };
            if is_it(name) {
                let unpacked = directory.path.join("unpacked").join(name);
                fs::create_dir_all(&unpacked).with_context(|| format!("making {}", unpacked.display()))?;
                run_command(step, cmd!(self.sh, "dpkg-deb --extract {package} {unpacked}"))?;
                modules.extend(read(&unpacked)?);
            }
        }
        Ok(modules)
    }

    /// A negative control: where the bbappend is masked that splits the client's package, every package manager refuses.
    fn refused(&self) -> Result<()> {
        let name = format!("{}: the same without the split is refused", self.release.series);
        step(name, |step| {
            let masked = format!("{}BBMASK += \"/dynamic-layers/mender/\"\n", build::SPLIT);
            let directory = self.directory("client-refused", true, &masked)?;
            let Err(_) = self.images(step, &directory, &["client-image"]) else {
                bail!(
                    "two packages with the same module are in one root file system, and nothing was refused"
                );
            };
            for manager in self.managers() {
                let work = directory.work(&format!("client-image-{}", manager.kind))?;
                let log = work.join("temp/log.do_rootfs");
                let said = fs::read_to_string(&log).with_context(|| format!("reading {}", log.display()))?;
                // opkg breaks its sentence into lines.
                let said = said.replace('\n', " ");
                ensure!(
                    said.contains(manager.refusal),
                    "{} was to refuse with {:?}, but says in {} otherwise",
                    manager.name,
                    manager.refusal,
                    log.display()
                );
            }
            Ok(())
        })
    }

    /// Whether this meta-mender has the client in Go; if so, its package has to be split too. No compiler here builds it.
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
        let directory =
            BuildDirectory::new(self.sh, self.layer, self.release, "client-go", &layers, &settings)?;
        step(format!("{}: the client in Go", self.release.series), |step| {
            let command = ["bitbake-getvar", "--recipe", "mender-client", "--value", "PACKAGESPLITFUNCS"];
            let functions = directory.run(step, MACHINE, &command)?;
            ensure!(
                functions.contains("update_modules_split"),
                "the package of the client in Go is not split: PACKAGESPLITFUNCS is {functions:?}"
            );
            Ok(true)
        })
    }

    /// Compares the signatures of the client's tasks without our layer and with it; without the variable they have to be the same.
    /// Returns how many they are.
    fn unchanged(&self) -> Result<usize> {
        let name = format!("{}: the client's tasks without the variable", self.release.series);
        step(name, |step| {
            let signatures = |name: &str, ours: bool, settings: &str| {
                let directory = self.directory(name, ours, settings)?;
                directory.run(step, MACHINE, &["bitbake", "-S", "lockedsigs", "mender"])?;
                signatures(&directory.path.join("locked-sigs.inc"))
            };
            let without = signatures("client-without", false, "")?;
            let changed: Vec<_> =
                signatures("client-unset", true, "")?.symmetric_difference(&without).cloned().collect();
            ensure!(changed.is_empty(), "the layer changes tasks of the client: {}", changed.join(", "));
            ensure!(
                signatures("client-set", true, build::SPLIT)? != without,
                "the variable changes no task of the client: its signatures show nothing"
            );
            Ok(without.len())
        })
    }
}

/// The signatures of the client's tasks in the file `path`, as `mender:TASK:HASH`.
fn signatures(path: &Path) -> Result<BTreeSet<String>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let lines = text.lines().map(|line| line.trim().trim_end_matches(" \\").to_owned());
    let own: BTreeSet<_> = lines.filter(|line| line.starts_with("mender:")).collect();
    ensure!(!own.is_empty(), "{} has no signature of the client", path.display());
    Ok(own)
}

/// Compares the modules in the root file system of `image` with those of the client, and `ours` in the place of those of the same
/// name.
fn compare(directory: &BuildDirectory, image: &str, client: &Modules, ours: &Modules) -> Result<()> {
    let root = directory.work(image)?.join("rootfs");
    let found = read(&root)?;
    let mut expected = client.clone();
    expected.extend(ours.clone());
    let names = |modules: &Modules| modules.keys().cloned().collect::<Vec<_>>().join(" ");
    ensure!(
        names(&found) == names(&expected),
        "{image}: the modules in {} are {:?} instead of {:?}",
        root.display(),
        names(&found),
        names(&expected)
    );
    let other: Vec<_> =
        found.iter().filter(|(name, content)| expected[*name] != **content).map(|(name, _)| name).collect();
    ensure!(other.is_empty(), "{image}: the modules {other:?} in {} are of another package", root.display());
    Ok(())
}

/// The modules below the root `root`.
fn read(root: &Path) -> Result<Modules> {
    let directory: PathBuf = root.join(lists::MODULES.trim_start_matches('/'));
    if !directory.is_dir() {
        return Ok(Modules::new());
    }
    let mut modules = Modules::new();
    for path in directory::entries(&directory)? {
        let content = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        modules.insert(path.file_name().unwrap_or_default().to_string_lossy().into_owned(), content);
    }
    Ok(modules)
}
