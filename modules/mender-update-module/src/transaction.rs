//! Stage, activate, roll back, discard: the one way in which a module changes a device.
//!
//! An [`Update`] says what is special to a payload, this file in which order its steps come and what the journal holds
//! meanwhile. The crate's documentation has the table of phases; version 0.1.0 had one more, Discarding: ArtifactInstall fails,
//! there is nothing to roll back, and the next Download discards.
//!
//! A record of a transaction that has ended gets another name, which takes no space on a full file system:
//!
//! | name | meaning | next `Download`, or a boot |
//! |---|---|---|
//! | `discard.json` | what is staged or kept is removed | goes on with that |
//! | `left-N.json` | something of it could not be removed | tries again; in vain, that blocks nothing |
//! | `unrestored-N.json` | the previous version could not be restored | tries again; in vain, no update of the same destination begins |

use std::marker::PhantomData;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::guard::Guard;
use crate::journal::{Journal, Text, UNRESTORED};
use crate::log;
use crate::name::FileName;
use crate::record::{Phase, RecordOf};
use crate::state::NeedsReboot;
use crate::update::{Trigger, Update};

/// A transaction whose previous version could not be restored.
pub struct Unrestored<U> {
    update: U,
    record: PathBuf,
    error: anyhow::Error,
}

impl<U: Update> Unrestored<U> {
    /// Refuses `update` where it has the same destination.
    ///
    /// # Errors
    /// Why the other could not be rolled back, and what to do.
    pub fn refuse(self, update: &U) -> Result<()> {
        if !update.conflicts_with(&self.update) {
            return Ok(());
        }
        let record = self.record.display();
        let by_hand = match self.update.kept_in() {
            Some(kept) => format!("what you need from {0}, then remove {0} and {record}", kept.display()),
            None => format!("what you need, then remove {record}"),
        };
        Err(self.error.context(format!(
            "rollback of the update before failed, and blocks others of the same destination: remove the cause and install \
             again, or restore by hand {by_hand}"
        )))
    }
}

/// The name of the record of a transaction that has ended, while what it has staged or kept is removed.
fn discard_name() -> Result<FileName> {
    FileName::new("discard.json")
}

/// What the names of records begin with whose updates have left something.
const LEFT: &str = "left";

/// An update and how far it has come, in the journal.
pub struct Transaction<U> {
    journal: Journal,
    update: PhantomData<U>,
}

impl<U: Update> Transaction<U> {
    /// The transaction in `journal`.
    pub fn new(journal: Journal) -> Self {
        Self { journal, update: PhantomData }
    }

    /// Lets `stage` write the payload of `update` to its staging directory. The journal says before that it will, and after
    /// that all of it is there, durable. `guard` goes around the activation.
    ///
    /// # Errors
    /// When the journal cannot be written, and those of `stage`.
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
            // Its space is needed now, and not at the next update.
            if let Err(error) = self.discard() {
                log!("discarding the failed download: {error:#}: the next update tries again");
            }
        }
        staged
    }

    /// Activates the new version and waits for the health check to pass. When either fails, rolls back at once.
    ///
    /// # Errors
    /// When nothing is staged, the preparation refuses, or the activation or the health check fails.
    pub fn install(&self) -> Result<()> {
        let Some(mut record) = self.read()? else {
            bail!("nothing is staged: Download has to succeed first");
        };
        match record.phase {
            Phase::Staged => {}
            Phase::Active | Phase::Committed => return Ok(()),
            Phase::Activating => {
                self.restore_previous(&mut record, Trigger::Call)?;
                bail!("this update was interrupted and is rolled back: install the artifact again");
            }
            Phase::Staging | Phase::RollingBack | Phase::RolledBack | Phase::Discarding => {
                bail!("this update was interrupted or rolled back: install the artifact again");
            }
        }
        record.prepare()?;
        self.mark(&mut record, Phase::Activating)?;
        self.activate(&mut record).map_err(|error| match self.restore_previous(&mut record, Trigger::Call) {
            Ok(()) => error.context("install failed; rolled back to the previous version"),
            Err(second) => error.context(format!("install failed, and the rollback too ({second:#})")),
        })
    }

    /// The activation with what goes around it. The journal says Active only after the health check: an update that loses
    /// power before that has not shown that it works, and the boot rolls it back.
    fn activate(&self, record: &mut RecordOf<U>) -> Result<()> {
        record.guard.before()?;
        let (update, prepared) = record.ready_mut()?;
        if update.make_destination(prepared)? {
            self.write(record)?;
        }
        let (update, prepared) = record.ready()?;
        update.activate(prepared)?;
        record.guard.after()?;
        record.guard.check_health()?;
        self.mark(record, Phase::Active)
    }

    /// Whether the active version needs a reboot: the new one, or after a rollback the previous one.
    ///
    /// # Errors
    /// When the journal cannot be read, or the update cannot tell.
    pub fn needs_reboot(&self) -> Result<NeedsReboot> {
        match self.read()? {
            Some(record) if matches!(record.phase, Phase::Active | Phase::RolledBack) => {
                let (update, prepared) = record.ready()?;
                update.needs_reboot(prepared)
            }
            _ => Ok(NeedsReboot::No),
        }
    }

    /// Makes the new version permanent. The previous one is kept until [`finish`](Self::finish) all the same.
    ///
    /// # Errors
    /// When the new version is not active.
    pub fn commit(&self) -> Result<()> {
        match self.read()? {
            Some(mut record) if record.phase == Phase::Active => self.mark(&mut record, Phase::Committed),
            Some(record) if record.phase == Phase::Committed => Ok(()),
            Some(record) => bail!("nothing to commit: the update under way is in phase {:?}", record.phase),
            None => bail!("nothing to commit: no update is under way"),
        }
    }

    /// Activates the previous version, if the activation of the new one has begun, and reports the health check.
    ///
    /// # Errors
    /// When that fails; it may be tried again.
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

    /// Ends the transaction: what was interrupted is rolled back, and what is no longer needed removed. Returns the record
    /// that has ended, if there was one.
    ///
    /// # Errors
    /// When that fails; the next update tries again.
    pub fn finish(&self) -> Result<Option<RecordOf<U>>> {
        let Some(mut record) = self.read()? else { return self.finish_discard() };
        if matches!(record.phase, Phase::Activating | Phase::RollingBack) {
            self.restore_previous(&mut record, Trigger::Call)?;
        }
        self.discard()
    }

    /// Ends the transaction before, so that the next one can begin: one that was never committed is rolled back. Returns those
    /// that cannot be.
    ///
    /// # Errors
    /// When the journal cannot be read or changed.
    pub fn clear(&self) -> Result<Vec<Unrestored<U>>> {
        self.retry_left();
        self.finish_discard()?;
        let cleared = || {
            if let Some(mut record) = self.read()?.filter(|record| record.phase == Phase::Active) {
                log!("the update before was neither committed nor rolled back: rolling it back");
                self.restore_previous(&mut record, Trigger::Call)?;
            }
            self.finish().map(drop)
        };
        // A journal that cannot be read says nothing of its destination, and blocks.
        if self.read().context("an earlier update was interrupted")?.is_some() {
            if let Err(error) = cleared() {
                let record = self.journal.set_aside(None, UNRESTORED)?;
                log!(
                    "rollback of an earlier update failed: {error:#}: its record is kept in {}",
                    record.display()
                );
            }
        }
        self.retry_unrestored(Trigger::Call)
    }

    /// Rolls back an update that a power loss interrupted, and discards an interrupted download, which no client resumes; one
    /// that waits for its commit is left alone. At boot, so units are not touched: systemd starts them later, and would wait
    /// for this call to end.
    ///
    /// # Errors
    /// When that fails; it may be tried again.
    pub fn recover(&self) -> Result<()> {
        self.retry_left_where(U::discard_at_boot);
        if let Some(record) = self.read_ended()? {
            if record.update().discard_at_boot()? {
                self.finish_discard()?;
            }
        }
        self.retry_unrestored(Trigger::Boot)?;
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

    /// Rolls `record` back. At boot, units are not touched: systemd starts them later.
    fn restore_previous(&self, record: &mut RecordOf<U>, trigger: Trigger) -> Result<()> {
        // Neither a journal on a full disk nor a unit that does not stop may prevent the rollback: the phase before starts it
        // again just as well, and the server shows what was logged.
        let guarded = |done: Result<()>, what: &str| {
            if let Err(error) = done {
                log!("rollback continues despite an error: {what}: {error:#}");
            }
        };
        guarded(self.mark(record, Phase::RollingBack), "writing the journal");
        if trigger == Trigger::Call {
            guarded(record.guard.before(), "stopping units");
        }
        self.roll_back_with(record, trigger).context("rollback to the previous version")?;
        guarded(self.mark(record, Phase::RolledBack), "writing the journal");
        if trigger == Trigger::Call {
            guarded(record.guard.after(), "starting units");
        }
        Ok(())
    }

    /// First the journal says that there is no rollback any more, then what it needs is removed.
    fn discard(&self) -> Result<Option<RecordOf<U>>> {
        self.journal.retire(&discard_name()?)?;
        self.finish_discard()
    }

    /// Removes what a transaction that has ended has staged or kept. What cannot be removed is named, and blocks nothing.
    fn finish_discard(&self) -> Result<Option<RecordOf<U>>> {
        let name = discard_name()?;
        let Some(record) = self.read_ended()? else { return Ok(None) };
        match record.update().discard(record.prepared()) {
            Ok(()) => self.journal.remove_record(&name)?,
            Err(error) => {
                let kept = self.journal.set_aside(Some(&name), LEFT)?;
                log!(
                    "cleanup incomplete: {error:#}: the next update tries again, as {} says",
                    kept.display()
                );
            }
        }
        Ok(Some(record))
    }

    fn read_ended(&self) -> Result<Option<RecordOf<U>>> {
        decoded::<U>(self.journal.read_record(&discard_name()?)?)
    }

    /// Tries again to remove what earlier transactions have left. What still cannot be removed is named.
    pub fn retry_left(&self) {
        self.retry_left_where(|_| Ok(true));
    }

    fn retry_left_where(&self, may: impl Fn(&U) -> Result<bool>) {
        let retry = |name: &FileName| {
            if let Some(record) = decoded::<U>(self.journal.read_record(name)?)? {
                if !may(record.update())? {
                    return Ok(());
                }
                record.update().discard(record.prepared())?;
            }
            self.journal.remove_record(name)
        };
        for name in self.journal.set_aside_before(LEFT).unwrap_or_default() {
            if let Err(error) = retry(&name) {
                let path = self.journal.path_of(&name);
                log!("cleanup of an earlier update incomplete: {}: {error:#}", path.display());
            }
        }
    }

    /// Tries again to roll back what could not be; what still cannot is returned.
    fn retry_unrestored(&self, trigger: Trigger) -> Result<Vec<Unrestored<U>>> {
        let mut unrestored = Vec::new();
        for name in self.journal.set_aside_before(UNRESTORED)? {
            let path = self.journal.path_of(&name);
            let Some(record) = decoded::<U>(self.journal.read_record(&name)?)? else { continue };
            match self.roll_back_with(&record, trigger) {
                Ok(()) => drop(self.journal.set_aside(Some(&name), LEFT)?),
                Err(error) => {
                    log!("rollback of an earlier update failed again: {}: {error:#}", path.display());
                    unrestored.push(Unrestored { update: record.into_update(), record: path, error });
                }
            }
        }
        Ok(unrestored)
    }

    fn roll_back_with(&self, record: &RecordOf<U>, trigger: Trigger) -> Result<()> {
        let (update, prepared) = record.ready()?;
        update.roll_back(prepared, trigger)
    }

    fn read(&self) -> Result<Option<RecordOf<U>>> {
        decoded::<U>(self.journal.read()?)
    }

    fn mark(&self, record: &mut RecordOf<U>, phase: Phase) -> Result<()> {
        record.phase = phase;
        self.write(record)
    }

    fn write(&self, record: &RecordOf<U>) -> Result<()> {
        self.journal.write(record)
    }
}

fn decoded<U: Update>(text: Option<Text>) -> Result<Option<RecordOf<U>>> {
    text.map(|text| RecordOf::<U>::decode(&text.content, &text.path)).transpose()
}
