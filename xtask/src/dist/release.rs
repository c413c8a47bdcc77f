//! Which packages in `dist/` are those of this work tree, and what made them: what the checksums of a release are compared by.

use std::path::{Path, PathBuf};

use anyhow::Result;
use host::cache;
use xshell::Shell;

use super::inputs::Inputs;
use super::modules::Workspace;
use super::{Job, stale, toolchain};
use crate::target::{TARGETS, Target};

/// How many digits of a hash are shown.
const DIGITS: usize = 16;

/// The packages for one target.
pub struct Made {
    /// The target.
    pub target: &'static Target,
    /// A short hash of the toolchain of this machine; none where it has none for this target.
    pub toolchain: Option<String>,
    /// The packages, where all of them in `dist/` are of this work tree and toolchain; else none.
    pub packages: Option<Vec<PathBuf>>,
}

/// A short hash of all that the work tree has to do with packages: their sources and the time of their last commit.
///
/// # Errors
/// When git cannot be asked, or a file not be read.
pub fn sources(sh: &Shell, workspace: &Workspace) -> Result<String> {
    Ok(Inputs::read(sh, &workspace.root)?.identity()[..DIGITS].to_owned())
}

/// What there is of each target, without building anything.
///
/// # Errors
/// When git, rustc or dpkg cannot be asked.
pub fn made(sh: &Shell, workspace: &Workspace) -> Result<Vec<Made>> {
    let inputs = Inputs::read(sh, &workspace.root)?;
    let out = workspace.root.join("dist");
    TARGETS.iter().map(|target| made_for(sh, workspace, &inputs, &out, target)).collect()
}

fn made_for(
    sh: &Shell,
    workspace: &Workspace,
    inputs: &Inputs,
    out: &Path,
    target: &'static Target,
) -> Result<Made> {
    let toolchain = toolchain::present(sh, &workspace.target, target)?;
    let toolchain = toolchain.map(|found| cache::key([found.identity.as_bytes()])[..DIGITS].to_owned());
    let jobs: Vec<_> = workspace.modules.iter().map(|module| Job::new(out, module, target)).collect();
    let packages = stale(sh, workspace, inputs, &jobs)?.is_empty();
    let packages = packages.then(|| jobs.into_iter().map(|job| job.deb).collect());
    Ok(Made { target, toolchain, packages })
}
