//! `cargo xtask new`: makes a new module, with its tests, package and recipes; or with its tests in a crate of its own.

mod proof;
mod standalone;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{self, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use host::command::run;
use host::directory;
use host::status::step;
use xshell::{Shell, cmd};

use crate::dist::modules;
use crate::dist::source::{self, manifest};
use crate::layer::{Layer, PREBUILT};
use crate::record::Record;
pub use proof::proof;

/// Makes a module with its tests, settings, Debian package and recipes
#[derive(Args)]
pub struct New {
    /// The payload type, which is also the name of the module
    #[arg(required_unless_present = "test")]
    name: Option<String>,
    /// Makes a crate with its tests in the new or empty directory DIR, outside this repository
    #[arg(long, value_name = "DIR", requires = "name")]
    standalone: Option<PathBuf>,
    /// Tests the templates instead, in copies; takes about 6 minutes on 2 cores
    #[arg(long, conflicts_with_all = ["name", "standalone"])]
    test: bool,
}

/// A new module.
struct Module {
    name: String,
}

/// The template: a work tree with one module, called [`SAMPLE`].
const TEMPLATE: &str = "xtask/template";

/// The name in the template.
const SAMPLE: &str = "fireplace";

/// A module with files under `debian/` that are the same for every module, apart from the name.
const MODEL: &str = "web-file";
const AS_THE_MODEL: &[&str] =
    &["lintian-overrides", "mender-update-module-web-file-recover.service", "postrm", "prerm"];

/// Names that are taken, and the reason.
const TAKEN: &[(&[&str], &str)] = &[
    (&["docker", "rootfs-image", "rpm", "script", "single-file"], "a payload type of the Mender client has this name"),
    (&["build", "deps", "examples", "incremental"], "a directory of cargo has this name"),
    (
        &["debian", "meta-rust-modules", "modules", "recipes-mender", "update-modules"],
        "a directory of this repository has this name",
    ),
    (&["git"], "a generated file of the layer has this name"),
    (&["suite"], "a test of every crate outside this repository has this name"),
    (&["clippy", "rust-toolchain", "rustfmt"], "settings of a Rust tool have this name"),
];

/// The directory in which a module is written before it is moved to the work tree.
const STAGING: &str = ".new-module";

/// The directory of the modules' crates. Cargo takes every directory in it as a crate.
const MODULES: &str = "modules";

impl New {
    /// Makes the module, or tests the templates.
    ///
    /// # Errors
    /// When the module cannot be made, or fails a test.
    pub fn run(self, sh: &Shell) -> Result<()> {
        match (self.name, self.standalone) {
            (Some(name), Some(directory)) => {
                // Relative to the directory in which cargo was called: that of the shell is the top directory.
                let directory = path::absolute(&directory).context("--standalone: DIR is empty: name a directory")?;
                standalone::make(sh, &Module { name }, &directory)
            }
            (Some(name), None) => Module { name }.make(sh),
            (None, _) => proof(sh, &Record::default()).map(|summary| println!("{summary}")),
        }
    }
}

impl Module {
    /// Writes the module's files, and updates `Cargo.lock` and the layer's generated files.
    ///
    /// # Errors
    /// When the name is invalid or taken, or a file exists already. Then nothing is left behind.
    fn make(&self, sh: &Shell) -> Result<()> {
        let root = sh.current_dir();
        self.check_name(&root)?;
        let files = self.files(sh, &root)?;
        let paths = self.own_paths(&files);
        for path in &paths {
            ensure!(
                !root.join(path).exists(),
                "making the module failed: {} exists: choose another name, or remove it",
                path.display()
            );
        }
        let lock = read(&root.join("Cargo.lock"))?;
        if let Err(error) = self.add(sh, &root, &files, &paths) {
            paths.iter().for_each(|path| drop(remove(&root.join(path))));
            drop(directory::remove(&root.join(STAGING)));
            drop(fs::write(root.join("Cargo.lock"), lock));
            return Err(error).context("making the module failed, and its files are removed");
        }
        Layer::default().run(sh).context("the module is made, but not the layer: run cargo xtask layer")?;
        self.print_next_steps(sh, &files, &self.with_generated(paths))
    }

    /// Checks that the name is valid for a Debian package, a crate and a payload type, and not taken.
    fn check_name(&self, root: &Path) -> Result<()> {
        let name = &self.name;
        let fits = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        ensure!(
            fits && name.starts_with(|c: char| c.is_ascii_lowercase()) && !name.ends_with('-'),
            "invalid module name {name:?}: use lower-case letters, digits and hyphens, starting with a letter"
        );
        if let Some((_, why)) = TAKEN.iter().find(|(names, _)| names.contains(&name.as_str())) {
            bail!("invalid module name {name}: {why}: choose another name");
        }
        let lock = manifest(&root.join("Cargo.lock"))?;
        let crates = lock.get("package").and_then(|packages| packages.as_array_of_tables());
        let crates = crates.context("Cargo.lock has no package")?;
        let taken = crates.iter().any(|package| package.get("name").and_then(|n| n.as_str()) == Some(name));
        ensure!(!taken, "invalid module name {name}: a crate in Cargo.lock has this name: choose another name");
        Ok(())
    }

    /// The words of the template, and their values for this module. [`SAMPLE`] comes first, because a value can contain
    /// it.
    fn words(&self, sh: &Shell, root: &Path) -> Result<Vec<(&'static str, String)>> {
        let workspace = manifest(&root.join("Cargo.toml"))?;
        let package = workspace.get("workspace").and_then(|table| table.get("package"));
        let package = package.context("Cargo.toml has no table workspace.package")?;
        let version = package.get("version").and_then(|version| version.as_str());
        let author = package.get("authors").and_then(|authors| authors.as_array()?.get(0)?.as_str());
        Ok(vec![
            (SAMPLE, self.name.clone()),
            ("@CHECK@", format!("cargo xtask crash --module {}", self.name)),
            ("@SETTINGS@", format!("../../debian/{0}/{0}.toml", self.name)),
            ("@VERSION@", version.context("Cargo.toml has no workspace.package.version")?.to_owned()),
            ("@AUTHOR@", author.context("Cargo.toml has no workspace.package.authors")?.to_owned()),
            ("@DATE@", cmd!(sh, "date --rfc-email").quiet().read().context("reading the date failed")?),
        ])
    }

    /// The module's files, by their paths in the work tree.
    fn files(&self, sh: &Shell, root: &Path) -> Result<BTreeMap<PathBuf, String>> {
        let words = self.words(sh, root)?;
        let mut files = fill_in(&root.join(TEMPLATE), &words)?;
        for file in AS_THE_MODEL {
            let path = Path::new("debian").join(&self.name).join(file.replace(MODEL, &self.name));
            let model = root.join("debian").join(MODEL).join(file);
            files.insert(path, read(&model)?.replace(MODEL, &self.name));
        }
        Ok(files)
    }

    /// The module's own paths in the work tree: directories, and files in shared directories. Its crate comes last.
    fn own_paths(&self, files: &BTreeMap<PathBuf, String>) -> Vec<PathBuf> {
        let mut paths = BTreeSet::new();
        for path in files.keys() {
            let outermost = path.ancestors().filter(|directory| directory.ends_with(&self.name)).last();
            paths.insert(outermost.unwrap_or(path).to_owned());
        }
        let mut paths: Vec<_> = paths.into_iter().collect();
        paths.sort_by_key(|path| path.starts_with(MODULES));
        paths
    }

    /// `paths`, and the generated file of the layer that only this module has.
    fn with_generated(&self, mut paths: Vec<PathBuf>) -> Vec<PathBuf> {
        let recipe = paths.iter().find(|path| path.extension().is_some_and(|end| end == "bb"));
        let generated = format!("mender-update-module-{}-crates.inc", self.name);
        paths.extend(recipe.map(|recipe| recipe.with_file_name(generated)));
        paths
    }

    /// Moves the files to the work tree. The crate comes last, and in one step: cargo refuses a workspace with an
    /// incomplete crate, so that this command would not run again.
    fn add(&self, sh: &Shell, root: &Path, files: &BTreeMap<PathBuf, String>, paths: &[PathBuf]) -> Result<()> {
        let name = &self.name;
        let staging = root.join(STAGING);
        directory::empty(&staging)?;
        for (path, content) in files {
            directory::write(&staging.join(path), content)?;
        }
        for path in paths {
            let (from, to) = (staging.join(path), root.join(path));
            let parent = to.parent().unwrap_or(root);
            fs::create_dir_all(parent).with_context(|| format!("making {} failed", parent.display()))?;
            fs::rename(&from, &to)
                .with_context(|| format!("renaming {} to {} failed", from.display(), to.display()))?;
        }
        directory::remove(&staging)?;
        source::update_lock(sh, root).with_context(|| format!("adding {name} to Cargo.lock failed"))?;
        // A longer name breaks lines elsewhere. rustfmt may be missing: Debian has it in a package of its own.
        let formatted = step("cargo fmt", |step| run(step, cmd!(sh, "cargo fmt --package {name}")));
        if let Err(error) = formatted {
            println!("cargo fmt failed; the module is complete without it: {error:#}");
        }
        Ok(())
    }

    fn print_next_steps(&self, sh: &Shell, files: &BTreeMap<PathBuf, String>, paths: &[PathBuf]) -> Result<()> {
        let name = &self.name;
        let metadata = modules::metadata(sh)?;
        let target = modules::target_directory(&metadata)?;
        let target = target.strip_prefix(sh.current_dir()).unwrap_or(target).display();
        let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
        for path in files.keys() {
            println!("    {}", path.display());
        }
        println!(
            "The module {name} replaces one file. Change it, and test it with\n    \
             cargo test --package {name}\n    \
             cargo xtask conformance --module {target}/debug/{name}\n    \
             cargo xtask crash --module {name}\n    \
             cargo xtask dist --arch arm64\n\
             After a change, cargo xtask layer updates its recipe. CONTRIBUTING.md describes the files.\n\
             To undo this command, run in the top directory of the repository\n    \
             rm -r {}\n    \
             git checkout {PREBUILT}\n    \
             cargo xtask layer",
            paths.join(" \\\n          ")
        );
        Ok(())
    }
}

/// The files of the template in the directory `template`, with `words` replaced in paths and contents.
fn fill_in(template: &Path, words: &[(&str, String)]) -> Result<BTreeMap<PathBuf, String>> {
    let fill = |text: String| words.iter().fold(text, |text, (word, value)| text.replace(word, value));
    let mut files = BTreeMap::new();
    for file in directory::files(template)? {
        let path = file.strip_prefix(template)?.to_string_lossy().into_owned();
        files.insert(fill(path).into(), fill(read(&file)?));
    }
    Ok(files)
}

/// Removes a file or a directory.
fn remove(path: &Path) -> io::Result<()> {
    if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {} failed", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
    }

    fn refused(name: &str) -> Option<String> {
        Module { name: name.to_owned() }.check_name(root()).err().map(|error| error.to_string())
    }

    #[test]
    fn every_word_of_the_template_is_replaced() {
        let module = Module { name: "heat-pump".to_owned() };
        let files = module.files(&Shell::new().unwrap(), root()).unwrap();
        let changelog = &files[Path::new("debian/heat-pump/changelog")];
        let trailer = changelog.lines().last().unwrap();
        let (who, when) = trailer.strip_prefix(" -- ").unwrap().split_once("  ").unwrap();
        assert!(who.ends_with('>') && when.contains(':'), "{trailer:?} has no maintainer and date");
        for (path, content) in &files {
            let text = format!("{}\n{content}", path.display());
            for word in [SAMPLE, "@", MODEL] {
                assert!(!text.replace(who, "").replace("@DEVICE@", "").contains(word), "{word} is left in {text}");
            }
        }
    }

    #[test]
    fn the_name_in_the_template_is_not_replaced_in_values() {
        let module = Module { name: format!("{SAMPLE}-2") };
        let files = module.files(&Shell::new().unwrap(), root()).unwrap();
        assert!(files.values().all(|content| !content.contains("-2-2")), "the name was replaced twice");
    }

    #[test]
    fn a_module_has_two_directories_and_two_recipes_and_its_crate_comes_last() {
        let module = Module { name: "heat-pump".to_owned() };
        let files = module.files(&Shell::new().unwrap(), root()).unwrap();
        let paths = module.own_paths(&files);
        let directories: Vec<_> = paths.iter().filter(|path| path.ends_with("heat-pump")).collect();
        assert_eq!(directories, ["debian/heat-pump", "modules/heat-pump"].map(Path::new).each_ref());
        assert_eq!(paths.len(), 4, "{paths:?}");
        assert_eq!(paths.last().unwrap(), Path::new("modules/heat-pump"));
        let generated = module.with_generated(paths).pop().unwrap();
        let recipes = "meta-rust-modules/recipes-mender/update-modules";
        assert_eq!(generated, Path::new(recipes).join("mender-update-module-heat-pump-crates.inc"));
    }

    #[test]
    fn invalid_names_are_refused() {
        for name in ["", "-a", "a-", "A", "a_b", "ä", "1a", "a/b", "..", "a b"] {
            assert!(refused(name).is_some_and(|error| error.contains("lower-case")), "{name:?} was accepted");
        }
        for name in ["web-file", "serde", "xtask"] {
            assert!(refused(name).is_some_and(|error| error.contains("Cargo.lock")), "{name:?} was accepted");
        }
        for name in ["script", "rootfs-image", "build", "suite", "debian", "modules", "git"] {
            assert!(refused(name).is_some_and(|error| error.contains("has this name")), "{name:?} was accepted");
        }
        for name in ["clippy", "rustfmt"] {
            assert!(refused(name).is_some_and(|error| error.contains("have this name")), "{name:?} was accepted");
        }
        assert_eq!(refused("heat-pump2"), None);
    }
}
