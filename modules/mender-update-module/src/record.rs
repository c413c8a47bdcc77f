//! The record of a transaction in the journal, and its format.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::guard::Guard;
use crate::journal::Text;
use crate::log;
use crate::update::{Trigger, Update};

/// The format of [`Record`]; incremented when earlier versions cannot read it any more.
const FORMAT: u32 = 1;

/// The phase of a transaction. The names in the journal are those of builds before the first release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// The payload is being written to the staging directory.
    Staging,
    /// The payload is staged, durably.
    Staged,
    /// The activation has begun; the health check has not passed yet.
    #[serde(rename = "Switching")]
    Activating,
    /// The new version is active.
    #[serde(rename = "Switched")]
    Active,
    /// The new version is active and committed.
    Committed,
    /// The rollback has begun.
    RollingBack,
    /// The previous version is active again.
    RolledBack,
    /// Staged and kept files are being removed; only builds before the first release wrote this phase.
    #[serde(rename = "Forgetting")]
    Discarding,
}

impl Phase {
    /// Whether the activation may have begun: then the record has the preparation.
    fn needs_preparation(self) -> bool {
        matches!(self, Self::Activating | Self::Active | Self::Committed | Self::RollingBack | Self::RolledBack)
    }
}

/// A transaction: the update, its phase, and its guard.
#[derive(Serialize, Deserialize)]
#[serde(bound(deserialize = "U: DeserializeOwned, P: DeserializeOwned"))]
pub struct Record<U, P> {
    format: u32,
    /// The phase.
    pub phase: Phase,
    #[serde(rename = "change")]
    body: Body<U, P>,
    /// The units and the health check.
    #[serde(default)]
    pub guard: Guard,
}

/// The update and the preparation, in one JSON object.
#[derive(Serialize, Deserialize)]
#[serde(bound(deserialize = "U: DeserializeOwned, P: DeserializeOwned"))]
struct Body<U, P> {
    #[serde(flatten)]
    update: U,
    #[serde(flatten)]
    prepared: Option<P>,
}

/// The record of the update `U`.
pub type RecordOf<U> = Record<U, <U as Update>::Prepared>;

impl<U: Update> Record<U, U::Prepared> {
    /// The record of a new transaction.
    pub fn new(update: U, guard: Guard) -> Self {
        Self { format: FORMAT, phase: Phase::Staging, body: Body { update, prepared: None }, guard }
    }

    /// Decodes the JSON `text` of the file `path`.
    ///
    /// # Errors
    /// When the text has another format, or is damaged.
    pub fn decode(text: &[u8], path: &Path) -> Result<Self> {
        // First, because a record of another format may differ in everything else.
        require_format(text, path)?;
        let record: Self = serde_json::from_slice(text).with_context(|| unreadable(path))?;
        if record.phase.needs_preparation() && record.body.prepared.is_none() {
            bail!("{}: phase {:?} without its preparation", unreadable(path), record.phase);
        }
        Ok(record)
    }

    /// The update.
    pub fn update(&self) -> &U {
        &self.body.update
    }

    /// The update, mutable.
    pub fn update_mut(&mut self) -> &mut U {
        &mut self.body.update
    }

    /// The preparation, if there is one.
    pub fn prepared(&self) -> Option<&U::Prepared> {
        self.body.prepared.as_ref()
    }

    /// Prepares the activation, and stores the result.
    pub fn prepare(&mut self) -> Result<()> {
        let prepared = self.body.update.prepare()?;
        self.body.prepared = Some(prepared);
        Ok(())
    }

    /// The update and its preparation.
    ///
    /// # Errors
    /// When there is no preparation; [`decode`](Self::decode) refuses such records.
    pub fn ready(&self) -> Result<(&U, &U::Prepared)> {
        let prepared = self.body.prepared.as_ref().context("no preparation in the journal")?;
        Ok((&self.body.update, prepared))
    }

    /// As [`ready`](Self::ready), with a mutable update.
    pub fn ready_mut(&mut self) -> Result<(&mut U, &U::Prepared)> {
        let prepared = self.body.prepared.as_ref().context("no preparation in the journal")?;
        Ok((&mut self.body.update, prepared))
    }

    /// Activates the previous version.
    pub fn roll_back(&self, trigger: Trigger) -> Result<()> {
        let (update, prepared) = self.ready()?;
        update.roll_back(prepared, trigger)
    }

    /// Stops units before a rollback. At boot it does nothing: systemd starts them later, and waits for this call. A
    /// failure is logged: a unit that does not stop must not prevent the rollback.
    pub fn stop_units(&self, trigger: Trigger) {
        if trigger == Trigger::Call {
            tolerate(self.guard.before(), "stopping units");
        }
    }

    /// Starts units after a rollback, as [`stop_units`](Self::stop_units) stops them. A failure does not prevent the
    /// start of others.
    pub fn start_units(&self, trigger: Trigger) {
        if trigger == Trigger::Call {
            self.guard.after().for_each(|done| tolerate(done, "starting units"));
        }
    }

    /// The update.
    pub fn into_update(self) -> U {
        self.body.update
    }
}

/// Logs the failure of `what` during a rollback, which continues: the server shows the log.
pub fn tolerate(done: Result<()>, what: &str) {
    if let Err(error) = done {
        log!("{what} failed: {error:#}; the rollback continues");
    }
}

/// Decodes the `text` of a record, if there is one.
pub fn decoded<U: Update>(text: Option<Text>) -> Result<Option<RecordOf<U>>> {
    text.map(|text| RecordOf::<U>::decode(&text.content, &text.path)).transpose()
}

fn require_format(text: &[u8], path: &Path) -> Result<()> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let Head { format } = serde_json::from_slice(text).with_context(|| unreadable(path))?;
    ensure!(
        format == FORMAT,
        "reading the journal {} failed: format {format}, and this version of the module supports {FORMAT}: end the pending \
         update with the version that began it",
        path.display()
    );
    Ok(())
}

/// The message for a record that cannot be decoded.
fn unreadable(path: &Path) -> String {
    format!(
        "reading the journal {} failed: damaged, or not written by this module: check the destination that it names, and \
         remove it",
        path.display()
    )
}

/// Decodes `text`, a journal of the update `U`, and returns its phase. It is for tests that keep journals of released
/// versions: a package may be upgraded while an update is pending.
///
/// # Errors
/// When this version of the module cannot read the journal.
pub fn check_journal<U: Update>(text: &[u8]) -> Result<String> {
    let record = RecordOf::<U>::decode(text, Path::new("journal.json"))?;
    Ok(format!("{:?}", record.phase))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::systemctl_calls;

    #[derive(Serialize, Deserialize)]
    struct Website {
        destination: String,
    }

    #[derive(Serialize, Deserialize)]
    struct Prepared {
        keep: Vec<String>,
    }

    impl Update for Website {
        type Prepared = Prepared;

        fn prepare(&mut self) -> Result<Prepared> {
            Ok(Prepared { keep: vec!["index.html".into()] })
        }

        fn activate(&self, _: &Prepared) -> Result<()> {
            Ok(())
        }

        fn roll_back(&self, _: &Prepared, _: Trigger) -> Result<()> {
            Ok(())
        }

        fn discard(&self, _: Option<&Prepared>) -> Result<()> {
            Ok(())
        }
    }

    fn refused(text: &str) -> String {
        format!("{:#}", check_journal::<Website>(text.as_bytes()).unwrap_err())
    }

    #[test]
    fn update_and_preparation_are_one_object() {
        let mut record = RecordOf::<Website>::new(Website { destination: "/srv".into() }, Guard::default());
        let staged = serde_json::to_string(&record).unwrap();
        assert!(staged.contains(r#""phase":"Staging","change":{"destination":"/srv"},"#), "{staged}");
        record.prepare().unwrap();
        record.phase = Phase::Activating;
        let text = serde_json::to_string(&record).unwrap();
        let expected = r#""phase":"Switching","change":{"destination":"/srv","keep":["index.html"]},"#;
        assert!(text.contains(expected), "{text}");
        let again = RecordOf::<Website>::decode(text.as_bytes(), Path::new("journal.json")).unwrap();
        assert_eq!(again.ready().unwrap().1.keep, ["index.html"]);
    }

    #[test]
    fn the_format_is_read_before_everything_else() {
        let refused = refused(r#"{"format":2,"phase":"Another","more":true}"#);
        assert!(refused.contains("format 2, and this version of the module supports 1"), "{refused}");
    }

    #[test]
    fn a_damaged_record_is_refused() {
        for text in ["", "{", "[]", r#"{"format":1,"phase":"Staged"}"#, r#"{"format":1,"phase":"Other","change":{}}"#] {
            assert!(refused(text).contains("damaged, or not written by this module"), "{text}");
        }
        let refused = refused(r#"{"format":1,"phase":"Switching","change":{"destination":"/srv"}}"#);
        assert!(refused.contains("without its preparation"), "{refused}");
    }

    #[test]
    fn a_record_has_a_preparation_after_the_preparation() {
        let mut record = RecordOf::<Website>::new(Website { destination: "/srv".into() }, Guard::default());
        assert!(record.prepared().is_none() && record.ready().is_err() && record.ready_mut().is_err());
        record.prepare().unwrap();
        assert_eq!(record.prepared().unwrap().keep, ["index.html"]);
        assert_eq!(record.ready_mut().unwrap().1.keep, ["index.html"]);
    }

    #[test]
    fn the_phase_of_a_journal_is_returned() {
        let text = br#"{"format":1,"phase":"Staged","change":{"destination":"/srv"}}"#;
        assert_eq!(check_journal::<Website>(text).unwrap(), "Staged");
    }

    #[test]
    fn a_rollback_stops_and_starts_units_unless_it_is_at_boot_and_tolerates_a_failure() {
        let Some((calls, log)) = systemctl_calls(
            "record::tests::a_rollback_stops_and_starts_units_unless_it_is_at_boot_and_tolerates_a_failure",
            || {
                let units = r#"{"units":{"stop":["bad-stop"],"restart":["bad-restart"],"start":["good"]}}"#;
                let guard = serde_json::from_str(units).unwrap();
                let record = RecordOf::<Website>::new(Website { destination: "/srv".into() }, guard);
                for trigger in [Trigger::Boot, Trigger::Call, Trigger::Boot] {
                    record.stop_units(trigger);
                    record.start_units(trigger);
                }
            },
        ) else {
            return;
        };
        assert_eq!(
            calls,
            ["stop bad-stop", "restart bad-restart", "start good"].map(|call| format!("{OPTIONS} {call}"))
        );
        for failed in ["stopping units failed", "starting units failed"] {
            assert!(log.contains(failed), "{failed} is missing in {log}");
        }
    }

    /// The options of systemctl.
    const OPTIONS: &str = "--no-ask-password --quiet";
}
