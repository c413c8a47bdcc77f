//! Mender Update Module `web-file`: installs files as the top-level regular files of a web root.

mod file_set;
mod kept;
mod settings;
mod staged;

use std::process::ExitCode;

use anyhow::{Result, bail};
use mender_update_module::{InTransactions, Payloads, Transactional, WorkTree};

use file_set::FileSet;
use settings::Settings;

struct WebFile;

impl Transactional for WebFile {
    const NAME: &'static str = "web-file";

    type Update = FileSet;

    fn plan(&self, tree: &WorkTree, _payloads: &mut Payloads) -> Result<FileSet> {
        FileSet::plan(&mender_update_module::settings::load::<Settings>(Self::NAME)?, tree)
    }

    fn stage(&self, files: &mut FileSet, payloads: &mut Payloads) -> Result<()> {
        files.try_out()?;
        for payload in payloads {
            files.stage(payload?)?;
        }
        if files.is_empty() {
            bail!("the artifact has no files; an empty update of a web root is refused");
        }
        files.verify()
    }
}

fn main() -> ExitCode {
    mender_update_module::run(InTransactions(WebFile))
}
