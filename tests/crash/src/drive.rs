//! A subject driven from state to state, and what is live in the end.

use std::ffi::OsStr;

use anyhow::{Result, ensure};
use mock_client::{MockClient, Outcome, Snapshot};

use crate::{Course, End, Subject};

/// The two trees that are allowed. The new has modification times only where the artifact says them.
pub struct Trees {
    old: Snapshot,
    new: Snapshot,
}

impl Trees {
    /// The old tree, and the new one as an undisturbed update makes it.
    ///
    /// # Errors
    /// When the update fails, or changes nothing.
    pub fn of(subject: &dyn Subject) -> Result<Self> {
        let device = subject.device()?;
        let old = subject.live(&device)?;
        for state in ["Download", "ArtifactInstall", "ArtifactCommit", "Cleanup"] {
            succeed(subject, &device, state)?;
        }
        let (old, new) = (relative(&old, &device), relative(&subject.live(&device)?, &device));
        ensure!(
            old.clone().without_times() != new.clone().without_times(),
            "the update under test changes nothing"
        );
        Ok(Self { old, new: comparable(subject, new) })
    }
}

/// Goes through `states`, which have to succeed, and compares what is live in the end.
///
/// # Errors
/// When a state fails, something is left behind, or what is live is neither the old nor the new.
pub fn finish(subject: &dyn Subject, device: &MockClient, states: &[&str], trees: &Trees) -> Result<End> {
    for state in states {
        succeed(subject, device, state)?;
    }
    subject.is_clean(device)?;
    let live = relative(&subject.live(device)?, device);
    if live == trees.old {
        return Ok(End::Old);
    }
    let new = comparable(subject, live.clone());
    ensure!(
        new == trees.new,
        "neither: it differs from the old in {:?}, from the new in {:?}",
        live.differences(&trees.old),
        new.differences(&trees.new)
    );
    Ok(End::New)
}

/// What can be known in advance of what an update has made.
fn comparable(subject: &dyn Subject, made: Snapshot) -> Snapshot {
    if subject.knows_times() { made } else { made.without_times() }
}

/// A device on which `course` has come to the state that is cut.
///
/// # Errors
/// When one of the states before fails.
pub fn prepared(subject: &dyn Subject, course: &Course) -> Result<MockClient> {
    let device = subject.device()?;
    for state in course.before {
        succeed(subject, &device, state)?;
    }
    Ok(device)
}

/// Calls `state`, or downloads.
///
/// # Errors
/// When the module cannot be started.
pub fn step(subject: &dyn Subject, device: &MockClient, state: &str) -> Result<Outcome> {
    if state == "--recover" {
        subject.boot(device)?;
    }
    if state != "Download" {
        return device.call(state);
    }
    let files = subject.payload(device)?;
    let payload: Vec<_> =
        files.iter().map(|(name, content)| (OsStr::new(name), content.as_slice())).collect();
    device.download(&payload)
}

/// Calls `state`, which has to succeed.
///
/// # Errors
/// When it does not.
pub fn succeed(subject: &dyn Subject, device: &MockClient, state: &str) -> Result<()> {
    let outcome = step(subject, device, state)?;
    // Paths from the device on: the same failure reads the same, whatever the temporary directory is called.
    let shown = || format!("{outcome:?}").replace(&format!("{}/", device.device().display()), "");
    ensure!(outcome.success(), "{state} failed: {}", shown());
    Ok(())
}

/// Every device has a directory of its own; two snapshots are compared as if it were the same.
fn relative(snapshot: &Snapshot, device: &MockClient) -> Snapshot {
    snapshot.clone().below(device.device())
}
