//! Stage, switch, keep, forget: the one way in which a module changes a device.
//!
//! A [`Change`] says what is special to a payload, this file in which order its steps come and what the journal holds
//! meanwhile:
//!
//! | phase in the journal | what is live | `ArtifactInstall` | `ArtifactRollback` | next `Download`, or a boot |
//! |---|---|---|---|---|
//! | none | the old | fails: nothing is staged | nothing to do | |
//! | Staging | the old | fails | nothing to do | Download discards what is staged; a boot tidies what lies outside it |
//! | Staged | the old | switches | nothing to do | Download discards what is staged |
//! | Switching | old, new or between; or the new, on trial | switches back and fails | switches back | switch back |
//! | Switched | the new | nothing to do | switches back | Download switches back; a boot leaves it |
//! | Committed | the new | nothing to do | switches back | Download forgets the old |
//! | RollingBack | old, new or between | fails | switches back | switch back |
//! | RolledBack | the old | fails | asks the health gate again | Download forgets |
//! | Forgetting | as before | fails | nothing to do | Download forgets |

use std::marker::PhantomData;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::change::Change;
use crate::guard::Guard;
use crate::journal::Journal;
use crate::log::say;
use crate::module::UpdateModule;
use crate::payloads::Payloads;
use crate::state::NeedsReboot;
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
        transaction.clear()?;
        let guard = Guard::of(<M as Transactional>::NAME, tree)?;
        let change = self.plan(tree, &mut payloads)?;
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
        match open::<M>(tree).finish() {
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

/// The form of [`Record`]; raised when a record can no longer be read by the version before.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Record<C> {
    format: u32,
    phase: Phase,
    change: C,
    #[serde(default)]
    guard: Guard,
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
    change: PhantomData<C>,
}

impl<C: Change> Transaction<C> {
    /// The transaction that `journal` tells of.
    pub fn new(journal: Journal) -> Self {
        Self { journal, change: PhantomData }
    }

    /// Lets `stage` write `change` to its staging place, between the word that it will be and the word that it is whole
    /// and on the medium. `guard` will go around its switch.
    ///
    /// # Errors
    /// When the journal cannot be written, and those of `stage`.
    pub fn stage(&self, change: C, guard: Guard, stage: impl FnOnce(&mut C) -> Result<()>) -> Result<()> {
        let mut record = Record { format: FORMAT, phase: Phase::Staging, change, guard };
        self.write(&record)?;
        stage(&mut record.change)?;
        self.mark(&mut record, Phase::Staged)
    }

    /// Makes the new live, and makes sure that the device is well with it. When either fails the old is brought back at
    /// once, as far as that goes.
    ///
    /// # Errors
    /// When nothing is staged, the preparation refuses, the switch fails, or the health gate does not open.
    pub fn install(&self) -> Result<()> {
        let Some(mut record) = self.read()? else {
            bail!("nothing is staged: Download comes first");
        };
        match record.phase {
            Phase::Staged => {}
            Phase::Switched | Phase::Committed => return Ok(()),
            Phase::Switching => {
                self.back(&mut record, Around::Guarded)?;
                bail!("this update was cut short, and the old is back: download again");
            }
            Phase::Staging | Phase::RollingBack | Phase::RolledBack | Phase::Forgetting => {
                bail!("this update was cut short or rolled back: download again");
            }
        }
        record.change.prepare()?;
        self.mark(&mut record, Phase::Switching)?;
        self.switch(&mut record).map_err(|error| match self.back(&mut record, Around::Guarded) {
            Ok(()) => error.context("the new could not be made live, and the old is back"),
            Err(second) => error
                .context(format!("neither could the new be made live nor the old brought back ({second:#})")),
        })
    }

    /// The switch with what goes around it. The journal says Switched only after the health gate: an update that loses
    /// power before that has not shown that it works, and the boot brings the old back.
    fn switch(&self, record: &mut Record<C>) -> Result<()> {
        record.guard.before()?;
        record.change.switch()?;
        record.guard.after()?;
        record.guard.gate()?;
        self.mark(record, Phase::Switched)
    }

    /// Whether what the change has made live needs a reboot: the new, or after a rollback the old.
    ///
    /// # Errors
    /// When the journal cannot be read, or the change cannot tell.
    pub fn needs_reboot(&self) -> Result<NeedsReboot> {
        match self.read()? {
            Some(record) if matches!(record.phase, Phase::Switched | Phase::RolledBack) => {
                record.change.needs_reboot()
            }
            _ => Ok(NeedsReboot::No),
        }
    }

    /// Makes the new permanent, and keeps the old until [`finish`](Self::finish) all the same.
    ///
    /// # Errors
    /// When the new is not live.
    pub fn commit(&self) -> Result<()> {
        match self.read()? {
            Some(mut record) if record.phase == Phase::Switched => self.mark(&mut record, Phase::Committed),
            Some(record) if record.phase == Phase::Committed => Ok(()),
            Some(record) => bail!("there is nothing to commit: the update under way is {:?}", record.phase),
            None => bail!("there is nothing to commit: no update is under way"),
        }
    }

    /// Brings the old back, if the new has begun to become live, and reports how the device is with it.
    ///
    /// # Errors
    /// When the old cannot be brought back; it may be tried again.
    pub fn roll_back(&self) -> Result<()> {
        let Some(mut record) = self.read()? else { return Ok(()) };
        match record.phase {
            Phase::Switching | Phase::Switched | Phase::Committed | Phase::RollingBack => {
                self.back(&mut record, Around::Guarded)?;
                record.guard.report();
            }
            Phase::RolledBack => record.guard.report(),
            Phase::Staging | Phase::Staged | Phase::Forgetting => {}
        }
        Ok(())
    }

    /// Ends the transaction: what was cut short is brought back, and what is no longer needed removed. Returns the change
    /// that has ended, if there was one.
    ///
    /// # Errors
    /// When that fails; the next update tries again.
    pub fn finish(&self) -> Result<Option<C>> {
        let Some(mut record) = self.read()? else { return Ok(None) };
        if matches!(record.phase, Phase::Switching | Phase::RollingBack) {
            self.back(&mut record, Around::Guarded)?;
        }
        self.forget(&mut record)?;
        Ok(Some(record.change))
    }

    /// Clears the way for the next transaction: one that was never committed is brought back.
    ///
    /// # Errors
    /// When that fails: the next update must not begin on top of it.
    pub fn clear(&self) -> Result<()> {
        let cleared = || {
            if let Some(mut record) = self.read()?.filter(|record| record.phase == Phase::Switched) {
                say("the update before was neither committed nor rolled back: rolling it back");
                self.back(&mut record, Around::Guarded)?;
            }
            self.finish().map(drop)
        };
        cleared().context("an earlier update was interrupted and could not be brought to its end")
    }

    /// Brings back a change that power cut short, and removes what a download left outside of its staging place; one that
    /// waits for its commit is left alone. At boot, so units are not touched: systemd starts them later, and would wait for
    /// this call to end.
    ///
    /// # Errors
    /// When that fails; it may be tried again.
    pub fn recover(&self) -> Result<()> {
        match self.read()? {
            Some(mut record) if matches!(record.phase, Phase::Switching | Phase::RollingBack) => {
                say("an update was cut short: bringing the old back");
                self.back(&mut record, Around::Bare)
            }
            Some(record) if record.phase == Phase::Staging => record.change.tidy_cut_download(),
            _ => Ok(()),
        }
    }

    fn back(&self, record: &mut Record<C>, around: Around) -> Result<()> {
        // Neither a journal on a full disk nor a unit that does not stop must keep the old away: the phase before
        // starts this again just as well, and the server shows what was said.
        let guarded = |done: Result<()>, what: &str| {
            if let Err(error) = done {
                say(format_args!("rolling back all the same: {what}: {error:#}"));
            }
        };
        guarded(self.mark(record, Phase::RollingBack), "the journal");
        if around == Around::Guarded {
            guarded(record.guard.before(), "before it");
        }
        let switched_back = match around {
            Around::Guarded => record.change.switch_back(),
            Around::Bare => record.change.switch_back_at_boot(),
        };
        switched_back.context("bringing the old back")?;
        guarded(self.mark(record, Phase::RolledBack), "the journal");
        if around == Around::Guarded {
            guarded(record.guard.after(), "after it");
        }
        Ok(())
    }

    fn forget(&self, record: &mut Record<C>) -> Result<()> {
        // First the word that there is no way back, then the removal of it.
        self.mark(record, Phase::Forgetting)?;
        record.change.forget()?;
        self.journal.remove()
    }

    fn read(&self) -> Result<Option<Record<C>>> {
        let record = self.journal.read::<Record<C>>()?;
        if let Some(Record { format, .. }) = record.as_ref().filter(|record| record.format != FORMAT) {
            bail!(
                "the journal has form {format}, this version of the module knows {FORMAT}: \
                 end the interrupted update with the version that began it"
            );
        }
        Ok(record)
    }

    fn mark(&self, record: &mut Record<C>, phase: Phase) -> Result<()> {
        record.phase = phase;
        self.write(record)
    }

    fn write(&self, record: &Record<C>) -> Result<()> {
        self.journal.write(record)
    }
}

/// Whether units are stopped and started around a way back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Around {
    Guarded,
    Bare,
}
