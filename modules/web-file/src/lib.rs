//! Mender Update Module `web-file`: installs files as the top-level regular files of a web root.

pub mod artifact;
mod file_set;
#[doc(hidden)]
pub mod fuzzing;
mod kept;
mod settings;
mod staged;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use mender_update_module::{InTransactions, Payloads, Transactional, WorkTree};

use file_set::FileSet;
use settings::Settings;

struct WebFile;

impl Transactional for WebFile {
    const NAME: &'static str = "web-file";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    type Update = FileSet;

    fn check_settings(&self, file: &Path) -> Result<()> {
        mender_update_module::settings::check::<Settings>(file)?
            .check()
            .with_context(|| format!("invalid settings in {}", file.display()))
    }

    fn plan(&self, tree: &WorkTree, _payloads: &mut Payloads) -> Result<FileSet> {
        FileSet::plan(&mender_update_module::settings::load::<Settings>(Self::NAME)?, tree)
    }

    fn stage(&self, files: &mut FileSet, payloads: &mut Payloads) -> Result<()> {
        files.check_file_system()?;
        files.stage(payloads)?;
        artifact::require_files(files.len())?;
        files.verify()
    }
}

/// Runs the module: the `main` of its executable.
pub fn main() -> ExitCode {
    mender_update_module::run(InTransactions(WebFile))
}
