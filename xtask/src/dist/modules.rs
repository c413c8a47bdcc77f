//! The packaged modules: all workspace members with `[package.metadata.deb]`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;
use xshell::{Shell, cmd};

use crate::target::Target;

/// The cargo workspace.
pub struct Workspace {
    /// Its top directory.
    pub root: PathBuf,
    /// Cargo's target directory for the packages. Tests have another one, because their flags and compiler differ.
    pub target: PathBuf,
    /// The packaged modules.
    pub modules: Vec<Module>,
}

/// The beginning of the names of packages with an Update Module.
pub const UPDATE_MODULE: &str = "mender-update-module-";

/// A module with its Debian package.
#[derive(Debug, PartialEq, Eq)]
pub struct Module {
    /// Cargo's name of the package: also the name of the executable, and of the directory below `debian/`.
    pub name: String,
    /// The version, for cargo and for Debian.
    pub version: String,
    /// The name of the Debian package.
    pub debian: String,
}

impl Module {
    /// The file name of the Debian package for `target`.
    pub fn deb_name(&self, target: &Target) -> String {
        format!("{}.deb", self.stem(target))
    }

    /// The file name of the SBOM of that package.
    pub fn sbom_name(&self, target: &Target) -> String {
        format!("{}.spdx.json", self.stem(target))
    }

    /// The common beginning of both names.
    pub fn stem(&self, target: &Target) -> String {
        format!("{}_{}_{}", self.debian, self.version, target.debian)
    }
}

/// Reads the workspace from cargo metadata.
pub fn workspace(sh: &Shell) -> Result<Workspace> {
    parse(&metadata(sh)?)
}

/// The output of cargo metadata, without dependencies.
pub fn metadata(sh: &Shell) -> Result<Value> {
    let metadata = cmd!(sh, "cargo metadata --no-deps --format-version 1 --locked")
        .quiet()
        .read()
        .context("reading the packages of the workspace with cargo metadata failed")?;
    serde_json::from_str(&metadata).context("reading the output of cargo metadata failed")
}

/// Cargo's target directory in the output of cargo metadata.
pub fn target_directory(metadata: &Value) -> Result<&Path> {
    Ok(Path::new(text(metadata, "target_directory")?))
}

fn parse(metadata: &Value) -> Result<Workspace> {
    let packages = metadata["packages"].as_array().context("no packages in the output of cargo metadata")?;
    let modules = packages
        .iter()
        .filter_map(|package| {
            let name = package["metadata"]["deb"]["name"].as_str()?;
            name.starts_with(UPDATE_MODULE).then_some(())?;
            Some(Module {
                debian: package["metadata"]["deb"]["name"].as_str()?.to_owned(),
                name: text(package, "name").ok()?.to_owned(),
                version: text(package, "version").ok()?.to_owned(),
            })
        })
        .collect();
    Ok(Workspace {
        root: text(metadata, "workspace_root")?.into(),
        target: target_directory(metadata)?.join("dist"),
        modules,
    })
}

fn text<'a>(object: &'a Value, key: &str) -> Result<&'a str> {
    object[key].as_str().with_context(|| format!("no {key} in the output of cargo metadata"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target;

    #[test]
    fn packages_with_debian_metadata_are_modules() {
        let workspace = parse(
            &serde_json::from_str(
                r#"{"workspace_root": "/w", "target_directory": "/w/target", "packages": [
                {"name": "library", "version": "1.0.0", "metadata": null},
                {"name": "web-file", "version": "1.2.3", "metadata": {"deb": {"name": "mender-update-module-web-file"}}}]}"#,
            )
            .unwrap(),
        )
        .unwrap();
        assert_eq!(workspace.target, PathBuf::from("/w/target/dist"));
        let [module] = &workspace.modules[..] else { panic!("{:?}", workspace.modules) };
        assert_eq!(module.deb_name(target::find("armhf").unwrap()), "mender-update-module-web-file_1.2.3_armhf.deb");
    }
}
