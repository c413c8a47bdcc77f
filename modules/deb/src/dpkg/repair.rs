//! The repair of an interrupted dpkg, before an update begins.

use anyhow::Result;
use mender_update_module::log;

use crate::dpkg::conffile_policy::conffile_options;
use crate::dpkg::database::{self, Database};
use crate::dpkg::hooks::Hooks;
use crate::dpkg::program;
use crate::dpkg::stanza::Stanza;
use crate::options::Conffiles;

/// Completes an interrupted run of dpkg, between the commands of `hooks`, while this process holds the frontend lock. A
/// failure is only logged: [`policy`](crate::checks::policy) refuses the update if it does not complete the rest.
pub fn complete_interrupted_run(hooks: &Hooks) -> Result<()> {
    let unfinished = unfinished_packages(&Database::read()?);
    if unfinished.is_empty() && !database::is_interrupted()? {
        return Ok(());
    }
    log!("repairing an interrupted run of dpkg: {}", unfinished.join(", "));
    let options = conffile_options(Conffiles::Keep);
    hooks.run_around(|| {
        if let Err(error) = program::change_under_lock("dpkg").args(options).args(["--configure", "--pending"]).run() {
            log!("repairing an interrupted run of dpkg failed: {error:#}");
        }
        Ok(())
    })
}

fn unfinished_packages(database: &Database) -> Vec<String> {
    let shown = |package: &Stanza| format!("{} ({})", package.field("Package").unwrap_or_default(), package.state());
    database.unfinished().map(shown).collect()
}
