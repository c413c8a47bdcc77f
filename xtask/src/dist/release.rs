//! The packages in `dist/` that are of this work tree, and their toolchains. The checksums of a release are compared
//! with them.

use std::path::{Path, PathBuf};

use anyhow::Result;
use host::cache;
use xshell::Shell;

use super::inputs::Inputs;
use super::job::{Job, stale};
use super::modules::Workspace;
use super::toolchain::{self, Choice};
use crate::target::{Libc, TARGETS, Target};

/// The number of digits of a short hash.
const DIGITS: usize = 16;

/// The packages for one target.
pub struct Made {
    /// The target.
    pub target: &'static Target,
    /// The C library that is linked; `None` without a toolchain.
    pub libc: Option<Libc>,
    /// A short hash of the toolchain of this machine; `None` if it has no toolchain for this target.
    pub toolchain: Option<String>,
    /// The packages; `None` if a package in `dist/` is missing or not of this work tree and toolchain.
    pub packages: Option<Vec<PathBuf>>,
}

/// A short hash of the inputs of packages: their sources and the time of their last commit.
pub fn sources(sh: &Shell, workspace: &Workspace) -> Result<String> {
    Ok(Inputs::read(sh, &workspace.root)?.identity()[..DIGITS].to_owned())
}

/// The packages of each target, without building anything.
pub fn made(sh: &Shell, workspace: &Workspace) -> Result<Vec<Made>> {
    let inputs = Inputs::read(sh, &workspace.root)?;
    let out = workspace.root.join("dist");
    TARGETS.iter().map(|target| made_for(sh, workspace, &inputs, &out, target)).collect()
}

fn made_for(sh: &Shell, workspace: &Workspace, inputs: &Inputs, out: &Path, target: &'static Target) -> Result<Made> {
    let toolchain = toolchain::present(sh, &workspace.target, target, Choice::Auto)?;
    let libc = toolchain.as_ref().map(|found| found.libc);
    let toolchain = toolchain.map(|found| cache::key([found.identity.as_bytes()])[..DIGITS].to_owned());
    let jobs: Vec<_> = workspace.modules.iter().map(|module| Job::new(out, module, target)).collect();
    let packages = stale(sh, workspace, inputs, &jobs, Choice::Auto, false)?.is_empty();
    let packages = packages.then(|| jobs.into_iter().map(|job| job.deb).collect());
    Ok(Made { target, libc, toolchain, packages })
}
