//! The trait of a module with transactions, and its adapter to [`UpdateModule`].

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::deployment_log::first_error;
use crate::durable;
use crate::guard::Guard;
use crate::journal::Journal;
use crate::log;
use crate::module::UpdateModule;
use crate::payloads::Payloads;
use crate::settings;
use crate::state::NeedsReboot;
use crate::status::Pending;
use crate::transaction::Transaction;
use crate::tree::WorkTree;
use crate::update::Update;

/// A module whose updates are transactions: staged, activated, and rolled back if the activation or the health check
/// fails, the client asks for it, or a power loss interrupts it.
///
/// [`InTransactions`] turns it into an [`UpdateModule`] for [`run`](crate::run). The methods with a default
/// implementation are states of the protocol; a module may override any of them.
pub trait Transactional: Sized {
    /// As [`UpdateModule::NAME`].
    const NAME: &'static str;

    /// As [`UpdateModule::VERSION`].
    const VERSION: &'static str;

    /// The type of an update.
    type Update: Update;

    /// Decides where the payload is staged, if necessary after reading the first of `payloads`. It changes nothing: the
    /// journal stores the update before anything changes.
    ///
    /// # Errors
    /// Fail the download.
    fn plan(&self, tree: &WorkTree, payloads: &mut Payloads) -> Result<Self::Update>;

    /// Writes the payload to its staging directory, durably.
    ///
    /// # Errors
    /// Fail the download.
    fn stage(&self, update: &mut Self::Update, payloads: &mut Payloads) -> Result<()>;

    /// Called at every boot after the recovery, for a module that starts the active version. It must not wait for
    /// units of systemd, which wait for this call. Default: does nothing.
    ///
    /// # Errors
    /// Fail the recovery at boot.
    fn booted(&self, _tree: &WorkTree) -> Result<()> {
        Ok(())
    }

    /// As [`UpdateModule::check_settings`]. A module with settings calls [`settings::check`](crate::settings::check)
    /// with their type.
    fn check_settings(&self, file: &Path) -> Result<()> {
        settings::check::<settings::NoSettings>(file).map(drop)
    }

    /// As [`UpdateModule::provides_payload_file_sizes`]. Default: yes, for the check of free space.
    fn provides_payload_file_sizes(&self, _tree: &WorkTree) -> Result<bool> {
        Ok(true)
    }

    /// As [`UpdateModule::download`]. Default: ends the previous transaction, plans and stages.
    fn download(&self, tree: &WorkTree, mut payloads: Payloads) -> Result<()> {
        let transaction = transaction::<Self>(tree);
        let unrestored = transaction.clear()?;
        let guard = Guard::of(Self::NAME, tree)?;
        let update = self.plan(tree, &mut payloads)?;
        unrestored.into_iter().try_for_each(|other| other.refuse(&update))?;
        transaction.stage(update, guard, |update| self.stage(update, &mut payloads))
    }

    /// As [`UpdateModule::artifact_install`]. Default: activates the staged version.
    fn artifact_install(&self, tree: &WorkTree) -> Result<()> {
        transaction::<Self>(tree).install()
    }

    /// As [`UpdateModule::needs_artifact_reboot`]. Default: [`Update::needs_reboot`].
    fn needs_artifact_reboot(&self, tree: &WorkTree) -> Result<NeedsReboot> {
        transaction::<Self>(tree).needs_reboot()
    }

    /// As [`UpdateModule::artifact_reboot`]. Default: does nothing.
    fn artifact_reboot(&self, _tree: &WorkTree) -> Result<()> {
        Ok(())
    }

    /// As [`UpdateModule::artifact_verify_reboot`]. Default: does nothing.
    fn artifact_verify_reboot(&self, _tree: &WorkTree) -> Result<()> {
        Ok(())
    }

    /// As [`UpdateModule::artifact_commit`]. Default: the new version stays. A commit that is repeated after `Cleanup`
    /// has begun succeeds, too: client 3.4 repeats it after a power loss in `Cleanup`.
    fn artifact_commit(&self, tree: &WorkTree) -> Result<()> {
        let transaction = transaction::<Self>(tree);
        if durable::exists(&ended_by_commit(tree))? && transaction.has_ended()? {
            return Ok(());
        }
        transaction.commit()
    }

    /// As [`UpdateModule::supports_rollback`]. Default: yes.
    fn supports_rollback(&self, _tree: &WorkTree) -> Result<bool> {
        Ok(true)
    }

    /// As [`UpdateModule::artifact_rollback`]. Default: activates the previous version.
    fn artifact_rollback(&self, tree: &WorkTree) -> Result<()> {
        transaction::<Self>(tree).roll_back()
    }

    /// As [`UpdateModule::artifact_rollback_reboot`]. Default: does nothing.
    fn artifact_rollback_reboot(&self, _tree: &WorkTree) -> Result<()> {
        Ok(())
    }

    /// As [`UpdateModule::artifact_verify_rollback_reboot`]. Default: does nothing.
    fn artifact_verify_rollback_reboot(&self, _tree: &WorkTree) -> Result<()> {
        Ok(())
    }

    /// As [`UpdateModule::artifact_failure`]. Default: activates the previous version if a failed rollback has not. The
    /// server has the failure already, so another one is only logged.
    fn artifact_failure(&self, tree: &WorkTree) -> Result<()> {
        if let Err(error) = transaction::<Self>(tree).fail() {
            log!("the previous version is still not active: {error:#}");
        }
        Ok(())
    }

    /// As [`UpdateModule::cleanup`]. Default: ends the transaction. Files that cannot be removed are logged, and the
    /// next update tries again: a failed Cleanup would make the server show a committed update as failed.
    fn cleanup(&self, tree: &WorkTree) -> Result<()> {
        let transaction = transaction::<Self>(tree);
        let left = transaction.left().unwrap_or_else(|error| {
            log!("files of earlier updates are not removed: {error:#}; the next update tries again");
            Vec::new()
        });
        // Without this file, only a repeated commit after a power loss fails.
        let recorded = transaction.is_committed().and_then(|is_committed| match is_committed {
            true => durable::write_file(&ended_by_commit(tree), b""),
            false => Ok(()),
        });
        recorded.unwrap_or_else(|error| log!("a commit that is repeated after a power loss will fail: {error:#}"));
        match transaction.finish() {
            Ok(record) => {
                transaction.retry_left(&left);
                record.iter().for_each(|record| record.update().ended(record.prepared()));
            }
            Err(error) => log!("cleanup failed: {error:#}; the next update tries again"),
        }
        Ok(())
    }

    /// As [`UpdateModule::recover`]. Default: rolls back an interrupted update, then calls [`booted`](Self::booted).
    fn recover(&self, tree: &WorkTree) -> Result<()> {
        // The active version has to start even if an interrupted update cannot be rolled back.
        let recovered = transaction::<Self>(tree).recover();
        let booted = self.booted(tree);
        first_error([recovered, booted])
    }
}

/// The adapter of a [`Transactional`] module to [`UpdateModule`].
///
/// ```no_run
/// # use mender_update_module::{InTransactions, Payloads, Transactional, Trigger, Update, WorkTree};
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct MyUpdate {}
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct Prepared {}
/// # impl Update for MyUpdate {
/// #     type Prepared = Prepared;
/// #     fn prepare(&mut self) -> anyhow::Result<Prepared> { Ok(Prepared {}) }
/// #     fn activate(&self, _: &Prepared) -> anyhow::Result<()> { Ok(()) }
/// #     fn roll_back(&self, _: &Prepared, _: Trigger) -> anyhow::Result<()> { Ok(()) }
/// #     fn discard(&self, _: Option<&Prepared>) -> anyhow::Result<()> { Ok(()) }
/// # }
/// struct MyModule;
///
/// impl Transactional for MyModule {
///     const NAME: &'static str = "my-module";
///     const VERSION: &'static str = env!("CARGO_PKG_VERSION");
///     type Update = MyUpdate;
///
///     fn plan(&self, _tree: &WorkTree, _payloads: &mut Payloads) -> anyhow::Result<MyUpdate> {
///         Ok(MyUpdate {})
///     }
///
///     fn stage(&self, _update: &mut MyUpdate, payloads: &mut Payloads) -> anyhow::Result<()> {
///         payloads.try_for_each(|payload| payload.map(drop))
///     }
/// }
///
/// fn main() -> std::process::ExitCode {
///     mender_update_module::run(InTransactions(MyModule))
/// }
/// ```
pub struct InTransactions<M>(pub M);

impl<M: Transactional> UpdateModule for InTransactions<M> {
    const NAME: &'static str = M::NAME;
    const VERSION: &'static str = M::VERSION;
    const GUARDED: bool = true;

    fn check_settings(&self, file: &Path) -> Result<()> {
        self.0.check_settings(file)
    }

    fn pending(&self, tree: &WorkTree) -> Result<Option<Pending>> {
        transaction::<M>(tree).pending()
    }

    fn provides_payload_file_sizes(&self, tree: &WorkTree) -> Result<bool> {
        self.0.provides_payload_file_sizes(tree)
    }

    fn download(&self, tree: &WorkTree, payloads: Payloads) -> Result<()> {
        self.0.download(tree, payloads)
    }

    fn artifact_install(&self, tree: &WorkTree) -> Result<()> {
        self.0.artifact_install(tree)
    }

    fn needs_artifact_reboot(&self, tree: &WorkTree) -> Result<NeedsReboot> {
        self.0.needs_artifact_reboot(tree)
    }

    fn artifact_reboot(&self, tree: &WorkTree) -> Result<()> {
        self.0.artifact_reboot(tree)
    }

    fn artifact_verify_reboot(&self, tree: &WorkTree) -> Result<()> {
        self.0.artifact_verify_reboot(tree)
    }

    fn artifact_commit(&self, tree: &WorkTree) -> Result<()> {
        self.0.artifact_commit(tree)
    }

    fn supports_rollback(&self, tree: &WorkTree) -> Result<bool> {
        self.0.supports_rollback(tree)
    }

    fn artifact_rollback(&self, tree: &WorkTree) -> Result<()> {
        self.0.artifact_rollback(tree)
    }

    fn artifact_rollback_reboot(&self, tree: &WorkTree) -> Result<()> {
        self.0.artifact_rollback_reboot(tree)
    }

    fn artifact_verify_rollback_reboot(&self, tree: &WorkTree) -> Result<()> {
        self.0.artifact_verify_rollback_reboot(tree)
    }

    fn artifact_failure(&self, tree: &WorkTree) -> Result<()> {
        self.0.artifact_failure(tree)
    }

    fn cleanup(&self, tree: &WorkTree) -> Result<()> {
        self.0.cleanup(tree)
    }

    fn recover(&self, tree: &WorkTree) -> Result<()> {
        self.0.recover(tree)
    }
}

fn transaction<M: Transactional>(tree: &WorkTree) -> Transaction<M::Update> {
    Transaction::new(Journal::new(&tree.state_directory(M::NAME)))
}

/// The file by which a repeated commit knows that the update of `tree` has ended with a commit. The client deletes it
/// with the tree.
fn ended_by_commit(tree: &WorkTree) -> PathBuf {
    tree.tmp().join("ended-by-commit")
}

#[cfg(test)]
mod tests;
