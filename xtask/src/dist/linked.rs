//! The crates that are linked into the executable of a module, with their licences. Debian's `copyright`, the SBOM
//! and the recipes of the Yocto layer list them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;
use toml_edit::{DocumentMut, Item};
use xshell::{Shell, cmd};

use super::copyright_holders::holders;
use super::licences::{self, Choice, Licence};
use super::modules::{Module, Workspace};
use super::source::manifest;
use crate::target::{Libc, TARGETS, Target};

/// The crates that are linked into the executable of a module.
pub struct Linked {
    /// The crates: first the module, then the others by name and version.
    pub crates: Vec<Crate>,
}

/// A linked crate.
pub struct Crate {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence.
    pub licence: Choice,
    /// The copyright holders in its files.
    pub copyright: Vec<String>,
    /// The sha256 of its archive on crates.io; `None` for a crate of this work tree.
    pub checksum: Option<String>,
    /// The targets that it is linked for.
    pub targets: Vec<&'static Target>,
}

impl Linked {
    /// Reads the crates of `module` from cargo. Crates that only tests, build scripts or macros need are not linked.
    ///
    /// # Errors
    /// The licence of a crate is missing or not accepted.
    pub fn of(sh: &Shell, workspace: &Workspace, module: &Module) -> Result<Self> {
        let lock = manifest(&workspace.root.join("Cargo.lock"))?;
        let mut found: BTreeMap<(String, String), Vec<&'static Target>> = BTreeMap::new();
        let mut packages = BTreeMap::new();
        for target in TARGETS {
            // The crates for either C library, so that the licences do not depend on the machine.
            let mut crates = BTreeSet::new();
            for triple in Libc::ALL.map(|libc| target.triple(libc)) {
                packages.extend(metadata(sh, triple)?);
                crates.extend(names(&tree(sh, module, triple)?)?);
            }
            for linked in crates {
                found.entry(linked).or_default().push(target);
            }
        }
        let read = |((name, version), targets)| {
            Crate::read(name, version, targets, &packages, &lock)
                .with_context(|| format!("reading the licences of the crates in {} failed", module.name))
        };
        let mut crates = found.into_iter().map(read).collect::<Result<Vec<_>>>()?;
        crates.sort_by_key(|linked| linked.name != module.name);
        Ok(Self { crates })
    }

    /// The licences under which all linked crates and the standard library are used, sorted by their SPDX
    /// identifiers. A static executable also has the licence of the C library, [`licences::c_library`].
    pub fn licences(&self) -> Vec<&'static Licence> {
        let used = self.crates.iter().flat_map(|linked| linked.licence.used.iter().copied());
        let used = used.chain([licences::STANDARD_LIBRARY]).map(|licence| (licence.spdx, licence));
        used.collect::<BTreeMap<_, _>>().into_values().collect()
    }
}

impl Crate {
    fn read(
        name: String,
        version: String,
        targets: Vec<&'static Target>,
        packages: &BTreeMap<(String, String), Value>,
        lock: &DocumentMut,
    ) -> Result<Self> {
        let key = (name, version);
        let package = packages.get(&key);
        let (name, version) = key;
        let package = package.with_context(|| format!("{name} {version}: not in the output of cargo metadata"))?;
        let expression = package["license"].as_str();
        let expression = expression.with_context(|| format!("{name} {version}: no license in its manifest"))?;
        let licence = licences::choose(expression).with_context(|| format!("{name} {version}"))?;
        let directory = package["manifest_path"].as_str().and_then(|path| Path::new(path).parent());
        let directory =
            directory.with_context(|| format!("{name} {version}: no manifest in the output of cargo metadata"))?;
        let authors = package["authors"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let copyright = holders(&name, directory, authors)?;
        let checksum = checksum(lock, &name, &version);
        Ok(Self { name, version, licence, copyright, checksum, targets })
    }
}

/// All packages in the output of cargo metadata for `triple`, by name and version.
fn metadata(sh: &Shell, triple: &str) -> Result<BTreeMap<(String, String), Value>> {
    let metadata = cmd!(sh, "cargo metadata --format-version 1 --locked --filter-platform {triple}")
        .quiet()
        .read()
        .with_context(|| format!("reading the packages for {triple} with cargo metadata failed"))?;
    let mut metadata: Value = serde_json::from_str(&metadata).context("reading the output of cargo metadata failed")?;
    let packages = metadata["packages"].as_array_mut().context("no packages in the output of cargo metadata")?;
    let text = |package: &Value, key: &str| package[key].as_str().unwrap_or_default().to_owned();
    let named = |package: Value| ((text(&package, "name"), text(&package, "version")), package);
    Ok(packages.drain(..).map(named).collect())
}

/// The output of cargo tree for `triple`. Unlike cargo metadata, it excludes features of tests and of other members.
fn tree(sh: &Shell, module: &Module, triple: &str) -> Result<String> {
    let name = &module.name;
    cmd!(sh, "cargo tree --locked --package {name} --target {triple}")
        .args(["--edges", "normal,no-proc-macro", "--prefix", "none", "--no-dedupe", "--format", "{p}"])
        .quiet()
        .read()
        .with_context(|| format!("reading the crates in {name} for {triple} with cargo tree failed"))
}

/// The names and versions in the output of cargo tree: lines of `name vVERSION` and, for a crate of this workspace,
/// its path.
fn names(tree: &str) -> Result<BTreeSet<(String, String)>> {
    let parse = |line: &str| {
        let mut words = line.split(' ');
        let (name, version) = (words.next(), words.next().and_then(|version| version.strip_prefix('v')));
        let (name, version) =
            name.zip(version).with_context(|| format!("unexpected line in the output of cargo tree: {line:?}"))?;
        Ok((name.to_owned(), version.to_owned()))
    };
    tree.lines().filter(|line| !line.is_empty()).map(parse).collect()
}

fn checksum(lock: &DocumentMut, name: &str, version: &str) -> Option<String> {
    let packages = lock.get("package").and_then(Item::as_array_of_tables)?;
    let text = |package: &toml_edit::Table, key: &str| Some(package.get(key)?.as_str()?.to_owned());
    let matches = |package: &&toml_edit::Table| {
        text(package, "name").as_deref() == Some(name) && text(package, "version").as_deref() == Some(version)
    };
    text(packages.iter().find(matches)?, "checksum")
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A crate of crates.io under `licence`, linked for all targets.
    pub fn linked(name: &str, version: &str, licence: &str) -> Crate {
        Crate {
            name: name.into(),
            version: version.into(),
            licence: licences::choose(licence).unwrap(),
            copyright: vec!["2018, An Author".into()],
            checksum: Some("abc".into()),
            targets: TARGETS.iter().collect(),
        }
    }

    #[test]
    fn lines_of_cargo_tree_are_names_and_versions() {
        let tree = "web-file v0.1.0 (/w/modules/web-file)\nanyhow v1.0.104\ntoml v0.9.12+spec-1.1.0\n\
                    anyhow v1.0.104\n";
        let names = names(tree).unwrap();
        let expected = [("anyhow", "1.0.104"), ("toml", "0.9.12+spec-1.1.0"), ("web-file", "0.1.0")];
        assert_eq!(names, expected.map(|(name, version)| (name.to_owned(), version.to_owned())).into());
        assert!(super::names("warning").is_err());
    }

    #[test]
    fn an_unknown_or_missing_licence_names_the_crate() {
        let lock: DocumentMut = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nchecksum = \"abc\"\n".parse().unwrap();
        let read = |license: &str| {
            let package =
                format!(r#"{{"license": {license}, "manifest_path": "/nowhere/Cargo.toml", "authors": ["A <a@b>"]}}"#);
            let package = serde_json::from_str(&package).unwrap();
            let key = ("a".to_owned(), "1.0.0".to_owned());
            Crate::read("a".into(), "1.0.0".into(), Vec::new(), &[(key, package)].into(), &lock)
        };
        let error = format!("{:#}", read("\"GPL-3.0-only\"").err().unwrap());
        assert!(error.starts_with("a 1.0.0: licence not accepted: GPL-3.0-only"), "{error}");
        let error = format!("{:#}", read("null").err().unwrap());
        assert_eq!(error, "a 1.0.0: no license in its manifest");
        let read = read("\"ISC\"").unwrap();
        assert_eq!((read.checksum.as_deref(), &read.copyright[..]), (Some("abc"), &["A".to_owned()][..]));
    }

    #[test]
    fn licences_are_those_of_all_crates_and_of_the_standard_library() {
        let linked = Linked { crates: vec![linked("minreq", "3.0.0", "ISC"), linked("zmij", "1.0.0", "MIT")] };
        let licences: Vec<_> = linked.licences().iter().map(|licence| licence.spdx).collect();
        assert_eq!(licences, ["Apache-2.0", "ISC", "MIT"]);
    }
}
