//! Stage, switch, keep, forget: the one way in which a module changes a device.
//!
//! A [`Change`] says what is special to a payload, this file in which order its steps come and what the journal holds
//! meanwhile:
//!
//! | phase in the journal | what is live | `ArtifactInstall` | `ArtifactRollback` | next `Download`, or a boot |
//! |---|---|---|---|---|
//! | none | the old | fails: nothing is staged | nothing to do | |
//! | Staging | the old | fails | nothing to do | discard what is staged |
//! | Staged | the old | switches | nothing to do | Download discards what is staged |
//! | Switching | old, new or between; or the new, on trial | switches back and fails | switches back | switch back |
//! | Switched | the new | nothing to do | switches back | Download switches back; a boot leaves it |
//! | Committed | the new | nothing to do | switches back | Download forgets the old |
//! | RollingBack | old, new or between | fails | switches back | switch back |
//! | RolledBack | the old | fails | asks the health gate again | Download forgets |
//! | Forgetting (version 0.1.0) | as before | fails | nothing to do | Download forgets |
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
use serde::{Deserialize, Serialize};

use crate::change::Change;
use crate::guard::Guard;
use crate::journal::{Journal, UNRESTORED};
use crate::log::say;
use crate::name::FileName;
use crate::state::NeedsReboot;

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

/// A transaction whose previous version could not be restored.
pub struct Unrestored<C> {
    change: C,
    record: PathBuf,
    error: anyhow::Error,
}

impl<C: Change> Unrestored<C> {
    /// Refuses `change` where it has the same destination.
    ///
    /// # Errors
    /// Why the other could not be rolled back, and what to do.
    pub fn refuse(self, change: &C) -> Result<()> {
        if !change.conflicts_with(&self.change) {
            return Ok(());
        }
        let record = self.record.display();
        let by_hand = match self.change.kept_in() {
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

/// What the names of records begin with whose changes have left something.
const LEFT: &str = "left";

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
        let staged = record
            .change
            .make_staging()
            .and_then(|()| self.write(&record))
            .and_then(|()| stage(&mut record.change))
            .and_then(|()| self.mark(&mut record, Phase::Staged));
        if staged.is_err() {
            // Its space is needed now, and not at the next update.
            if let Err(error) = self.discard() {
                say(format_args!("discarding the failed download: {error:#}: the next update tries again"));
            }
        }
        staged
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
        if record.change.make_destination()? {
            self.write(record)?;
        }
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

    /// Ends the transaction: what was interrupted is rolled back, and what is no longer needed removed. Returns the change
    /// that has ended, if there was one.
    ///
    /// # Errors
    /// When that fails; the next update tries again.
    pub fn finish(&self) -> Result<Option<C>> {
        let Some(mut record) = self.read()? else { return self.finish_discard() };
        if matches!(record.phase, Phase::Switching | Phase::RollingBack) {
            self.back(&mut record, Around::Guarded)?;
        }
        self.discard()
    }

    /// Clears the way for the next transaction: one that was never committed is rolled back. Returns those that cannot be.
    ///
    /// # Errors
    /// When the journal cannot be read or changed.
    pub fn clear(&self) -> Result<Vec<Unrestored<C>>> {
        self.retry_left();
        self.finish_discard()?;
        let cleared = || {
            if let Some(mut record) = self.read()?.filter(|record| record.phase == Phase::Switched) {
                say("the update before was neither committed nor rolled back: rolling it back");
                self.back(&mut record, Around::Guarded)?;
            }
            self.finish().map(drop)
        };
        // A journal that cannot be read says nothing of its destination, and blocks.
        if self.read().context("an earlier update was interrupted")?.is_some() {
            if let Err(error) = cleared() {
                let record = self.journal.set_aside(None, UNRESTORED)?;
                say(format_args!(
                    "rollback of an earlier update failed: {error:#}: its record is kept in {}",
                    record.display()
                ));
            }
        }
        self.retry_unrestored(Around::Guarded)
    }

    /// Rolls back a change that a power loss interrupted, and discards an interrupted download, which no client resumes; one
    /// that waits for its commit is left alone. At boot, so units are not touched: systemd starts them later, and would wait
    /// for this call to end.
    ///
    /// # Errors
    /// When that fails; it may be tried again.
    pub fn recover(&self) -> Result<()> {
        self.retry_left_where(C::discard_at_boot);
        if let Some(record) = self.read_ended()? {
            if record.change.discard_at_boot()? {
                self.finish_discard()?;
            }
        }
        self.retry_unrestored(Around::Bare)?;
        match self.read()? {
            Some(mut record) if matches!(record.phase, Phase::Switching | Phase::RollingBack) => {
                say("update interrupted: rolling back to the previous version");
                self.back(&mut record, Around::Bare)
            }
            Some(record) if record.phase == Phase::Staging => {
                if record.change.discard_at_boot()? {
                    self.discard()?;
                }
                Ok(())
            }
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
        self.restore(record, around).context("rolling back to the previous version")?;
        guarded(self.mark(record, Phase::RolledBack), "the journal");
        if around == Around::Guarded {
            guarded(record.guard.after(), "after it");
        }
        Ok(())
    }

    /// First the word that there is no rollback any more, then the removal of what it needs.
    fn discard(&self) -> Result<Option<C>> {
        self.journal.retire(&discard_name()?)?;
        self.finish_discard()
    }

    /// Removes what a transaction that has ended has staged or kept. What cannot be removed is named, and blocks nothing.
    fn finish_discard(&self) -> Result<Option<C>> {
        let name = discard_name()?;
        let Some(record) = self.read_ended()? else { return Ok(None) };
        match record.change.forget() {
            Ok(()) => self.journal.remove_record(&name)?,
            Err(error) => {
                let kept = self.journal.set_aside(Some(&name), LEFT)?;
                say(format_args!(
                    "cleanup incomplete: {error:#}: the next update tries again, as {} says",
                    kept.display()
                ));
            }
        }
        Ok(Some(record.change))
    }

    fn read_ended(&self) -> Result<Option<Record<C>>> {
        self.understood(self.journal.read_record(&discard_name()?)?)
    }

    /// Tries again to remove what earlier transactions have left. What still cannot be removed is named.
    pub fn retry_left(&self) {
        self.retry_left_where(|_| Ok(true));
    }

    fn retry_left_where(&self, may: impl Fn(&C) -> Result<bool>) {
        let retry = |name: &FileName| {
            if let Some(record) = self.understood(self.journal.read_record(name)?)? {
                if !may(&record.change)? {
                    return Ok(());
                }
                record.change.forget()?;
            }
            self.journal.remove_record(name)
        };
        for name in self.journal.set_aside_before(LEFT).unwrap_or_default() {
            if let Err(error) = retry(&name) {
                let path = self.journal.path_of(&name);
                say(format_args!("cleanup of an earlier update incomplete: {}: {error:#}", path.display()));
            }
        }
    }

    /// Tries again to roll back what could not be; what still cannot is returned.
    fn retry_unrestored(&self, around: Around) -> Result<Vec<Unrestored<C>>> {
        let mut unrestored = Vec::new();
        for name in self.journal.set_aside_before(UNRESTORED)? {
            let path = self.journal.path_of(&name);
            let Some(record) = self.understood(self.journal.read_record(&name)?)? else { continue };
            match self.restore(&record, around) {
                Ok(()) => drop(self.journal.set_aside(Some(&name), LEFT)?),
                Err(error) => {
                    say(format_args!(
                        "rollback of an earlier update failed again: {}: {error:#}",
                        path.display()
                    ));
                    unrestored.push(Unrestored { change: record.change, record: path, error });
                }
            }
        }
        Ok(unrestored)
    }

    fn restore(&self, record: &Record<C>, around: Around) -> Result<()> {
        match around {
            Around::Guarded => record.change.switch_back(),
            Around::Bare => record.change.switch_back_at_boot(),
        }
    }

    fn read(&self) -> Result<Option<Record<C>>> {
        self.understood(self.journal.read()?)
    }

    /// `record`, if it has the form that this version knows.
    fn understood(&self, record: Option<Record<C>>) -> Result<Option<Record<C>>> {
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
