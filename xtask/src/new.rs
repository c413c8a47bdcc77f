//! `cargo xtask new`: a module to begin with, which has its tests, package and recipes from its first moment.

mod proof;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use host::command::run;
use host::directory;
use host::status::step;
use xshell::{Shell, cmd};

use crate::dist::source::{self, manifest};
use crate::layer::Layer;
pub use proof::proof;

/// Makes a module with its tests, settings, Debian package, recipes and a payload to test it with
#[derive(Args)]
pub struct New {
    /// The payload type: the module's executable and files are named after it
    #[arg(required_unless_present = "test")]
    name: Option<String>,
    /// Tests the template instead, in a copy of the work tree; takes about 4 minutes
    #[arg(long, conflicts_with = "name")]
    test: bool,
}

/// A module to be made.
struct Module {
    name: String,
}

/// A work tree with one module in it, called [`SAMPLE`].
const TEMPLATE: &str = "xtask/template";

/// The name in the template.
const SAMPLE: &str = "fireplace";

/// A module whose part under `debian/` is the same for every module but for the name: these files of it.
const MODEL: &str = "web-file";
const AS_THE_MODEL: &[&str] =
    &["lintian-overrides", "mender-update-module-web-file-recover.service", "postrm", "prerm"];

/// Names that something else needs, and what.
const TAKEN: &[(&[&str], &str)] = &[
    (
        &["docker", "rootfs-image", "rpm", "script", "single-file"],
        "the Mender client has a payload type of its own",
    ),
    (&["build", "deps", "examples", "incremental"], "cargo keeps a directory of its own"),
];

/// Where a module is written before it is brought into the work tree.
const STAGING: &str = ".new-module";

/// Where modules' crates are: cargo takes every directory there for one.
const MODULES: &str = "modules";

impl New {
    /// Makes the module, or tests one.
    ///
    /// # Errors
    /// When it cannot be made, or what is made fails a test.
    pub fn run(self, sh: &Shell) -> Result<()> {
        match self.name {
            Some(name) => Module { name }.make(sh),
            None => proof(sh).map(|said| println!("{said}")),
        }
    }
}

impl Module {
    /// Writes the module's files, and brings `Cargo.lock` and the layer's generated files up to date.
    ///
    /// # Errors
    /// When the name cannot be one or is taken, or a file is there already: then nothing is written.
    fn make(&self, sh: &Shell) -> Result<()> {
        let root = sh.current_dir();
        self.check_name(&root)?;
        let files = self.files(sh, &root)?;
        let places = self.places(&files);
        for place in &places {
            ensure!(
                !root.join(place).exists(),
                "{} is there already: choose another name, or remove it",
                place.display()
            );
        }
        let lock = read(&root.join("Cargo.lock"))?;
        if let Err(error) = self.take_in(sh, &root, &files, &places) {
            places.iter().for_each(|place| drop(remove(&root.join(place))));
            drop(directory::remove(&root.join(STAGING)));
            drop(fs::write(root.join("Cargo.lock"), lock));
            return Err(error).context("the module could not be made, and its files are removed again");
        }
        Layer::default().run(sh).context("the module is made; the rest is done by cargo xtask layer")?;
        self.say_what_is_next(&files);
        Ok(())
    }

    /// What can be the name of a Debian package, a crate and a payload type, and is none yet.
    fn check_name(&self, root: &Path) -> Result<()> {
        let name = &self.name;
        let fits = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        ensure!(
            fits && name.starts_with(|c: char| c.is_ascii_lowercase()) && !name.ends_with('-'),
            "{name:?} cannot be a module's name: lower-case letters, digits and hyphens can, beginning with a letter"
        );
        if let Some((_, why)) = TAKEN.iter().find(|(names, _)| names.contains(&name.as_str())) {
            bail!("{why} called {name}: choose another name");
        }
        let lock = manifest(&root.join("Cargo.lock"))?;
        let crates = lock.get("package").and_then(|packages| packages.as_array_of_tables());
        let crates = crates.context("Cargo.lock lists no package")?;
        let taken = crates.iter().any(|package| package.get("name").and_then(|n| n.as_str()) == Some(name));
        ensure!(!taken, "there is a crate called {name} in Cargo.lock: choose another name");
        Ok(())
    }

    /// What stands in the template for what only this module knows, and that.
    fn words(&self, sh: &Shell, root: &Path) -> Result<[(&'static str, String); 4]> {
        let workspace = manifest(&root.join("Cargo.toml"))?;
        let package = workspace.get("workspace").and_then(|table| table.get("package"));
        let package = package.context("Cargo.toml has no table workspace.package")?;
        let version = package.get("version").and_then(|version| version.as_str());
        let author = package.get("authors").and_then(|authors| authors.as_array()?.get(0)?.as_str());
        Ok([
            (SAMPLE, self.name.clone()),
            ("@VERSION@", version.context("Cargo.toml has no workspace.package.version")?.to_owned()),
            ("@AUTHOR@", author.context("Cargo.toml has no workspace.package.authors")?.to_owned()),
            ("@DATE@", cmd!(sh, "date --rfc-email").quiet().read().context("asking for the date")?),
        ])
    }

    /// Its files, by their paths from the top of the work tree.
    fn files(&self, sh: &Shell, root: &Path) -> Result<BTreeMap<PathBuf, String>> {
        let words = self.words(sh, root)?;
        let from_template =
            |text: String| words.iter().fold(text, |text, (word, own)| text.replace(word, own));
        let template = root.join(TEMPLATE);
        let mut files = BTreeMap::new();
        for file in directory::files(&template)? {
            let path = file.strip_prefix(&template)?.to_string_lossy().into_owned();
            files.insert(from_template(path).into(), from_template(read(&file)?));
        }
        for file in AS_THE_MODEL {
            let path = Path::new("debian").join(&self.name).join(file.replace(MODEL, &self.name));
            let model = root.join("debian").join(MODEL).join(file);
            files.insert(path, read(&model)?.replace(MODEL, &self.name));
        }
        Ok(files)
    }

    /// What in the work tree is the module's alone: directories, and files in directories that it shares. Its crate comes last.
    fn places(&self, files: &BTreeMap<PathBuf, String>) -> Vec<PathBuf> {
        let mut places = BTreeSet::new();
        for path in files.keys() {
            let outermost = path.ancestors().filter(|directory| directory.ends_with(&self.name)).last();
            places.insert(outermost.unwrap_or(path).to_owned());
        }
        let mut places: Vec<_> = places.into_iter().collect();
        places.sort_by_key(|place| place.starts_with(MODULES));
        places
    }

    /// Brings the files into the work tree, the crate in one step after all else: a crate that is half there keeps cargo, and this
    /// command with it, from everything.
    fn take_in(
        &self,
        sh: &Shell,
        root: &Path,
        files: &BTreeMap<PathBuf, String>,
        places: &[PathBuf],
    ) -> Result<()> {
        let name = &self.name;
        let staging = root.join(STAGING);
        directory::empty(&staging)?;
        for (path, content) in files {
            directory::write(&staging.join(path), content)?;
        }
        for place in places {
            let (from, to) = (staging.join(place), root.join(place));
            fs::rename(&from, &to)
                .with_context(|| format!("renaming {} to {}", from.display(), to.display()))?;
        }
        directory::remove(&staging)?;
        source::update_lock(sh, root).with_context(|| format!("taking {name} into the workspace"))?;
        // A name of another length than the template's breaks lines elsewhere. Debian's rustfmt has a package of its own.
        let formatted = step("cargo fmt", |step| run(step, cmd!(sh, "cargo fmt --package {name}")));
        if let Err(error) = formatted {
            println!("the module could not be formatted, which is no harm: {error:#}");
        }
        Ok(())
    }

    fn say_what_is_next(&self, files: &BTreeMap<PathBuf, String>) {
        let name = &self.name;
        for path in files.keys() {
            println!("    {}", path.display());
        }
        println!(
            "The module {name} replaces one file, and is yours to change. Whether it is sound, at any time:\n    \
             cargo test --package {name}\n    \
             cargo xtask conformance --module target/debug/{name}\n    \
             cargo xtask crash --module {name}\n    \
             cargo xtask dist --arch arm64\n\
             After a change, cargo xtask layer brings its recipe up to date. CONTRIBUTING.md says what each file is for."
        );
    }
}

/// Removes a file or a directory.
fn remove(path: &Path) -> io::Result<()> {
    if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
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
    fn nothing_of_the_template_is_left() {
        let module = Module { name: "heat-pump".to_owned() };
        let files = module.files(&Shell::new().unwrap(), root()).unwrap();
        let changelog = &files[Path::new("debian/heat-pump/changelog")];
        let trailer = changelog.lines().last().unwrap();
        let (who, when) = trailer.strip_prefix(" -- ").unwrap().split_once("  ").unwrap();
        assert!(who.ends_with('>') && when.contains(':'), "{trailer:?} does not say who and when");
        for (path, content) in &files {
            let text = format!("{}\n{content}", path.display());
            for word in [SAMPLE, "@", MODEL] {
                assert!(
                    !text.replace(who, "").replace("@DEVICE@", "").contains(word),
                    "{word} is left in {text}"
                );
            }
        }
    }

    #[test]
    fn a_module_has_three_directories_and_two_recipes_and_its_crate_comes_last() {
        let module = Module { name: "heat-pump".to_owned() };
        let files = module.files(&Shell::new().unwrap(), root()).unwrap();
        let places = module.places(&files);
        let directories: Vec<_> = places.iter().filter(|place| place.ends_with("heat-pump")).collect();
        assert_eq!(
            directories,
            ["debian/heat-pump", "tests/conformance/payloads/heat-pump", "modules/heat-pump"]
                .map(Path::new)
                .each_ref()
        );
        assert_eq!(places.len(), 5, "{places:?}");
        assert_eq!(places.last().unwrap(), Path::new("modules/heat-pump"));
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        for name in ["", "-a", "a-", "A", "a_b", "ä", "1a", "a/b", "..", "a b"] {
            assert!(refused(name).is_some_and(|said| said.contains("lower-case")), "{name:?} was taken");
        }
        for name in ["web-file", "serde", "xtask"] {
            assert!(refused(name).is_some_and(|said| said.contains("Cargo.lock")), "{name:?} was taken");
        }
        for name in ["script", "rootfs-image", "build"] {
            assert!(refused(name).is_some_and(|said| said.contains("of its own")), "{name:?} was taken");
        }
        assert_eq!(refused("heat-pump2"), None);
    }
}
