//! A module whose changes are transactions, as an [`UpdateModule`].

use anyhow::Result;

use crate::change::Change;
use crate::guard::Guard;
use crate::journal::Journal;
use crate::log::say;
use crate::module::UpdateModule;
use crate::payloads::Payloads;
use crate::state::NeedsReboot;
use crate::transaction::Transaction;
use crate::tree::WorkTree;

/// A module whose changes are transactions. It is an [`UpdateModule`] that supports rollback, streams, and recovers.
pub trait Transactional {
    /// As [`UpdateModule::NAME`].
    const NAME: &'static str;

    /// What it changes.
    type Change: Change;

    /// Decides where the change will be staged, if need be after reading the first of `payloads`. Touches nothing: what
    /// it returns is in the journal before it is begun.
    ///
    /// # Errors
    /// Fail the download.
    fn plan(&self, tree: &WorkTree, payloads: &mut Payloads) -> Result<Self::Change>;

    /// Writes the payload to its staging place, durably.
    ///
    /// # Errors
    /// Fail the download.
    fn stage(&self, change: &mut Self::Change, payloads: &mut Payloads) -> Result<()>;

    /// Called at every boot when recovery has decided what is live, before anything else is served: for a module that
    /// starts it. Must not wait for what systemd starts, which waits for this call. Default: does nothing.
    ///
    /// # Errors
    /// Fail the boot's recovery.
    fn booted(&self, _tree: &WorkTree) -> Result<()> {
        Ok(())
    }
}

impl<M: Transactional> UpdateModule for M {
    const NAME: &'static str = <M as Transactional>::NAME;

    fn provides_payload_file_sizes(&self, _tree: &WorkTree) -> Result<bool> {
        Ok(true)
    }

    fn download(&self, tree: &WorkTree, mut payloads: Payloads) -> Result<()> {
        let transaction = open::<M>(tree);
        let unrestored = transaction.clear()?;
        let guard = Guard::of(<M as Transactional>::NAME, tree)?;
        let change = self.plan(tree, &mut payloads)?;
        unrestored.into_iter().try_for_each(|other| other.refuse(&change))?;
        transaction.stage(change, guard, |change| self.stage(change, &mut payloads))
    }

    fn artifact_install(&self, tree: &WorkTree) -> Result<()> {
        open::<M>(tree).install()
    }

    fn needs_artifact_reboot(&self, tree: &WorkTree) -> Result<NeedsReboot> {
        open::<M>(tree).needs_reboot()
    }

    fn artifact_commit(&self, tree: &WorkTree) -> Result<()> {
        open::<M>(tree).commit()
    }

    fn supports_rollback(&self, _tree: &WorkTree) -> Result<bool> {
        Ok(true)
    }

    fn artifact_rollback(&self, tree: &WorkTree) -> Result<()> {
        open::<M>(tree).roll_back()
    }

    fn cleanup(&self, tree: &WorkTree) -> Result<()> {
        // A failed Cleanup makes the server show a committed update as failed; the next Download tries again.
        let transaction = open::<M>(tree);
        transaction.retry_left();
        match transaction.finish() {
            Ok(change) => change.iter().for_each(Change::ended),
            Err(error) => say(format_args!(
                "{}: left for the next update to clean up: {error:#}",
                <M as Transactional>::NAME
            )),
        }
        Ok(())
    }

    fn recover(&self, tree: &WorkTree) -> Result<()> {
        // What is live has to be started even where an interrupted update cannot be brought back.
        let recovered = open::<M>(tree).recover();
        let booted = self.booted(tree);
        recovered.and(booted)
    }
}

fn open<M: Transactional>(tree: &WorkTree) -> Transaction<M::Change> {
    Transaction::new(Journal::new(&tree.state_folder(<M as Transactional>::NAME)))
}
