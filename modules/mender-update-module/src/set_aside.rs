//! Records of ended transactions that were set aside, and what the next call or boot does with them.

use std::path::PathBuf;

use anyhow::Result;

use crate::journal::{Journal, UNRESTORED};
use crate::log;
use crate::name::FileName;
use crate::record::{self, RecordOf};
use crate::update::{Trigger, Update};

/// The prefix of records of ended transactions with files that could not be removed.
pub const LEFT: &str = "left";

/// The prefix of such records after a later update was staged: what they would restore is out of date.
pub const LATE: &str = "late";

/// A transaction whose previous version could not be restored.
pub struct Unrestored<U> {
    update: U,
    record: PathBuf,
    error: anyhow::Error,
}

impl<U: Update> Unrestored<U> {
    /// Refuses `update` if it has the same destination.
    ///
    /// # Errors
    /// When it has, with the cause and the remedy.
    pub fn refuse(self, update: &U) -> Result<()> {
        if !update.conflicts_with(&self.update) {
            return Ok(());
        }
        let record = self.record.display();
        let by_hand = match self.update.kept_in() {
            Some(kept) => {
                format!("copy what you need from {0}, then remove {0} and {record}", kept.display())
            }
            None => format!("restore the previous version, then remove {record}"),
        };
        Err(self.error.context(format!(
            "update refused: the rollback of an earlier update of the same destination failed: remove the cause and install \
             again, or by hand: {by_hand}"
        )))
    }
}

/// The records of ended transactions whose files could not be removed.
pub fn left(journal: &Journal) -> Result<Vec<FileName>> {
    Ok([journal.set_aside_before(LEFT)?, journal.set_aside_before(LATE)?].concat())
}

/// Tries again to remove the files of the ended transactions `left` for which `may` is true. Failures are logged.
pub fn retry<U: Update>(journal: &Journal, left: &[FileName], may: impl Fn(&U) -> Result<bool>) {
    discard_each::<U>(journal, left, |name, record| {
        if !may(record.update())? {
            return Ok(());
        }
        discard(name, &record)?;
        journal.remove_record(name)
    });
}

/// As [`retry`], and keeps the records for the next call: after a sync that failed, files only seem to be removed, and
/// a power loss brings them back.
pub fn retry_failed<U: Update>(journal: &Journal, left: &[FileName]) {
    discard_each::<U>(journal, left, |name, record| discard(name, &record));
}

/// Tries again to roll back transactions whose rollback failed. Returns those that fail again.
pub fn retry_unrestored<U: Update>(journal: &Journal, trigger: Trigger) -> Result<Vec<Unrestored<U>>> {
    let mut unrestored = Vec::new();
    for name in journal.set_aside_before(UNRESTORED)? {
        let path = journal.path_of(&name);
        let Some(record) = record::decoded::<U>(journal.read_record(&name)?)? else { continue };
        record.stop_units(trigger);
        let restored = record.roll_back(trigger);
        // Also after a failure: it may fail at each of many updates, and the units run what is there.
        record.start_units(trigger);
        match restored {
            Ok(()) => {
                let is_last = matches!(journal.read(), Ok(None));
                journal.set_aside(Some(&name), if is_last { LEFT } else { LATE })?;
            }
            Err(error) => {
                log!("rollback of an earlier update failed again: {}: {error:#}", path.display());
                unrestored.push(Unrestored { update: record.into_update(), record: path, error });
            }
        }
    }
    Ok(unrestored)
}

fn discard_each<U: Update>(
    journal: &Journal,
    left: &[FileName],
    discard: impl Fn(&FileName, RecordOf<U>) -> Result<()>,
) {
    for name in left {
        let record = journal.read_record(name).and_then(record::decoded::<U>);
        let discarded = record.and_then(|record| record.map_or(Ok(()), |record| discard(name, record)));
        if let Err(error) = discarded {
            log!("cleanup of an earlier update failed again: {}: {error:#}", journal.path_of(name).display());
        }
    }
}

/// Removes the files of the ended transaction with the record `record` in the file `name`.
fn discard<U: Update>(name: &FileName, record: &RecordOf<U>) -> Result<()> {
    if name.as_ref().to_string_lossy().starts_with(LATE) {
        record.update().discard_late(record.prepared())
    } else {
        record.update().discard(record.prepared())
    }
}
