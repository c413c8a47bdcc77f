//! Drives a subject from state to state, and finds out which version is active at the end.

use std::ffi::OsStr;

use anyhow::{Result, ensure};

use crate::fault_injection::{End, Sequence, Subject};
use crate::{MockClient, Outcome, Snapshot};

/// The two versions that may be active. Modification times of the new version are compared only if the artifact sets
/// them.
pub struct Versions {
    previous: Snapshot,
    new: Snapshot,
}

impl Versions {
    /// The previous version, and the new version as an update without a fault makes it.
    ///
    /// # Errors
    /// When the update fails, or changes nothing.
    pub fn of(subject: &dyn Subject) -> Result<Self> {
        let device = subject.device()?;
        let previous = subject.active(&device)?;
        for state in ["Download", "ArtifactInstall", "ArtifactCommit", "Cleanup"] {
            succeed(subject, &device, state)?;
        }
        let (previous, new) = (relative(&previous, &device), relative(&subject.active(&device)?, &device));
        ensure!(
            previous.clone().without_times() != new.clone().without_times(),
            "fault injection impossible: the update changes nothing on the device"
        );
        Ok(Self { previous, new: comparable(subject, new) })
    }
}

/// Calls `states`, which have to succeed, and returns the version that is active then.
///
/// # Errors
/// When a state fails, something is left behind, or neither the previous nor the new version is active.
pub fn finish(subject: &dyn Subject, device: &MockClient, states: &[&str], versions: &Versions) -> Result<End> {
    for state in states {
        succeed(subject, device, state)?;
    }
    subject.is_clean(device)?;
    let active = relative(&subject.active(device)?, device);
    if active == versions.previous {
        return Ok(End::Previous);
    }
    let new = comparable(subject, active.clone());
    ensure!(
        new == versions.new,
        "neither version is active: different from the previous version: {}; different from the new version: {}",
        active.shown_differences(&versions.previous),
        new.shown_differences(&versions.new)
    );
    Ok(End::New)
}

/// The part of an installed version that is known in advance.
fn comparable(subject: &dyn Subject, installed: Snapshot) -> Snapshot {
    if subject.knows_times() { installed } else { installed.without_times() }
}

/// A device in the state before the one that `sequence` interrupts.
pub fn prepared(subject: &dyn Subject, sequence: &Sequence) -> Result<MockClient> {
    let device = subject.device()?;
    for state in sequence.before {
        succeed(subject, &device, state)?;
    }
    Ok(device)
}

/// Calls the module in `state`; for `Download` with the subject's payload.
///
/// # Errors
/// When the module cannot be started.
pub fn call(subject: &dyn Subject, device: &MockClient, state: &str) -> Result<Outcome> {
    if state == "--recover" {
        subject.boot(device)?;
    }
    if state != "Download" {
        return device.call(state);
    }
    let files = subject.payload(device)?;
    let payload: Vec<_> = files.iter().map(|(name, content)| (OsStr::new(name), content.as_slice())).collect();
    device.download(&payload)
}

/// Calls the module in `state`, which has to succeed.
///
/// # Errors
/// When the module fails, with its output.
pub fn succeed(subject: &dyn Subject, device: &MockClient, state: &str) -> Result<()> {
    let outcome = call(subject, device, state)?;
    // Paths are shown from the device on: the same failure reads the same in every temporary directory.
    let shown = || outcome.to_string().replace(&format!("{}/", device.device().display()), "");
    ensure!(outcome.success(), "{state} failed: {}", shown());
    Ok(())
}

/// Snapshots of two devices are compared as if both were in the same directory.
fn relative(snapshot: &Snapshot, device: &MockClient) -> Snapshot {
    snapshot.clone().below(device.device())
}
