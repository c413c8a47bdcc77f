//! The packaged modules: all workspace members with `[package.metadata.deb]`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;
use xshell::{Shell, cmd};

use crate::target::{TARGETS, Target};

/// The cargo workspace.
pub struct Workspace {
    /// Its top directory.
    pub root: PathBuf,
    /// Cargo's target directory for the packages. Tests have another one, because their flags and compiler differ.
    pub target: PathBuf,
    /// The packaged Update Modules.
    pub modules: Vec<Module>,
    /// The packaged programs of workstations.
    pub tools: Vec<Module>,
}

impl Workspace {
    /// Every packaged program with each of `targets` that it is built for.
    pub fn packaged(&self, targets: &[&'static Target]) -> Vec<(&Module, &'static Target)> {
        let all = targets.iter().flat_map(|target| self.modules.iter().chain(&self.tools).map(move |it| (it, *target)));
        all.filter(|(module, target)| module.is_for(target)).collect()
    }

    /// The version, which all modules share.
    pub fn version(&self) -> Result<&str> {
        Ok(&self.modules.first().context("no modules in the workspace")?.version)
    }

    /// The file name of the metapackage, which recommends all modules.
    pub fn metapackage(&self) -> String {
        format!("{COLLECTION}_{}_all.deb", self.version().unwrap_or_default())
    }

    /// The file name of the archive with the executables for `target`.
    pub fn executables(&self, target: &Target) -> String {
        format!("{COLLECTION}-{}-{}.tar.gz", self.version().unwrap_or_default(), target.debian)
    }

    /// The file name of the archive with the Yocto layer.
    pub fn layer(&self) -> String {
        format!("meta-rust-modules-{}.tar.gz", self.version().unwrap_or_default())
    }

    /// The names of everything in `dist/` that is made of the packages.
    pub fn collections(&self) -> impl Iterator<Item = String> {
        let executables = TARGETS.iter().map(|target| self.executables(target));
        executables.chain([self.metapackage(), self.layer(), APT.to_owned(), format!("{SUMS}.asc")])
    }
}

/// The name of the metapackage, and of archives with all modules.
pub const COLLECTION: &str = "mender-update-modules";

/// The beginning of the names of packages with an Update Module.
pub const UPDATE_MODULE: &str = "mender-update-module-";

/// The directory of the APT repository in `dist/`.
pub const APT: &str = "apt";

/// The architectures of workstations.
const WORKSTATIONS: [&str; 2] = ["amd64", "arm64"];

/// The file with the checksums of the files in `dist/`.
pub const SUMS: &str = "SHA256SUMS";

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

    /// The names of the files for `target`: the package, and its SBOMs in SPDX and CycloneDX.
    pub fn file_names(&self, target: &Target) -> [String; 3] {
        [self.deb_name(target), format!("{}.spdx.json", self.stem(target)), format!("{}.cdx.json", self.stem(target))]
    }

    /// Whether the package is an Update Module, which runs on a device.
    pub fn is_update_module(&self) -> bool {
        self.debian.starts_with(UPDATE_MODULE)
    }

    /// Whether it is built for `target`: a program for workstations is not built for every device.
    pub fn is_for(&self, target: &Target) -> bool {
        !self.is_for_workstations() || WORKSTATIONS.contains(&target.debian)
    }

    /// Whether it runs on workstations only. The server of test images has no package, and runs on devices.
    fn is_for_workstations(&self) -> bool {
        !self.debian.is_empty() && !self.is_update_module()
    }

    /// Cargo's profile, and the name of the directory of the executable. The size of an Update Module matters more than
    /// the time of its build.
    pub fn profile(&self) -> &'static str {
        if self.is_for_workstations() { "workstation" } else { "release" }
    }

    /// The common beginning of these names.
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
    let packaged = packages.iter().filter_map(|package| {
        Some(Module {
            debian: package["metadata"]["deb"]["name"].as_str()?.to_owned(),
            name: text(package, "name").ok()?.to_owned(),
            version: text(package, "version").ok()?.to_owned(),
        })
    });
    let (tools, modules) = packaged.partition(Module::is_for_workstations);
    Ok(Workspace {
        root: text(metadata, "workspace_root")?.into(),
        target: target_directory(metadata)?.join("dist"),
        modules,
        tools,
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
