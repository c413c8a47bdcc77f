//! The jobs of `cargo xtask dist`: one package of a module for a target.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use xshell::Shell;

use super::inputs::Inputs;
use super::modules::{Module, Workspace};
use super::toolchain::Choice;
use super::{record, toolchain};
use crate::target::Target;

/// The package of a module for a target.
pub struct Job<'a> {
    /// The module.
    pub module: &'a Module,
    /// The target.
    pub target: &'static Target,
    /// The path of the package.
    pub deb: PathBuf,
    /// The path of its SBOM in SPDX, which is also in the package.
    pub spdx: PathBuf,
    /// The path of its SBOM in CycloneDX.
    pub cyclonedx: PathBuf,
}

impl<'a> Job<'a> {
    /// The job that writes a package of `module` for `target` to the directory `out`.
    pub fn new(out: &Path, module: &'a Module, target: &'static Target) -> Self {
        let [deb, spdx, cyclonedx] = module.file_names(target).map(|name| out.join(name));
        Job { module, target, deb, spdx, cyclonedx }
    }

    /// The jobs of every package for `targets`.
    pub fn all(out: &Path, workspace: &'a Workspace, targets: &[&'static Target]) -> Vec<Self> {
        workspace.packaged(targets).into_iter().map(|(module, target)| Self::new(out, module, target)).collect()
    }

    /// The files that the job writes. The first one is the package.
    pub fn files(&self) -> [&Path; 3] {
        [&self.deb, &self.spdx, &self.cyclonedx]
    }
}

/// The jobs whose package is missing, altered, or made of other inputs than the current ones with the C library of
/// `choice`; and with `rebuild`, those whose package another work tree has built.
pub fn stale<'a>(
    sh: &Shell,
    workspace: &Workspace,
    inputs: &Inputs,
    jobs: &'a [Job<'a>],
    choice: Choice,
    rebuild: bool,
) -> Result<Vec<&'a Job<'a>>> {
    let mut keys: BTreeMap<&str, Option<String>> = BTreeMap::new();
    let mut stale = Vec::new();
    for job in jobs {
        let target = job.target;
        if !keys.contains_key(target.debian) {
            let toolchain = toolchain::present(sh, &workspace.target, target, choice)?;
            keys.insert(target.debian, toolchain.map(|toolchain| inputs.key(&toolchain, target)));
        }
        let key = keys.get(target.debian).and_then(Option::as_deref);
        let is_current = key.is_some_and(|key| record::matches(&workspace.target, job.files(), key));
        if !is_current || (rebuild && record::is_restored(&workspace.target, job.files()[0])) {
            stale.push(job);
        }
    }
    Ok(stale)
}
