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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_device::{installed, on_device, text, write, write_list, write_status};

    #[test]
    fn packages_that_are_not_configured_are_configured_between_the_commands() {
        on_device(|| {
            let unpacked = installed("a", "1").replace("ok installed", "ok unpacked");
            write_status(&[&unpacked, &installed("b", "1")]);
            write_list("a", &["/."]);
            assert_eq!(unfinished_packages(&Database::read().unwrap()), ["a (unpacked)"]);
            write("/etc/dpkg/dpkg.cfg", "pre-invoke=echo >> /srv/before\n");
            complete_interrupted_run(&Hooks::read().unwrap()).unwrap();
            assert_eq!(Database::read().unwrap().unfinished().count(), 0);
            // The hook of the module, and dpkg's own.
            assert_eq!(text("/srv/before"), "\n\n");
            complete_interrupted_run(&Hooks::read().unwrap()).unwrap();
            assert_eq!(text("/srv/before"), "\n\n", "dpkg ran again");
        });
    }

    #[test]
    fn the_updates_of_an_interrupted_run_are_completed() {
        on_device(|| {
            write_status(&[&installed("a", "1")]);
            write("/var/lib/dpkg/updates/0001", installed("a", "2"));
            complete_interrupted_run(&Hooks::read().unwrap()).unwrap();
            assert!(!database::is_interrupted().unwrap());
        });
    }
}
