//! The record of a transaction in the journal, and the one place that decides whether this version can read it.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::guard::Guard;
use crate::update::Update;

/// The form of [`Record`]; raised when a record can no longer be read by the version before.
const FORMAT: u32 = 1;

/// How far a transaction has come. The names in the journal are those of version 0.1.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// The payload is being written to the staging directory.
    Staging,
    /// All of it is there, durable.
    Staged,
    /// The activation has begun, and the health check has not passed yet.
    #[serde(rename = "Switching")]
    Activating,
    /// The new version is active.
    #[serde(rename = "Switched")]
    Active,
    /// The new version is active and stays.
    Committed,
    /// The rollback has begun.
    RollingBack,
    /// The previous version is active again.
    RolledBack,
    /// What is staged or kept is being removed; written by version 0.1.0 only.
    #[serde(rename = "Forgetting")]
    Discarding,
}

impl Phase {
    /// Whether the activation may have changed anything: what was prepared for it is in the record then.
    fn needs_preparation(self) -> bool {
        matches!(
            self,
            Self::Activating | Self::Active | Self::Committed | Self::RollingBack | Self::RolledBack
        )
    }
}

/// An update and how far it has come.
#[derive(Serialize, Deserialize)]
#[serde(bound(deserialize = "U: DeserializeOwned, P: DeserializeOwned"))]
pub struct Record<U, P> {
    format: u32,
    /// How far it has come.
    pub phase: Phase,
    #[serde(rename = "change")]
    body: Body<U, P>,
    /// The units and the health check around the activation.
    #[serde(default)]
    pub guard: Guard,
}

/// The update and what was prepared, side by side in one JSON object.
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
    /// One that begins.
    pub fn new(update: U, guard: Guard) -> Self {
        Self { format: FORMAT, phase: Phase::Staging, body: Body { update, prepared: None }, guard }
    }

    /// The record that the JSON `text` of the file `path` holds.
    ///
    /// # Errors
    /// When it is of a version with another form, or damaged.
    pub fn decode(text: &[u8], path: &Path) -> Result<Self> {
        // First: what another version writes may differ in everything else.
        require_format(text, path)?;
        let record: Self = serde_json::from_slice(text).with_context(|| unreadable(path))?;
        if record.phase.needs_preparation() && record.body.prepared.is_none() {
            bail!("{}: {:?}, but what was prepared is missing", unreadable(path), record.phase);
        }
        Ok(record)
    }

    /// The update.
    pub fn update(&self) -> &U {
        &self.body.update
    }

    /// The update, to be completed.
    pub fn update_mut(&mut self) -> &mut U {
        &mut self.body.update
    }

    /// What was prepared, once it was.
    pub fn prepared(&self) -> Option<&U::Prepared> {
        self.body.prepared.as_ref()
    }

    /// Prepares the activation and keeps what that has found out.
    ///
    /// # Errors
    /// Those of [`Update::prepare`].
    pub fn prepare(&mut self) -> Result<()> {
        let prepared = self.body.update.prepare()?;
        self.body.prepared = Some(prepared);
        Ok(())
    }

    /// The update and what was prepared for it.
    ///
    /// # Errors
    /// When nothing was: the record of such a phase is not read, see [`decode`](Self::decode).
    pub fn ready(&self) -> Result<(&U, &U::Prepared)> {
        let prepared = self.body.prepared.as_ref().context("the update was not prepared")?;
        Ok((&self.body.update, prepared))
    }

    /// The update, to be completed, and what was prepared for it.
    ///
    /// # Errors
    /// As [`ready`](Self::ready).
    pub fn ready_mut(&mut self) -> Result<(&mut U, &U::Prepared)> {
        let prepared = self.body.prepared.as_ref().context("the update was not prepared")?;
        Ok((&mut self.body.update, prepared))
    }

    /// The update, when everything else is done.
    pub fn into_update(self) -> U {
        self.body.update
    }
}

fn require_format(text: &[u8], path: &Path) -> Result<()> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let Head { format } = serde_json::from_slice(text).with_context(|| unreadable(path))?;
    ensure!(
        format == FORMAT,
        "the journal has form {format}, this version of the module knows {FORMAT}: {}: end the interrupted update with \
         the version that began it",
        path.display()
    );
    Ok(())
}

/// What to do with a record that nobody can read.
fn unreadable(path: &Path) -> String {
    format!(
        "{} was not written by this version of the module: see what it says of the interrupted update, put its \
         destination in order, and remove it",
        path.display()
    )
}

/// Whether `text`, the journal of an interrupted update, can be read by this version of the module `U`, and in which phase it
/// is. For tests that keep journals of released versions: a package may be upgraded while an update is pending.
///
/// # Errors
/// Why it cannot be read.
pub fn check_journal<U: Update>(text: &[u8]) -> Result<String> {
    let record = RecordOf::<U>::decode(text, Path::new("journal.json"))?;
    Ok(format!("{:?}", record.phase))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::Trigger;

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
    fn what_was_prepared_stands_beside_the_update_and_is_read_again() {
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
        assert!(
            refused.starts_with("the journal has form 2, this version of the module knows 1"),
            "{refused}"
        );
    }

    #[test]
    fn a_damaged_record_is_refused() {
        for text in
            ["", "{", "[]", r#"{"format":1,"phase":"Staged"}"#, r#"{"format":1,"phase":"Other","change":{}}"#]
        {
            assert!(refused(text).contains("was not written by this version"), "{text}");
        }
        let refused = refused(r#"{"format":1,"phase":"Switching","change":{"destination":"/srv"}}"#);
        assert!(refused.contains("what was prepared is missing"), "{refused}");
    }
}
