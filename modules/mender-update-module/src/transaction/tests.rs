//! Each step of a transaction, with an update that records its calls and fails where a test asks for it.

mod queries;
mod set_aside;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::ensure;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::*;

/// An update whose calls are lines in the file `calls` of a directory. A call fails if the file `fail-CALL` exists.
#[derive(Serialize, Deserialize)]
struct Recorded {
    directory: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Prepared {
    prepared: bool,
}

impl Recorded {
    fn call(&self, name: &str) -> Result<()> {
        let calls = self.directory.join("calls");
        writeln!(OpenOptions::new().create(true).append(true).open(calls)?, "{name}")?;
        ensure!(!self.directory.join(format!("fail-{name}")).exists(), "{name} has to fail");
        let once = self.directory.join(format!("fail-once-{name}"));
        ensure!(fs::remove_file(once).is_err(), "{name} has to fail once");
        Ok(())
    }
}

impl Update for Recorded {
    type Prepared = Prepared;

    fn prepare(&mut self) -> Result<Prepared> {
        self.call("prepare")?;
        Ok(Prepared { prepared: true })
    }

    fn activate(&self, _: &Prepared) -> Result<()> {
        self.call("activate")
    }

    fn roll_back(&self, _: &Prepared, trigger: Trigger) -> Result<()> {
        self.call(if trigger == Trigger::Boot { "roll-back-at-boot" } else { "roll-back" })
    }

    fn needs_reboot(&self, _: &Prepared) -> Result<NeedsReboot> {
        Ok(NeedsReboot::Yes)
    }

    fn discard(&self, _: Option<&Prepared>) -> Result<()> {
        self.call("discard")
    }

    fn discard_late(&self, _: Option<&Prepared>) -> Result<()> {
        self.call("discard-late")
    }

    fn discard_at_boot(&self) -> Result<bool> {
        Ok(!self.directory.join("needs-a-service").exists())
    }
}

/// A journal, and the directory of the calls.
struct Trial(TempDir);

impl Trial {
    fn new() -> Self {
        let trial = Self(tempfile::tempdir().unwrap());
        fs::create_dir(trial.path("data")).unwrap();
        trial
    }

    /// A trial with an update in `phase`.
    fn in_phase(phase: Phase) -> Self {
        let trial = Self::new();
        trial.stage(Guard::default()).unwrap();
        let transaction = trial.transaction();
        let mut record = transaction.read().unwrap().unwrap();
        record.prepare().unwrap();
        transaction.mark(&mut record, phase).unwrap();
        trial.calls();
        trial
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The directory of the journal.
    fn journal(&self) -> PathBuf {
        self.path("journal")
    }

    fn transaction(&self) -> Transaction<Recorded> {
        Transaction::new(Journal::new(&self.journal()))
    }

    fn stage(&self, guard: Guard) -> Result<()> {
        self.transaction().stage(Recorded { directory: self.path("data") }, guard, |_| Ok(()))
    }

    fn fail(&self, call: &str) {
        fs::write(self.path("data").join(format!("fail-{call}")), "").unwrap();
    }

    fn fail_once(&self, call: &str) {
        self.fail(&format!("once-{call}"));
    }

    fn succeed(&self, call: &str) {
        fs::remove_file(self.path("data").join(format!("fail-{call}"))).unwrap();
    }

    /// The calls since this was asked for the last time.
    fn calls(&self) -> Vec<String> {
        let calls = self.path("data").join("calls");
        let text = fs::read_to_string(&calls).unwrap_or_default();
        let _ = fs::remove_file(calls);
        text.lines().map(str::to_owned).collect()
    }

    /// The phase in the journal; `None` without a pending update.
    fn phase(&self) -> Option<Phase> {
        self.transaction().read().unwrap().map(|record| record.phase)
    }

    fn has(&self, record: &str) -> bool {
        self.journal().join(record).exists()
    }

    /// Makes it impossible to write the journal, as on a full file system. Renames stay possible.
    fn block_writes(&self) {
        fs::create_dir_all(self.journal().join("journal.json.new/x")).unwrap();
    }

    /// Makes it impossible to mark the transaction as ended.
    fn block_end(&self) {
        fs::create_dir(self.journal().join("discard.json")).unwrap();
    }
}

const PHASES: [Phase; 8] = [
    Phase::Staging,
    Phase::Staged,
    Phase::Activating,
    Phase::Active,
    Phase::Committed,
    Phase::RollingBack,
    Phase::RolledBack,
    Phase::Discarding,
];

#[test]
fn a_commit_is_recorded_and_is_possible_only_when_the_new_version_is_active() {
    for phase in PHASES {
        let trial = Trial::in_phase(phase);
        let may = matches!(phase, Phase::Active | Phase::Committed);
        assert_eq!(trial.transaction().commit().is_ok(), may, "{phase:?}");
        assert_eq!(trial.phase(), Some(if may { Phase::Committed } else { phase }));
    }
    let error = Trial::new().transaction().commit().unwrap_err();
    assert!(error.to_string().contains("no update is pending"), "{error}");
}

#[test]
fn a_boot_rolls_back_an_interrupted_activation_and_nothing_else() {
    for phase in PHASES {
        let trial = Trial::in_phase(phase);
        trial.transaction().recover().unwrap();
        let (calls, then) = match phase {
            Phase::Activating | Phase::RollingBack => (vec!["roll-back-at-boot"], Some(Phase::RolledBack)),
            Phase::Staging => (vec!["discard"], None),
            other => (vec![], Some(other)),
        };
        assert_eq!((trial.calls(), trial.phase()), (calls.into_iter().map(str::to_owned).collect(), then), "{phase:?}");
    }
}

#[test]
fn a_failed_rollback_at_boot_is_an_error_and_is_tried_again() {
    let trial = Trial::in_phase(Phase::Activating);
    trial.fail("roll-back-at-boot");
    assert!(trial.transaction().recover().is_err());
    assert_eq!(trial.phase(), Some(Phase::RollingBack));
    trial.succeed("roll-back-at-boot");
    trial.transaction().recover().unwrap();
    assert_eq!(trial.phase(), Some(Phase::RolledBack));
}

#[test]
fn the_client_s_rollback_reports_whether_the_previous_version_is_active() {
    for phase in PHASES {
        let trial = Trial::in_phase(phase);
        trial.fail("roll-back");
        let begun = matches!(phase, Phase::Activating | Phase::Active | Phase::Committed | Phase::RollingBack);
        assert_eq!(trial.transaction().roll_back().is_err(), begun, "{phase:?}");
        trial.succeed("roll-back");
        trial.transaction().roll_back().unwrap();
        assert_eq!(trial.phase(), Some(if begun { Phase::RolledBack } else { phase }));
    }
}

#[test]
fn the_new_version_counts_as_active_only_after_its_health_check() {
    let trial = Trial::new();
    let journal = trial.journal().join("journal.json");
    let during = trial.path("during");
    let script = format!("cp '{}' '{}'", journal.display(), during.display());
    let health = serde_json::json!({"health": {"command": ["sh", "-c", script], "stable_seconds": 0}});
    trial.stage(serde_json::from_value(health).unwrap()).unwrap();
    trial.transaction().install().unwrap();
    assert!(fs::read_to_string(during).unwrap().contains(r#""phase":"Switching""#));
    assert_eq!(trial.phase(), Some(Phase::Active));
}

#[test]
fn an_install_that_fails_is_rolled_back_at_once() {
    let unhealthy = serde_json::json!({"health": {"command": ["false"], "limit_seconds": 1, "stable_seconds": 0}});
    for (fails, guard) in [("activate", Guard::default()), ("health", serde_json::from_value(unhealthy).unwrap())] {
        let trial = Trial::new();
        trial.stage(guard).unwrap();
        trial.fail(fails);
        trial.calls();
        let error = format!("{:#}", trial.transaction().install().unwrap_err());
        assert!(error.contains("rolled back to the previous version"), "{error}");
        assert_eq!(trial.calls(), ["prepare", "activate", "roll-back"], "{fails}");
        assert_eq!(trial.phase(), Some(Phase::RolledBack));
    }
    let trial = Trial::new();
    trial.stage(Guard::default()).unwrap();
    trial.fail("activate");
    trial.fail("roll-back");
    let error = format!("{:#}", trial.transaction().install().unwrap_err());
    assert!(error.contains("the rollback failed too"), "{error}");
    assert_eq!(trial.phase(), Some(Phase::RollingBack));
}

#[test]
fn an_install_continues_nothing_that_was_interrupted() {
    for phase in PHASES {
        let trial = Trial::in_phase(phase);
        let installed = trial.transaction().install().is_ok();
        let may = matches!(phase, Phase::Staged | Phase::Active | Phase::Committed);
        assert_eq!(installed, may, "{phase:?}");
        let expected = match phase {
            Phase::Staged => vec!["prepare", "activate"],
            Phase::Activating => vec!["roll-back"],
            _ => vec![],
        };
        assert_eq!(trial.calls(), expected, "{phase:?}");
    }
}

#[test]
fn the_next_update_ends_the_one_before_it() {
    for phase in PHASES {
        let trial = Trial::in_phase(phase);
        assert!(trial.transaction().clear().unwrap().is_empty());
        let is_interrupted = matches!(phase, Phase::Activating | Phase::Active | Phase::RollingBack);
        let expected = if is_interrupted { vec!["roll-back", "discard"] } else { vec!["discard"] };
        assert_eq!(trial.calls(), expected, "{phase:?}");
        assert_eq!(trial.phase(), None);
    }
}

#[test]
fn an_update_that_cannot_be_ended_is_set_aside_and_a_committed_one_is_not_rolled_back() {
    for phase in PHASES {
        let trial = Trial::in_phase(phase);
        trial.block_end();
        let transaction = trial.transaction();
        // The record in the way cannot be read. It is removed below, as a user would.
        let _ = transaction.end_current();
        let is_interrupted = matches!(phase, Phase::Activating | Phase::Active | Phase::RollingBack);
        let expected: &[&str] = if is_interrupted { &["roll-back"] } else { &[] };
        assert_eq!(trial.calls(), expected, "{phase:?}");
        assert!(trial.has("left-1.json") && !trial.has("unrestored-1.json"), "{phase:?}");
        fs::remove_dir(trial.journal().join("discard.json")).unwrap();
        assert!(transaction.clear().unwrap().is_empty());
        assert_eq!(trial.calls(), ["discard"], "{phase:?}");
        assert!(!trial.has("left-1.json"));
    }
}

#[test]
fn files_that_a_call_could_not_remove_at_once_are_removed_by_the_next_call_too() {
    let trial = Trial::in_phase(Phase::Committed);
    trial.fail_once("discard");
    trial.transaction().clear().unwrap();
    assert_eq!(trial.calls(), ["discard", "discard"]);
    assert!(trial.has("left-1.json") && trial.phase().is_none(), "the second attempt may only seem to succeed");
    trial.transaction().clear().unwrap();
    assert_eq!(trial.calls(), ["discard"]);
    assert!(!trial.has("left-1.json"));
}

#[test]
fn a_journal_that_cannot_be_read_is_never_taken_for_none() {
    let whole = |path: &Path| fs::read(path).unwrap();
    type Damage = fn(Vec<u8>) -> Vec<u8>;
    let damages: [(&str, Damage); 4] = [
        ("empty", |_| Vec::new()),
        ("torn", |text| text[..text.len() / 2].to_vec()),
        ("zeros", |text| vec![0; text.len()]),
        ("another format", |text| String::from_utf8(text).unwrap().replace("\"format\":1", "\"format\":9").into()),
    ];
    for (name, damage) in damages {
        let trial = Trial::in_phase(Phase::Active);
        let path = trial.journal().join("journal.json");
        fs::write(&path, damage(whole(&path))).unwrap();
        let damaged = whole(&path);
        let transaction = trial.transaction();
        let results = [
            transaction.install().is_err(),
            transaction.commit().is_err(),
            transaction.roll_back().is_err(),
            transaction.finish().is_err(),
            transaction.clear().is_err(),
            transaction.recover().is_err(),
            transaction.pending().is_err(),
            transaction.needs_reboot().is_err(),
        ];
        assert_eq!(results, [true; 8], "{name}");
        assert!(trial.calls().is_empty(), "{name}");
        assert_eq!(whole(&path), damaged, "{name}: the record stays for its user");
    }
}

#[test]
fn cleanup_keeps_only_a_committed_version() {
    for phase in PHASES {
        let trial = Trial::in_phase(phase);
        trial.transaction().finish().unwrap();
        let is_open = matches!(phase, Phase::Activating | Phase::Active | Phase::RollingBack);
        let expected: &[&str] = if is_open { &["roll-back", "discard"] } else { &["discard"] };
        assert_eq!(trial.calls(), expected, "{phase:?}");
    }
}

#[test]
fn an_interrupted_cleanup_continues_at_the_next_boot_or_update() {
    for needs_a_service in [false, true] {
        for next in ["boot", "update"] {
            let trial = Trial::in_phase(Phase::Committed);
            if needs_a_service {
                fs::write(trial.path("data/needs-a-service"), "").unwrap();
            }
            let transaction = trial.transaction();
            transaction.journal.retire(&discard_name().unwrap()).unwrap();
            match next {
                "boot" => transaction.recover().unwrap(),
                _ => assert!(transaction.clear().unwrap().is_empty()),
            }
            let continues = next == "update" || !needs_a_service;
            let expected: &[&str] = if continues { &["discard"] } else { &[] };
            assert_eq!(trial.calls(), expected, "{next}, needs a service: {needs_a_service}");
            assert_eq!(trial.has("discard.json"), !continues);
        }
    }
}

#[test]
fn a_failed_update_is_rolled_back_even_if_the_rollback_could_not_be_recorded() {
    for phase in PHASES {
        let trial = Trial::in_phase(phase);
        trial.transaction().fail().unwrap();
        let is_open = matches!(phase, Phase::Activating | Phase::Active | Phase::Committed | Phase::RollingBack);
        let expected: &[&str] = if is_open { &["roll-back"] } else { &[] };
        assert_eq!(trial.calls(), expected, "{phase:?}");
        assert_eq!(trial.phase(), Some(if is_open { Phase::RolledBack } else { phase }));
    }
}

#[test]
fn a_failed_download_is_discarded_at_once() {
    let trial = Trial::new();
    let update = Recorded { directory: trial.path("data") };
    let staged = trial.transaction().stage(update, Guard::default(), |_| bail!("no space"));
    assert!(staged.unwrap_err().to_string().contains("no space"));
    assert_eq!(trial.calls(), ["discard"]);
    assert_eq!(trial.phase(), None);
}

#[test]
fn a_previous_version_that_could_not_be_restored_is_not_discarded_at_cleanup() {
    let trial = Trial::in_phase(Phase::Committed);
    trial.fail("roll-back");
    trial.block_writes();
    let transaction = trial.transaction();
    assert!(transaction.roll_back().is_err(), "the client is told that the rollback failed");
    let _ = transaction.fail();
    let _ = transaction.finish();
    assert!(!trial.calls().contains(&"discard".to_owned()), "the previous version is the only whole one");
}
