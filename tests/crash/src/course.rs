//! What the clients do around a cut: the power-loss table of the protocol, as data.

/// How an update ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Exactly the old.
    Old,
    /// Exactly the new, but for the modification times of what the update made.
    New,
}

/// One state that is cut, and the calls before and after.
pub struct Course {
    /// The report's name for it.
    pub name: &'static str,
    /// The states that come first, undisturbed.
    pub before: &'static [&'static str],
    /// The state that is cut.
    pub cut: &'static str,
    /// What the client calls when power is back.
    pub after_cut: &'static [&'static str],
    /// How that has to end.
    pub end_after_cut: End,
    /// What it calls when the state fails.
    pub after_failure: &'static [&'static str],
    /// How that has to end.
    pub end_after_failure: End,
    /// What it calls when the state succeeds in spite of a failing call.
    pub after_success: &'static [&'static str],
    /// How that has to end.
    pub end_after_success: End,
}

const ROLLED_BACK: &[&str] = &["ArtifactRollback", "ArtifactFailure", "Cleanup"];
const GONE_ON: &[&str] = &["ArtifactInstall", "ArtifactCommit", "Cleanup"];

/// Every row of the power-loss table, for client 5 and for client 3.4 where it differs, and the boot's recovery.
pub const COURSES: &[Course] = &[
    Course {
        name: "Download",
        before: &[],
        cut: "Download",
        after_cut: &["Cleanup"],
        end_after_cut: End::Old,
        after_failure: &["Cleanup"],
        end_after_failure: End::Old,
        after_success: GONE_ON,
        end_after_success: End::New,
    },
    Course {
        name: "Download, then another update (3.4)",
        before: &[],
        cut: "Download",
        after_cut: &["Download", "ArtifactInstall", "ArtifactCommit", "Cleanup"],
        end_after_cut: End::New,
        after_failure: &["Download", "ArtifactInstall", "ArtifactCommit", "Cleanup"],
        end_after_failure: End::New,
        after_success: GONE_ON,
        end_after_success: End::New,
    },
    Course {
        name: "ArtifactInstall",
        before: &["Download"],
        cut: "ArtifactInstall",
        after_cut: ROLLED_BACK,
        end_after_cut: End::Old,
        after_failure: ROLLED_BACK,
        end_after_failure: End::Old,
        after_success: &["ArtifactCommit", "Cleanup"],
        end_after_success: End::New,
    },
    Course {
        name: "ArtifactInstall, then a boot",
        before: &["Download"],
        cut: "ArtifactInstall",
        after_cut: &["--recover", "ArtifactRollback", "ArtifactFailure", "Cleanup"],
        end_after_cut: End::Old,
        after_failure: &["--recover", "ArtifactRollback", "ArtifactFailure", "Cleanup"],
        end_after_failure: End::Old,
        after_success: &["--recover", "ArtifactCommit", "Cleanup"],
        end_after_success: End::New,
    },
    Course {
        name: "ArtifactInstall, then another update (3.4)",
        before: &["Download"],
        cut: "ArtifactInstall",
        after_cut: &["Download", "Cleanup"],
        end_after_cut: End::Old,
        after_failure: &["Download", "Cleanup"],
        end_after_failure: End::Old,
        after_success: &["Download", "Cleanup"],
        end_after_success: End::Old,
    },
    Course {
        name: "ArtifactCommit",
        before: &["Download", "ArtifactInstall"],
        cut: "ArtifactCommit",
        after_cut: ROLLED_BACK,
        end_after_cut: End::Old,
        after_failure: ROLLED_BACK,
        end_after_failure: End::Old,
        after_success: &["Cleanup"],
        end_after_success: End::New,
    },
    Course {
        name: "ArtifactCommit, repeated",
        before: &["Download", "ArtifactInstall"],
        cut: "ArtifactCommit",
        after_cut: &["ArtifactCommit", "Cleanup"],
        end_after_cut: End::New,
        after_failure: &["ArtifactCommit", "Cleanup"],
        end_after_failure: End::New,
        after_success: &["Cleanup"],
        end_after_success: End::New,
    },
    Course {
        name: "ArtifactRollback",
        before: &["Download", "ArtifactInstall"],
        cut: "ArtifactRollback",
        after_cut: ROLLED_BACK,
        end_after_cut: End::Old,
        after_failure: &["ArtifactFailure", "Cleanup"],
        end_after_failure: End::Old,
        after_success: &["ArtifactFailure", "Cleanup"],
        end_after_success: End::Old,
    },
    Course {
        name: "ArtifactRollback after commit",
        before: &["Download", "ArtifactInstall", "ArtifactCommit"],
        cut: "ArtifactRollback",
        after_cut: &["--recover", "ArtifactRollback", "ArtifactFailure", "Cleanup"],
        end_after_cut: End::Old,
        after_failure: &["ArtifactFailure", "Cleanup"],
        end_after_failure: End::Old,
        after_success: &["ArtifactFailure", "Cleanup"],
        end_after_success: End::Old,
    },
    Course {
        name: "Cleanup after commit",
        before: &["Download", "ArtifactInstall", "ArtifactCommit"],
        cut: "Cleanup",
        after_cut: &["Cleanup"],
        end_after_cut: End::New,
        after_failure: &["Cleanup"],
        end_after_failure: End::New,
        after_success: &["Cleanup"],
        end_after_success: End::New,
    },
    Course {
        name: "Cleanup after rollback",
        before: &["Download", "ArtifactInstall", "ArtifactRollback", "ArtifactFailure"],
        cut: "Cleanup",
        after_cut: &["Cleanup"],
        end_after_cut: End::Old,
        after_failure: &["Cleanup"],
        end_after_failure: End::Old,
        after_success: &["Cleanup"],
        end_after_success: End::Old,
    },
];

/// What meets an install that was cut, and may be cut itself.
pub struct Second {
    /// The state, or the boot's recovery.
    pub state: &'static str,
    /// What is called when power is back. It has to end with the old.
    pub after_cut: &'static [&'static str],
}

/// The client's rollback, the boot, and, since client 3.4 forgets an install that was cut, the next update: of that it
/// forgets a download that was cut, too, and what it calls then is yet another one.
pub const SECONDS: &[Second] = &[
    Second { state: "ArtifactRollback", after_cut: ROLLED_BACK },
    Second {
        state: "--recover",
        after_cut: &["--recover", "ArtifactRollback", "ArtifactFailure", "Cleanup"],
    },
    Second { state: "Download", after_cut: &["--recover", "Download", "Cleanup"] },
];
