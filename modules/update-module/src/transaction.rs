//! Stage, switch, keep, forget: the one way in which a module changes a device.
//!
//! A [`Change`] says what is special to a payload, this file in which order its steps come and what the journal holds
//! meanwhile:
//!
//! | phase in the journal | what is live | `ArtifactInstall` | `ArtifactRollback` | next `Download`, or a boot |
//! |---|---|---|---|---|
//! | none | the old | fails: nothing is staged | nothing to do | |
//! | Staging, Staged | the old | switches (if Staged) | nothing to do | discards what is staged |
//! | Switching | old, new or between | switches back and fails | switches back | switch back |
//! | Switched | the new | nothing to do | switches back | Download switches back; a boot leaves it |
//! | Committed | the new | nothing to do | switches back | Download forgets the old |
//! | RollingBack | old, new or between | fails | switches back | switch back |
//! | RolledBack | the old | fails | nothing to do | Download forgets |
//! | Forgetting | as before | fails | nothing to do | Download forgets |

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::journal::Journal;
use crate::log::say;
use crate::module::UpdateModule;
use crate::payloads::Payloads;
use crate::tree::WorkTree;

/// What is special to a payload: everything a change needs to know of itself is in its record, because the process
/// that goes on after a power cut has nothing else.
pub trait Change: Serialize + DeserializeOwned {
    /// Completes the record with what the switch will do, and refuses what it could not do. Touches nothing live.
    ///
    /// # Errors
    /// Fail the install before anything is touched.
    fn prepare(&mut self) -> Result<()>;

    /// Makes the new live and keeps the old, durably. Called once: a switch that was cut is switched back.
    ///
    /// # Errors
    /// Are followed by [`switch_back`](Self::switch_back).
    fn switch(&self) -> Result<()>;

    /// Makes the old live, durably, from any prefix of [`switch`](Self::switch) or of itself.
    ///
    /// # Errors
    /// Fail the rollback; it may be tried again.
    fn switch_back(&self) -> Result<()>;

    /// Removes what is staged or kept; called again, it goes on from wherever it was cut.
    ///
    /// # Errors
    /// Leave the rest for the next update to remove.
    fn forget(&self) -> Result<()>;
}

/// A module whose changes are transactions. It is an [`UpdateModule`] that supports rollback, streams, and recovers.
pub trait Transactional {
    /// As [`UpdateModule::NAME`].
    const NAME: &'static str;

    /// What it changes.
    type Change: Change;

    /// Decides where the change will be staged. Touches nothing: what it returns is in the journal before it is begun.
    ///
    /// # Errors
    /// Fail the download.
    fn plan(&self, tree: &WorkTree) -> Result<Self::Change>;

    /// Writes the payload to its staging place, durably.
    ///
    /// # Errors
    /// Fail the download.
    fn stage(&self, change: &mut Self::Change, payloads: Payloads) -> Result<()>;
}

impl<M: Transactional> UpdateModule for M {
    const NAME: &'static str = <M as Transactional>::NAME;

    fn provides_payload_file_sizes(&self, _tree: &WorkTree) -> Result<bool> {
        Ok(true)
    }

    fn download(&self, tree: &WorkTree, payloads: Payloads) -> Result<()> {
        let transaction = open::<M>(tree);
        transaction.clear()?;
        let mut change = self.plan(tree)?;
        transaction.begin(&change)?;
        self.stage(&mut change, payloads)?;
        transaction.staged(&change)
    }

    fn artifact_install(&self, tree: &WorkTree) -> Result<()> {
        open::<M>(tree).install()
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
        if let Err(error) = open::<M>(tree).finish() {
            say(format_args!(
                "{}: left for the next update to clean up: {error:#}",
                <M as Transactional>::NAME
            ));
        }
        Ok(())
    }

    fn recover(&self, tree: &WorkTree) -> Result<()> {
        open::<M>(tree).recover()
    }
}

fn open<M: Transactional>(tree: &WorkTree) -> Transaction<M::Change> {
    Transaction::new(Journal::new(&tree.state_folder(<M as Transactional>::NAME)))
}

/// The form of [`Record`]; raised when a record can no longer be read by the version before.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Record<C> {
    format: u32,
    phase: Phase,
    change: C,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    Staging,
    Staged,
    Switching,
    Switched,
    Committed,
    RollingBack,
    RolledBack,
    Forgetting,
}

/// A change and how far it has come, in the journal.
pub struct Transaction<C> {
    journal: Journal,
    change: std::marker::PhantomData<C>,
}

impl<C: Change> Transaction<C> {
    /// The transaction that `journal` tells of.
    pub fn new(journal: Journal) -> Self {
        Self { journal, change: std::marker::PhantomData }
    }

    /// Writes down that `change` will be staged, before anything of it is.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn begin(&self, change: &C) -> Result<()> {
        self.record(Phase::Staging, change)
    }

    /// Writes down that `change` is staged, whole and on the medium.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn staged(&self, change: &C) -> Result<()> {
        self.record(Phase::Staged, change)
    }

    /// Makes the new live. When the switch fails the old is brought back at once, as far as that goes.
    ///
    /// # Errors
    /// When nothing is staged, the preparation refuses, or the switch fails.
    pub fn install(&self) -> Result<()> {
        let Some((phase, mut change)) = self.read()? else {
            bail!("nothing is staged: Download comes first");
        };
        match phase {
            Phase::Staged => {}
            Phase::Switched | Phase::Committed => return Ok(()),
            Phase::Switching => {
                self.back(&change)?;
                bail!("this update was cut short, and the old is back: download again");
            }
            Phase::Staging | Phase::RollingBack | Phase::RolledBack | Phase::Forgetting => {
                bail!("this update was cut short or rolled back: download again");
            }
        }
        change.prepare()?;
        self.record(Phase::Switching, &change)?;
        change.switch().and_then(|()| self.record(Phase::Switched, &change)).map_err(|error| {
            match self.back(&change) {
                Ok(()) => error.context("the new could not be made live, and the old is back"),
                Err(second) => error.context(format!(
                    "neither could the new be made live nor the old brought back ({second:#})"
                )),
            }
        })
    }

    /// Makes the new permanent, and keeps the old until [`finish`](Self::finish) all the same.
    ///
    /// # Errors
    /// When the new is not live.
    pub fn commit(&self) -> Result<()> {
        match self.read()? {
            Some((Phase::Switched, change)) => self.record(Phase::Committed, &change),
            Some((Phase::Committed, _)) => Ok(()),
            other => bail!("there is nothing to commit: {}", describe(other.map(|(phase, _)| phase))),
        }
    }

    /// Brings the old back, if the new has begun to become live.
    ///
    /// # Errors
    /// When that fails; it may be tried again.
    pub fn roll_back(&self) -> Result<()> {
        match self.read()? {
            Some((Phase::Switching | Phase::Switched | Phase::Committed | Phase::RollingBack, change)) => {
                self.back(&change)
            }
            _ => Ok(()),
        }
    }

    /// Ends the transaction: what was cut short is brought back, and what is no longer needed removed.
    ///
    /// # Errors
    /// When that fails; the next update tries again.
    pub fn finish(&self) -> Result<()> {
        let Some((phase, change)) = self.read()? else { return Ok(()) };
        if matches!(phase, Phase::Switching | Phase::RollingBack) {
            self.back(&change)?;
        }
        self.forget(&change)
    }

    /// Clears the way for the next transaction: one that was never committed is brought back.
    ///
    /// # Errors
    /// When that fails: the next update must not begin on top of it.
    pub fn clear(&self) -> Result<()> {
        let cleared = || {
            if let Some((Phase::Switched, change)) = self.read()? {
                say("the update before was neither committed nor rolled back: rolling it back");
                self.back(&change)?;
            }
            self.finish()
        };
        cleared().context("an earlier update was interrupted and could not be brought to its end")
    }

    /// Brings back a change that power cut short; one that waits for its commit is left alone.
    ///
    /// # Errors
    /// When that fails; it may be tried again.
    pub fn recover(&self) -> Result<()> {
        match self.read()? {
            Some((Phase::Switching | Phase::RollingBack, change)) => {
                say("an update was cut short: bringing the old back");
                self.back(&change)
            }
            _ => Ok(()),
        }
    }

    fn back(&self, change: &C) -> Result<()> {
        // A journal on a full disk must not stop a rollback, which the phase before starts again just as well.
        let journal = |phase| {
            if let Err(error) = self.record(phase, change) {
                say(format_args!("rolling back without a word in the journal: {error:#}"));
            }
        };
        journal(Phase::RollingBack);
        change.switch_back().context("bringing the old back")?;
        journal(Phase::RolledBack);
        Ok(())
    }

    fn forget(&self, change: &C) -> Result<()> {
        // First the word that there is no way back, then the removal of it.
        self.record(Phase::Forgetting, change)?;
        change.forget()?;
        self.journal.remove()
    }

    fn read(&self) -> Result<Option<(Phase, C)>> {
        let Some(record) = self.journal.read::<Record<C>>()? else { return Ok(None) };
        if record.format != FORMAT {
            bail!(
                "the journal has form {}, this version of the module knows {FORMAT}: \
                 end the interrupted update with the version that began it",
                record.format
            );
        }
        Ok(Some((record.phase, record.change)))
    }

    fn record(&self, phase: Phase, change: &C) -> Result<()> {
        self.journal.write(&Record { format: FORMAT, phase, change })
    }
}

fn describe(phase: Option<Phase>) -> String {
    phase.map_or("no update is under way".to_owned(), |phase| format!("the update under way is {phase:?}"))
}
