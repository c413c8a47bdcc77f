//! What is packaged: every workspace member that has `[package.metadata.deb]`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;
use xshell::{Shell, cmd};

use crate::target::Target;

/// The work tree as cargo sees it.
pub struct Workspace {
    /// Its top folder.
    pub root: PathBuf,
    /// Cargo's target folder for what is distributed: apart from that of tests, since flags and compiler differ.
    pub target: PathBuf,
    /// What is packaged.
    pub modules: Vec<Module>,
}

/// A package that becomes a Debian package.
#[derive(Debug, PartialEq, Eq)]
pub struct Module {
    /// Cargo's name, which is the executable's name and that of the folder under `debian/`.
    pub name: String,
    /// Cargo's version, which is Debian's too.
    pub version: String,
    /// Debian's name.
    pub debian: String,
}

impl Module {
    /// The file name of its package for `target`.
    pub fn deb_name(&self, target: &Target) -> String {
        format!("{}.deb", self.stem(target))
    }

    /// The file name of that package's SBOM, beside it.
    pub fn sbom_name(&self, target: &Target) -> String {
        format!("{}.spdx.json", self.stem(target))
    }

    /// What both names begin with.
    pub fn stem(&self, target: &Target) -> String {
        format!("{}_{}_{}", self.debian, self.version, target.debian)
    }
}

/// Asks cargo.
pub fn workspace(sh: &Shell) -> Result<Workspace> {
    parse(&metadata(sh)?)
}

/// What cargo says of the work tree.
pub fn metadata(sh: &Shell) -> Result<Value> {
    let metadata = cmd!(sh, "cargo metadata --no-deps --format-version 1 --locked")
        .quiet()
        .read()
        .context("asking cargo for the workspace's packages")?;
    serde_json::from_str(&metadata).context("reading the output of cargo metadata")
}

fn parse(metadata: &Value) -> Result<Workspace> {
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let modules = packages
        .iter()
        .filter_map(|package| {
            Some(Module {
                debian: package["metadata"]["deb"]["name"].as_str()?.to_owned(),
                name: text(package, "name").ok()?,
                version: text(package, "version").ok()?,
            })
        })
        .collect();
    Ok(Workspace {
        root: text(metadata, "workspace_root")?.into(),
        target: PathBuf::from(text(metadata, "target_directory")?).join("dist"),
        modules,
    })
}

fn text(object: &Value, key: &str) -> Result<String> {
    let text = object[key].as_str().with_context(|| format!("cargo metadata has no {key}"))?;
    Ok(text.to_owned())
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
                {"name": "web-file", "version": "1.2.3", "metadata": {"deb": {"name": "a-web-file"}}}]}"#,
            )
            .unwrap(),
        )
        .unwrap();
        assert_eq!(workspace.target, PathBuf::from("/w/target/dist"));
        let [module] = &workspace.modules[..] else { panic!("{:?}", workspace.modules) };
        assert_eq!(module.deb_name(target::find("armhf").unwrap()), "a-web-file_1.2.3_armhf.deb");
    }
}
