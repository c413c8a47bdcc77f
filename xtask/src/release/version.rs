//! Versions, and the places that name the version of the work tree.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use toml_edit::{DocumentMut, Item, value};

use crate::dist::source::manifest;

/// A version without a suffix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version([u32; 3]);

impl Version {
    /// Reads a version such as `0.2.0`.
    pub fn parse(text: &str) -> Result<Self> {
        let parts: Option<Vec<u32>> =
            text.split('.').map(|part| part.parse().ok().filter(|number: &u32| number.to_string() == part)).collect();
        let parts = parts.and_then(|parts| parts.try_into().ok());
        Ok(Self(parts.with_context(|| format!("invalid version: {text}: use three numbers, such as 0.2.0"))?))
    }

    /// The version of the workspace in `root`.
    pub fn of_workspace(root: &Path) -> Result<Self> {
        let manifest = manifest(&root.join("Cargo.toml"))?;
        let version =
            manifest.get("workspace").and_then(|item| item.get("package")).and_then(|item| item.get("version"));
        Self::parse(version.and_then(Item::as_str).context("no workspace.package.version in Cargo.toml")?)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let [major, minor, patch] = self.0;
        write!(formatter, "{major}.{minor}.{patch}")
    }
}

/// The manifest of the workspace with `version`: its own one, and that of every published member in its dependencies.
pub fn in_manifest(mut manifest: DocumentMut, version: &Version) -> Result<String> {
    let version = version.to_string();
    manifest["workspace"]["package"]["version"] = value(&version);
    let dependencies = manifest["workspace"]["dependencies"].as_table_like_mut();
    let dependencies = dependencies.context("no table workspace.dependencies in Cargo.toml")?;
    for (_, dependency) in dependencies.iter_mut() {
        let dependency = dependency.as_table_like_mut().filter(|table| table.contains_key("path"));
        if let Some(present) = dependency.and_then(|table| table.get_mut("version")).and_then(Item::as_value_mut) {
            let decor = present.decor().clone();
            *present = version.as_str().into();
            *present.decor_mut() = decor;
        }
    }
    Ok(manifest.to_string())
}

/// Whether the file at `path` names the version of packages or of the layer in a known form: see [`in_text`].
pub fn is_text(path: &Path) -> bool {
    has_extension(path, &["md", "inc"]) && is_reviewed(path)
}

/// Whether a line in the file at `path` that names an earlier version may be wrong. Code and history name versions
/// whose data they read.
pub fn is_reviewed(path: &Path) -> bool {
    let is_history = path.ends_with("CHANGELOG.md") || path.starts_with("docs/evidence");
    has_extension(path, &["md", "inc", "bb", "bbappend", "conf", "yml"])
        && !is_history
        && !path.ends_with("prebuilt.inc")
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension().and_then(|extension| extension.to_str()).is_some_and(|found| extensions.contains(&found))
}

/// `text` with `version` instead of `previous` in names of packages and tags, in `PV` of recipes from git, and in the
/// output of a module.
pub fn in_text(text: &str, previous: &Version, version: &Version) -> String {
    const MODULE: &str = "module:    web-file ";
    let forms = [("_", "_"), ("--branch v", " "), ("\"", "+git\""), (MODULE, "\n")];
    forms.iter().fold(text.to_owned(), |text, (before, after)| {
        text.replace(&format!("{before}{previous}{after}"), &format!("{before}{version}{after}"))
    })
}

/// The path of a recipe of `version`, if `path` is that of one of `previous`.
pub fn recipe(path: &Path, previous: &Version, version: &Version) -> Option<PathBuf> {
    let stem = path.file_name()?.to_str()?.strip_suffix(&format!("_{previous}.bb"))?;
    Some(path.with_file_name(format!("{stem}_{version}.bb")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    #[test]
    fn versions_are_three_numbers_and_compared_as_such() {
        assert_eq!(version("0.12.3").to_string(), "0.12.3");
        assert!(version("0.10.0") > version("0.9.9"));
        for bad in ["", "1", "1.2", "1.2.3.4", "1.2.x", "v1.2.3", "01.2.3", "+1.2.3", "1.2.3-rc1"] {
            assert!(Version::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_manifest_names_the_version_of_published_members() {
        let text = "[workspace.package]\nversion = \"0.1.0\"\n\n[workspace.dependencies]\ntar = \"0.1.0\"\n\
                    module = { path = \"m\", version = \"0.1.0\" } # ours\nhost = { path = \"h\" }\n";
        let raised = in_manifest(text.parse().unwrap(), &version("0.2.0")).unwrap();
        let expected =
            text.replacen("0.1.0", "0.2.0", 1).replace("\"m\", version = \"0.1.0\"", "\"m\", version = \"0.2.0\"");
        assert_eq!(raised, expected);
    }

    #[test]
    fn known_forms_are_raised_and_others_are_not() {
        let raise = |text: &str| in_text(text, &version("0.1.0"), &version("0.2.0"));
        assert_eq!(raise("./web-file_0.1.0_arm64.deb"), "./web-file_0.2.0_arm64.deb");
        assert_eq!(raise("git clone --branch v0.1.0 …"), "git clone --branch v0.2.0 …");
        assert_eq!(raise("PV = \"0.1.0+git\""), "PV = \"0.2.0+git\"");
        assert_eq!(raise("module:    web-file 0.1.0\n"), "module:    web-file 0.2.0\n");
        for other in ["since 0.1.0", "version = \"0.1.0\"", "_10.1.0_"] {
            assert_eq!(raise(other), other);
        }
    }

    #[test]
    fn only_recipes_of_the_previous_version_are_renamed() {
        let recipe = |path: &str| recipe(Path::new(path), &version("0.1.0"), &version("0.2.0"));
        assert_eq!(recipe("l/a-bin_0.1.0.bb").unwrap(), Path::new("l/a-bin_0.2.0.bb"));
        assert!(recipe("l/a_git.bb").is_none() && recipe("l/a_0.1.0.inc").is_none());
    }
}
