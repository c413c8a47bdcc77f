//! The transaction: stage, activate, roll back, discard.
//!
//! An [`Update`] implements the steps; this file defines their order and the journal between them. The crate's
//! documentation has the table of phases. Builds before the first release had one more, Discarding: ArtifactInstall
//! fails, there is nothing to roll back, and the next Download discards.
//!
//! The record of an ended transaction is renamed, which needs no space on a full file system:
//!
//! | name | meaning | next `Download`, or a boot |
//! |---|---|---|
//! | `discard.json` | staged and kept files are being removed | continues |
//! | `left-N.json` | some files could not be removed | tries again; a failure blocks nothing |
//! | `late-N.json` | the same, and a later update was staged since | removes files, restores nothing |
//! | `unrestored-N.json` | the previous version could not be restored | tries again; a failure blocks updates of the same destination |

use std::marker::PhantomData;

use anyhow::{Context, Result, bail};

use crate::deployment_log::first_error;
use crate::guard::Guard;
use crate::journal::{Journal, UNRESTORED};
use crate::log;
use crate::name::FileName;
use crate::record::{self, Phase, RecordOf, tolerate};
use crate::set_aside::{self, LATE, LEFT, Unrestored};
use crate::state::NeedsReboot;
use crate::status::Pending;
use crate::update::{Trigger, Update};

/// The name of the record of an ended transaction, while its files are removed.
fn discard_name() -> Result<FileName> {
    FileName::new("discard.json")
}

/// A transaction, as it is stored in the journal.
pub struct Transaction<U> {
    journal: Journal,
    update: PhantomData<U>,
}

impl<U: Update> Transaction<U> {
    /// The transaction in `journal`.
    pub fn new(journal: Journal) -> Self {
        Self { journal, update: PhantomData }
    }

    /// Stages `update`: writes the journal, calls `stage`, which writes the payload durably, and writes the journal
    /// again. `guard` has the units and the health check of the activation.
    pub fn stage(&self, update: U, guard: Guard, stage: impl FnOnce(&mut U) -> Result<()>) -> Result<()> {
        let mut record = RecordOf::<U>::new(update, guard);
        self.write(&record)?;
        let staged = record
            .update_mut()
            .make_staging()
            .and_then(|()| self.write(&record))
            .and_then(|()| stage(record.update_mut()))
            .and_then(|()| self.mark(&mut record, Phase::Staged));
        if staged.is_err() {
            // Free the space now, and not at the next update.
            if let Err(error) = self.discard() {
                log!("discarding the failed download failed: {error:#}; the next update tries again");
            }
            return staged;
        }
        for left in self.journal.set_aside_before(LEFT)? {
            self.journal.set_aside(Some(&left), LATE)?;
        }
        Ok(())
    }

    /// Activates the new version, and waits until the health check passes. If either fails, it rolls back at once.
    ///
    /// # Errors
    /// When nothing is staged, or the preparation, the activation or the health check fails.
    pub fn install(&self) -> Result<()> {
        let Some(mut record) = self.read()? else {
            bail!("nothing is staged: install the artifact again");
        };
        match record.phase {
            Phase::Staged => {}
            Phase::Active | Phase::Committed => return Ok(()),
            Phase::Activating => {
                self.restore_previous(&mut record, Trigger::Call)?;
                bail!("the update was interrupted, and is now rolled back: install the artifact again");
            }
            Phase::Staging | Phase::RollingBack | Phase::RolledBack | Phase::Discarding => {
                bail!("the update was interrupted or rolled back: install the artifact again");
            }
        }
        record.prepare()?;
        self.mark(&mut record, Phase::Activating)?;
        self.activate(&mut record).map_err(|error| match self.restore_previous(&mut record, Trigger::Call) {
            Ok(()) => error.context("install failed; rolled back to the previous version"),
            Err(second) => error.context(format!("install failed; the rollback failed too: {second:#}")),
        })
    }

    /// The activation with units and health check. The phase becomes Active only after the health check: an update
    /// that loses power before has not shown that it works, and the recovery at boot rolls it back.
    fn activate(&self, record: &mut RecordOf<U>) -> Result<()> {
        record.guard.before()?;
        let (update, prepared) = record.ready_mut()?;
        if update.make_destination(prepared)? {
            self.write(record)?;
        }
        let (update, prepared) = record.ready()?;
        update.activate(prepared)?;
        record.guard.after().collect::<Result<()>>()?;
        record.guard.check_health()?;
        self.mark(record, Phase::Active)
    }

    /// The pending update, for `--status`.
    pub fn pending(&self) -> Result<Option<Pending>> {
        let pending = |record: RecordOf<U>| Pending::new(record.phase, record.update().kept_in());
        Ok(self.read()?.map(pending))
    }

    /// Whether no update is pending, or only its files have still to be removed.
    pub fn has_ended(&self) -> Result<bool> {
        Ok(self.read()?.is_none_or(|record| record.phase == Phase::Discarding))
    }

    /// Whether the pending update is committed.
    pub fn is_committed(&self) -> Result<bool> {
        Ok(self.read()?.is_some_and(|record| record.phase == Phase::Committed))
    }

    /// Whether the active version needs a reboot: the new one, or after a rollback the previous one.
    pub fn needs_reboot(&self) -> Result<NeedsReboot> {
        match self.read()? {
            Some(record) if matches!(record.phase, Phase::Active | Phase::RolledBack) => {
                let (update, prepared) = record.ready()?;
                update.needs_reboot(prepared)
            }
            _ => Ok(NeedsReboot::No),
        }
    }

    /// Makes the new version permanent. The previous one is kept until [`finish`](Self::finish).
    ///
    /// # Errors
    /// When the new version is not active.
    pub fn commit(&self) -> Result<()> {
        match self.read()? {
            Some(mut record) if record.phase == Phase::Active => self.mark(&mut record, Phase::Committed),
            Some(record) if record.phase == Phase::Committed => Ok(()),
            Some(record) => bail!("nothing to commit: the pending update is in the phase {:?}", record.phase),
            None => bail!("nothing to commit: no update is pending"),
        }
    }

    /// Activates the previous version, if the activation of the new one has begun, and logs the result of the health
    /// check.
    pub fn roll_back(&self) -> Result<()> {
        let Some(mut record) = self.read()? else { return Ok(()) };
        match record.phase {
            Phase::Activating | Phase::Active | Phase::Committed | Phase::RollingBack => {
                self.restore_previous(&mut record, Trigger::Call)?;
                record.guard.report();
            }
            Phase::RolledBack => record.guard.report(),
            Phase::Staging | Phase::Staged | Phase::Discarding => {}
        }
        Ok(())
    }

    /// Activates the previous version if the rollback of a failed update has not, for example because no file could be
    /// written: [`finish`](Self::finish) would take a committed update for a successful one.
    pub fn fail(&self) -> Result<()> {
        let Some(mut record) = self.read()? else { return Ok(()) };
        let restored = match record.phase {
            Phase::Activating | Phase::Active | Phase::Committed | Phase::RollingBack => {
                self.restore_previous(&mut record, Trigger::Call)
            }
            Phase::Staging | Phase::Staged | Phase::RolledBack | Phase::Discarding => Ok(()),
        };
        if restored.is_err() && self.read()?.is_some_and(|record| record.phase == Phase::Committed) {
            // The journal cannot say that the rollback has begun, but a rename needs no space.
            self.journal.set_aside(None, UNRESTORED)?;
        }
        restored
    }

    /// Ends the transaction: rolls back one that was interrupted or never committed, and removes staged and kept files.
    /// Returns its record, if there is one.
    pub fn finish(&self) -> Result<Option<RecordOf<U>>> {
        let Some(mut record) = self.read()? else { return self.finish_discard() };
        if matches!(record.phase, Phase::Activating | Phase::Active | Phase::RollingBack) {
            self.restore_previous(&mut record, Trigger::Call)?;
        }
        self.discard()
    }

    /// Ends the previous transaction before the next one begins: rolls back one that was not committed. Returns those
    /// that cannot be rolled back.
    pub fn clear(&self) -> Result<Vec<Unrestored<U>>> {
        let before = self.left()?;
        self.finish_discard()?;
        self.end_current()?;
        let mut failed = self.left()?;
        failed.retain(|left| !before.contains(left));
        let unrestored = set_aside::retry_unrestored(&self.journal, Trigger::Call)?;
        if unrestored.is_empty() {
            let (failed, earlier): (Vec<_>, Vec<_>) = self.left()?.into_iter().partition(|left| failed.contains(left));
            self.retry_left(&earlier);
            set_aside::retry_failed::<U>(&self.journal, &failed);
        }
        Ok(unrestored)
    }

    /// Ends the current transaction, or sets its record aside.
    fn end_current(&self) -> Result<()> {
        // A journal that cannot be read blocks all updates, because its destination is not known.
        let Some(mut record) = self.read().context("ending an earlier update failed")? else { return Ok(()) };
        let is_restored = match record.phase {
            Phase::Active => {
                log!("previous update neither committed nor rolled back: rolling back");
                self.restore_previous(&mut record, Trigger::Call)
            }
            Phase::Activating | Phase::RollingBack => self.restore_previous(&mut record, Trigger::Call),
            // The version that is active stays: a rollback would undo a committed update.
            Phase::Staging | Phase::Staged | Phase::Committed | Phase::RolledBack | Phase::Discarding => Ok(()),
        };
        let (ended, kind) = match is_restored {
            Ok(()) => (self.discard().map(drop), LEFT),
            Err(error) => (Err(error), UNRESTORED),
        };
        if let Err(error) = ended {
            if self.read()?.is_none() {
                return Err(error); // it has ended, and the next call goes on with its files
            }
            let record = self.journal.set_aside(None, kind)?;
            log!("ending an earlier update failed: {error:#}; its record is {}", record.display());
        }
        Ok(())
    }

    /// The recovery at boot: rolls back an update that a power loss interrupted, and discards an interrupted
    /// download, which no client resumes. An update that waits for its commit is not changed. Units are not stopped
    /// or started: systemd starts them later, and waits for this call.
    pub fn recover(&self) -> Result<()> {
        // The current update is rolled back even if the record of an earlier one cannot be read.
        let earlier = self.recover_earlier();
        first_error([self.recover_current(), earlier])
    }

    fn recover_earlier(&self) -> Result<()> {
        let unrestored = set_aside::retry_unrestored::<U>(&self.journal, Trigger::Boot)?;
        if unrestored.is_empty() && matches!(self.read(), Ok(None)) {
            set_aside::retry::<U>(&self.journal, &self.left()?, U::discard_at_boot);
        }
        Ok(())
    }

    fn recover_current(&self) -> Result<()> {
        if let Some(record) = self.read_ended()? {
            if record.update().discard_at_boot()? {
                self.finish_discard()?;
            }
        }
        match self.read()? {
            Some(mut record) if matches!(record.phase, Phase::Activating | Phase::RollingBack) => {
                log!("update interrupted: rolling back to the previous version");
                self.restore_previous(&mut record, Trigger::Boot)
            }
            Some(record) if record.phase == Phase::Staging => {
                if record.update().discard_at_boot()? {
                    self.discard()?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Rolls `record` back.
    fn restore_previous(&self, record: &mut RecordOf<U>, trigger: Trigger) -> Result<()> {
        // A full disk must not prevent the rollback. After a power loss the earlier phase in the journal leads to the
        // same rollback again, except for a committed update, which only the client rolls back.
        tolerate(self.mark(record, Phase::RollingBack), "writing the journal");
        record.stop_units(trigger);
        let restored = record.roll_back(trigger).context("rollback failed");
        if restored.is_ok() {
            tolerate(self.mark(record, Phase::RolledBack), "writing the journal");
        }
        // Also after a failure: the units run what is there, and no other call may come that starts them.
        record.start_units(trigger);
        restored
    }

    /// Marks the transaction as ended, and then removes its files: from then on, no rollback is possible.
    fn discard(&self) -> Result<Option<RecordOf<U>>> {
        self.journal.retire(&discard_name()?)?;
        self.finish_discard()
    }

    /// Removes the files of an ended transaction. Files that cannot be removed are logged, and block nothing.
    fn finish_discard(&self) -> Result<Option<RecordOf<U>>> {
        let name = discard_name()?;
        let Some(record) = self.read_ended()? else { return Ok(None) };
        match record.update().discard(record.prepared()) {
            Ok(()) => self.journal.remove_record(&name)?,
            Err(error) => {
                let kept = self.journal.set_aside(Some(&name), LEFT)?;
                log!("cleanup incomplete: {error:#}; the next update tries again; the record is {}", kept.display());
            }
        }
        Ok(Some(record))
    }

    fn read_ended(&self) -> Result<Option<RecordOf<U>>> {
        record::decoded::<U>(self.journal.read_record(&discard_name()?)?)
    }

    /// The records of ended transactions whose files could not be removed.
    pub fn left(&self) -> Result<Vec<FileName>> {
        set_aside::left(&self.journal)
    }

    /// Tries again to remove the files of the ended transactions `left`, unless the rollback of an update has failed.
    /// Failures are logged. Call it while no update is pending. The reason of both: these updates may have the same
    /// staging directory, with their previous version.
    pub fn retry_left(&self, left: &[FileName]) {
        if self.journal.unrestored().is_ok_and(|unrestored| unrestored.is_empty()) {
            set_aside::retry::<U>(&self.journal, left, |_| Ok(true));
        }
    }

    fn read(&self) -> Result<Option<RecordOf<U>>> {
        record::decoded::<U>(self.journal.read()?)
    }

    fn mark(&self, record: &mut RecordOf<U>, phase: Phase) -> Result<()> {
        record.phase = phase;
        self.write(record)
    }

    fn write(&self, record: &RecordOf<U>) -> Result<()> {
        self.journal.write(record)
    }
}

#[cfg(test)]
mod tests;
