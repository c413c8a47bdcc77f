//! The record of a point: what was found after it, and the verdict.

use std::time::Duration;

use serde_json::{Value, json};

use super::point::{Mode, Moment, Point};
use crate::managed::BASE;

/// The name of the new version.
pub const NEW: &str = "release-2";

/// The status of a standalone device without an update that waits for a commit or rollback.
pub const NOTHING_PENDING: &str = "nothing pending";

/// What the device and the server show after the device has settled.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The disk: the artifact whose payload is active.
    pub disk: String,
    /// The client: what `show-artifact` prints.
    pub artifact: String,
    /// The client: the version of the module's payload in `show-provides`, if any.
    pub provided: Option<String>,
    /// The last status on the server, or whether an update is pending on a standalone device.
    pub status: String,
    /// The command with which a user ended the standalone update after the boot, and its exit status.
    pub settled: Option<String>,
    /// Whether the client had its work tree after the boot, before that command. The daemon removes it by itself.
    pub has_work_tree: Option<bool>,
    /// The phase of the update that the module takes for pending, if any.
    pub phase: Option<String>,
    /// Whether the server has a deployment log.
    pub has_log: bool,
    /// The final state of the service of the recovery at boot.
    pub recovery: String,
    /// The damage that e2fsck found.
    pub damage: Option<String>,
}

/// The verdict on a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Exactly the previous version, and all views agree.
    Previous,
    /// Exactly the new version, and all views agree.
    New,
    /// As the state machine of the client has it; the reason.
    Client(String),
    /// A defect; what was found.
    Bad(String),
}

impl Found {
    /// The verdict, if the power was lost in `state`, the last call of the module.
    pub fn verdict(&self, mode: Mode, state: &str) -> Verdict {
        let bad = |what: &str| Verdict::Bad(what.to_owned());
        let is_new = match self.disk.as_str() {
            NEW => true,
            BASE => false,
            _ => return bad("neither the previous nor the new version is active"),
        };
        if let Some(damage) = &self.damage {
            return Verdict::Bad(damage.clone());
        }
        if self.recovery == "failed" {
            return bad("the recovery at boot failed");
        }
        if self.is_unknown_to_the_client(mode) {
            return Verdict::Client(
                "power loss between the end of ArtifactInstall and the client's record of it: client 3.4 does not know \
                 the update, and the module rolls it back in the next Download"
                    .to_owned(),
            );
        }
        if self.has_only_a_record(mode, state) {
            return Verdict::Client(ONLY_A_RECORD.to_owned());
        }
        if self.artifact != self.disk {
            return bad("disk and show-artifact disagree");
        }
        if (self.provided.as_deref() == Some(NEW)) != is_new {
            return bad("disk and show-provides disagree");
        }
        match (mode, self.status.as_str(), is_new) {
            (Mode::Standalone, NOTHING_PENDING, true) | (Mode::Managed, "success" | "already-installed", true) => {
                Verdict::New
            }
            (Mode::Standalone, NOTHING_PENDING, false) => Verdict::Previous,
            (Mode::Managed, "failure", false) if self.has_log => Verdict::Previous,
            // show-artifact has the new version, so the client has recorded the end of ArtifactCommit.
            (Mode::Managed, "failure", true) if matches!(state, "ArtifactCommit" | "Cleanup") => {
                Verdict::Client(FAILURE_AFTER_COMMIT.to_owned())
            }
            (Mode::Standalone, ..) => bad("an update is pending"),
            (Mode::Managed, ..) => bad("disk and status on the server disagree, or the deployment log is missing"),
        }
    }
}

impl Found {
    /// Whether the client had removed the work tree after Cleanup, and not yet its record of the update. It could not
    /// call the module then.
    fn has_only_a_record(&self, mode: Mode, state: &str) -> bool {
        (mode, state, self.has_work_tree, &self.phase) == (Mode::Standalone, "Cleanup", Some(false), &None)
            && self.settled.as_deref() == Some(if self.disk == NEW { FAILED_COMMIT } else { FAILED_ROLLBACK })
            && self.artifact == format!("{NEW}_INCONSISTENT")
            && self.provided.is_none()
    }

    /// Whether the new version is active and waits for a commit, and the client of a user has no record of an update.
    fn is_unknown_to_the_client(&self, mode: Mode) -> bool {
        mode == Mode::Standalone
            && self.phase.as_deref() == Some("Active")
            && self.settled.as_deref() == Some(ROLLBACK_OF_NOTHING)
            && (self.disk.as_str(), self.artifact.as_str(), &self.provided) == (NEW, BASE, &None)
    }
}

/// Client 3.4 resumes with Cleanup and reports a failure, whatever the module does.
const FAILURE_AFTER_COMMIT: &str = "power loss after the end of ArtifactCommit: the client reports a failure, and its \
    own record and the disk have the new version";

/// Client 3.4 removes the work tree after Cleanup, and then its record.
const ONLY_A_RECORD: &str = "power loss between the client's removal of the work tree and of its record: client 3.4 cannot \
    start the module in the missing directory, and marks the artifact as inconsistent; the disk has the version of before \
    the power loss";

/// How a user's commit and rollback end if the client cannot start the module.
const FAILED_COMMIT: &str = "commit: exit status 1";
const FAILED_ROLLBACK: &str = "rollback: exit status 1";

/// What a user's rollback ends with if the client has no record of an update.
const ROLLBACK_OF_NOTHING: &str = "rollback: exit status 2";

/// The record of a point.
#[derive(Clone, Debug)]
pub struct Record {
    /// The point.
    pub point: Point,
    /// QEMU's name of the machine.
    pub machine: &'static str,
    /// The last call of the module before the power loss.
    pub state: String,
    /// The dirty pages that were lost, in KiB.
    pub lost: u64,
    /// What was found after the device had settled.
    pub found: Found,
    /// The verdict on it.
    pub verdict: Verdict,
    /// From the start of the device to the verdict.
    pub duration: Duration,
}

impl Record {
    /// The record as a line of JSON, without the end of the line.
    pub fn json(&self) -> Value {
        let Self { point, machine, state, lost, found, verdict, duration } = self;
        let (verdict, reason) = match verdict {
            Verdict::Previous => ("previous", None),
            Verdict::New => ("new", None),
            Verdict::Client(reason) => ("client", Some(reason)),
            Verdict::Bad(reason) => ("bad", Some(reason)),
        };
        json!({
            "number": point.number,
            "machine": machine,
            "module": point.subject.module,
            "mode": format!("{:?}", point.mode).to_lowercase(),
            "moment": point.moment.name(),
            "delay_ms": milliseconds(point.delay),
            "state": state,
            "lost": point.writeback.description(),
            "dirty_kib": lost,
            "second_ms": point.second.map(milliseconds),
            "settled": found.settled,
            "work_tree": found.has_work_tree,
            "phase": found.phase,
            "views": {
                "disk": found.disk,
                "show-artifact": found.artifact,
                "show-provides": found.provided,
                "status": found.status,
                "log": found.has_log,
            },
            "recovery": found.recovery,
            "file_systems": found.damage.as_deref().unwrap_or("clean"),
            "verdict": verdict,
            "reason": reason,
            "seconds": duration.as_secs(),
        })
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The moment's row in a table.
pub fn row(mode: Mode, moment: Moment) -> String {
    format!("{}: {}", format!("{mode:?}").to_lowercase(), moment.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(version: &str, status: &str) -> Found {
        Found {
            disk: version.to_owned(),
            artifact: version.to_owned(),
            provided: (version == NEW).then(|| NEW.to_owned()),
            status: status.to_owned(),
            settled: None,
            has_work_tree: None,
            phase: None,
            has_log: status == "failure",
            recovery: "inactive".to_owned(),
            damage: None,
        }
    }

    #[test]
    fn either_version_is_good_if_all_views_agree() {
        let verdict = |version, status, mode| found(version, status).verdict(mode, "ArtifactInstall");
        assert_eq!(verdict(NEW, "success", Mode::Managed), Verdict::New);
        assert_eq!(verdict(NEW, "already-installed", Mode::Managed), Verdict::New);
        assert_eq!(verdict(BASE, "failure", Mode::Managed), Verdict::Previous);
        assert_eq!(verdict(NEW, NOTHING_PENDING, Mode::Standalone), Verdict::New);
        assert_eq!(verdict(BASE, NOTHING_PENDING, Mode::Standalone), Verdict::Previous);
    }

    #[test]
    fn every_view_can_make_a_point_bad() {
        let changes: [fn(&mut Found); 8] = [
            |found| found.disk = "mixed: index.html".into(),
            |found| found.disk = BASE.into(),
            |found| found.artifact = BASE.into(),
            |found| found.provided = None,
            |found| found.status = "failure".into(),
            |found| found.status = String::new(),
            |found| found.recovery = "failed".into(),
            |found| found.damage = Some("e2fsck".into()),
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut found = found(NEW, "success");
            change(&mut found);
            let verdict = found.verdict(Mode::Managed, "ArtifactInstall");
            assert!(matches!(verdict, Verdict::Bad(_)), "{number}: {verdict:?}");
        }
        let pending = found(NEW, "update pending").verdict(Mode::Standalone, "ArtifactCommit");
        assert!(matches!(pending, Verdict::Bad(_)));
        let no_log = Found { has_log: false, ..found(BASE, "failure") }.verdict(Mode::Managed, "Download");
        assert!(matches!(no_log, Verdict::Bad(_)));
    }

    #[test]
    fn a_failure_of_a_committed_update_is_the_clients_only_after_its_commit() {
        let found = found(NEW, "failure");
        assert!(matches!(found.verdict(Mode::Managed, "Cleanup"), Verdict::Client(_)));
        assert!(matches!(found.verdict(Mode::Managed, "ArtifactCommit"), Verdict::Client(_)));
        assert!(matches!(found.verdict(Mode::Managed, "ArtifactInstall"), Verdict::Bad(_)));
        let not_recorded = Found { artifact: BASE.into(), ..found };
        assert!(matches!(not_recorded.verdict(Mode::Managed, "ArtifactCommit"), Verdict::Bad(_)));
    }

    #[test]
    fn a_record_of_the_client_without_a_work_tree_is_the_clients() {
        let failed = Found {
            artifact: format!("{NEW}_INCONSISTENT"),
            settled: Some(FAILED_ROLLBACK.into()),
            has_work_tree: Some(false),
            ..found(BASE, "update pending")
        };
        let verdict = |found: &Found, mode, state| matches!(found.verdict(mode, state), Verdict::Client(_));
        assert!(verdict(&failed, Mode::Standalone, "Cleanup"));
        assert!(!verdict(&failed, Mode::Standalone, "ArtifactRollback") && !verdict(&failed, Mode::Managed, "Cleanup"));
        let others: [fn(&mut Found); 4] = [
            |found| found.has_work_tree = Some(true),
            |found| found.disk = NEW.into(),
            |found| found.phase = Some("Active".into()),
            |found| found.artifact = BASE.into(),
        ];
        for other in others {
            let mut found = failed.clone();
            other(&mut found);
            assert!(!verdict(&found, Mode::Standalone, "Cleanup"), "{found:?}");
        }
    }

    #[test]
    fn an_active_update_without_a_record_of_the_client_is_the_clients() {
        let unknown = Found {
            artifact: BASE.into(),
            provided: None,
            phase: Some("Active".into()),
            settled: Some(ROLLBACK_OF_NOTHING.into()),
            ..found(NEW, NOTHING_PENDING)
        };
        let is_the_clients = |found: &Found, mode| matches!(found.verdict(mode, "health-check"), Verdict::Client(_));
        assert!(is_the_clients(&unknown, Mode::Standalone));
        assert!(!is_the_clients(&unknown, Mode::Managed));
        assert!(!is_the_clients(&Found { phase: None, ..unknown.clone() }, Mode::Standalone));
        assert!(!is_the_clients(&Found { settled: None, ..unknown }, Mode::Standalone));
    }
}
