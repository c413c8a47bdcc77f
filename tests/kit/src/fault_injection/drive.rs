//! Drives a subject from state to state, and finds out which version is active at the end.

use std::ffi::OsStr;

use anyhow::{Context, Result, ensure};

use crate::fault_injection::sequence::{BOOT, COMMIT_OR_ROLL_BACK};
use crate::fault_injection::{End, Sequence, Subject};
use crate::{MockClient, Outcome, Snapshot};

/// The two versions that may be active.
pub struct Versions {
    /// Everything that an update may change.
    whole: Pair,
    /// What users see of it, also while an update is pending.
    visible: Pair,
}

/// The previous and the new version. Modification times of the new one are compared only if the artifact sets them.
struct Pair {
    previous: Snapshot,
    new: Snapshot,
}

impl Versions {
    /// The previous version, and the new version as an update without a fault makes it, which has to be the one that
    /// the payload describes.
    ///
    /// # Errors
    /// When the update fails, changes nothing, or makes another version.
    pub fn of(subject: &dyn Subject) -> Result<Self> {
        let device = subject.device()?;
        let [whole, visible] = [subject.active(&device)?, subject.visible(&device)?];
        for state in ["Download", "ArtifactInstall", "ArtifactCommit", "Cleanup"] {
            succeed(subject, &device, state)?;
        }
        subject.require_new(&device).context("the update without a fault made another version than its payload")?;
        let pair = |previous: Snapshot, new: Snapshot| Pair {
            previous: relative(&previous, &device),
            new: comparable(subject, relative(&new, &device)),
        };
        let (whole, visible) = (pair(whole, subject.active(&device)?), pair(visible, subject.visible(&device)?));
        for Pair { previous, new } in [&whole, &visible] {
            ensure!(
                previous.clone().without_times() != new.clone().without_times(),
                "fault injection impossible: the update changes nothing on the device"
            );
        }
        Ok(Self { whole, visible })
    }
}

impl Pair {
    /// The version that `active` is.
    ///
    /// # Errors
    /// When it is neither, with the paths that differ.
    fn which(&self, subject: &dyn Subject, active: &Snapshot) -> Result<End> {
        if *active == self.previous {
            return Ok(End::Previous);
        }
        let new = comparable(subject, active.clone());
        ensure!(
            new == self.new,
            "neither version is active: different from the previous version: {}; different from the new version: {}",
            active.shown_differences(&self.previous),
            new.shown_differences(&self.new)
        );
        Ok(End::New)
    }
}

/// Calls `states`, which have to succeed, and returns the version that is active then. After a boot, and before the
/// next call, one of the versions has to be active, too.
///
/// # Errors
/// When a state fails, something is left behind, or neither the previous nor the new version is active.
pub fn finish(subject: &dyn Subject, device: &MockClient, states: &[&str], versions: &Versions) -> Result<End> {
    let mut after_boot = None;
    for state in states {
        if *state == COMMIT_OR_ROLL_BACK {
            commit_or_roll_back(subject, device, after_boot.context("no boot before the commit")?)?;
        } else {
            succeed(subject, device, state)?;
        }
        if *state == BOOT {
            let visible = relative(&subject.visible(device)?, device);
            let version = versions.visible.which(subject, &visible).context("after the boot")?;
            after_boot = Some(version);
        }
    }
    subject.is_clean(device)?;
    let end = versions.whole.which(subject, &relative(&subject.active(device)?, device))?;
    if let Some(active) = after_boot.filter(|_| states.contains(&COMMIT_OR_ROLL_BACK)) {
        ensure!(
            end == active,
            "the version that was active after the boot, and at the commit, is not active at the end"
        );
    }
    Ok(end)
}

/// Does the step [`COMMIT_OR_ROLL_BACK`] while the version `active` is active.
fn commit_or_roll_back(subject: &dyn Subject, device: &MockClient, active: End) -> Result<()> {
    let commit = call(subject, device, "ArtifactCommit")?;
    ensure!(
        commit.success() == (active == End::New),
        "after the boot, the {} version was active, and ArtifactCommit {}: {commit}",
        if active == End::New { "new" } else { "previous" },
        if commit.success() { "succeeded" } else { "failed" }
    );
    if !commit.success() {
        ["ArtifactRollback", "ArtifactFailure"].iter().try_for_each(|state| succeed(subject, device, state))?;
    }
    Ok(())
}

/// The part of an installed version that is known in advance.
fn comparable(subject: &dyn Subject, installed: Snapshot) -> Snapshot {
    if subject.knows_times() { installed } else { installed.without_times() }
}

/// A device in the state before the one that `sequence` interrupts.
pub fn prepared(subject: &dyn Subject, sequence: &Sequence) -> Result<MockClient> {
    let mut device = subject.device()?;
    device.set_generation(sequence.client);
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
    if state == BOOT {
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
