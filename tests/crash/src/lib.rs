//! Every cut: a module is killed at each system call that changes a file system, and each such call is made to fail;
//! then the client goes on as the real one does, and the destination has to be exactly the old or exactly the new.
//!
//! A cut is made by strace's injection of SIGKILL when a call is entered: the call does not happen. A kill after call
//! N is the kill before call N+1, and the last is the one before the process's exit. What a kill cannot show is the
//! loss of writes that were never synced; the power cuts of the end-to-end tests show that.

mod calls;
mod course;
mod report;

use anyhow::{Context, Result, ensure};
use mock_client::{MockClient, Outcome, PayloadFile, Snapshot};

use calls::{Call, Fault};
pub use course::{COURSES, Course, End};
pub use report::Report;

/// A module under test and what it is tested on.
pub trait Subject {
    /// A fresh device with the old in place, the same one every time.
    ///
    /// # Errors
    /// When it cannot be made.
    fn device(&self) -> Result<MockClient>;

    /// Everything on `device` that an update may change.
    ///
    /// # Errors
    /// When it cannot be read.
    fn live(&self, device: &MockClient) -> Result<Snapshot>;

    /// The files of the artifact.
    fn payload(&self) -> Vec<PayloadFile<'_>>;

    /// What the update must have left on `device` beside what is live: nothing, once it has ended.
    ///
    /// # Errors
    /// When something is left, or cannot be looked at.
    fn is_clean(&self, device: &MockClient) -> Result<()>;
}

/// The two trees that are allowed. The new is compared without modification times, which no one can know in advance.
struct Trees {
    old: Snapshot,
    new: Snapshot,
}

/// Tries every cut and every failing call of `course`.
///
/// # Errors
/// When the suite itself fails: strace is missing, an update without any fault does not work, or the like. What a
/// fault does to the module is in the [`Report`].
pub fn run(subject: &dyn Subject, course: &Course) -> Result<Report> {
    let trees = trees(subject)?;
    let calls = record(subject, course)?;
    let mut report = Report::new(course.name);
    for call in &calls {
        for &fault in call.faults() {
            let end = attempt(subject, course, &trees, call, fault);
            report.add(course, call, fault, end);
        }
    }
    Ok(report)
}

/// The old tree, and the new one as an undisturbed update makes it.
fn trees(subject: &dyn Subject) -> Result<Trees> {
    let device = subject.device()?;
    let old = subject.live(&device)?;
    for state in ["Download", "ArtifactInstall", "ArtifactCommit", "Cleanup"] {
        succeed(subject, &device, state)?;
    }
    let new = subject.live(&device)?.without_times();
    ensure!(
        relative(&old, &device).without_times() != relative(&new, &device),
        "the update under test changes nothing"
    );
    Ok(Trees { old: relative(&old, &device), new: relative(&new, &device) })
}

/// The calls that the cut state of `course` makes when nothing disturbs it.
fn record(subject: &dyn Subject, course: &Course) -> Result<Vec<Call>> {
    let mut device = prepared(subject, course)?;
    let log = device.device().join("strace.log");
    device.wrap(calls::recorder(&log));
    succeed(subject, &device, course.cut)?;
    calls::parse(&std::fs::read_to_string(&log).context("reading strace's log: is strace installed?")?)
}

/// Injects `fault` at `call`, goes on as the client would, and says how that ended.
fn attempt(subject: &dyn Subject, course: &Course, trees: &Trees, call: &Call, fault: Fault) -> Result<End> {
    let mut device = prepared(subject, course)?;
    device.wrap(calls::injector(call, fault));
    let outcome = step(subject, &device, course.cut)?;
    device.wrap([""; 0]);
    let rest = if outcome.success() {
        course.after_success
    } else if fault == Fault::Kill {
        ensure!(outcome.status.code().is_none(), "the cut did not cut: {outcome:?}");
        course.after_cut
    } else {
        course.after_failure
    };
    for state in rest {
        succeed(subject, &device, state)?;
    }
    subject.is_clean(&device)?;
    let live = relative(&subject.live(&device)?, &device);
    if live == trees.old {
        return Ok(End::Old);
    }
    let timeless = live.clone().without_times();
    ensure!(
        timeless == trees.new,
        "neither: it differs from the old in {:?}, from the new in {:?}",
        live.differences(&trees.old),
        timeless.differences(&trees.new)
    );
    Ok(End::New)
}

/// A device on which `course` has come to the state that is cut.
fn prepared(subject: &dyn Subject, course: &Course) -> Result<MockClient> {
    let device = subject.device()?;
    for state in course.before {
        succeed(subject, &device, state)?;
    }
    Ok(device)
}

fn step(subject: &dyn Subject, device: &MockClient, state: &str) -> Result<Outcome> {
    if state == "Download" { device.download(&subject.payload()) } else { device.call(state) }
}

fn succeed(subject: &dyn Subject, device: &MockClient, state: &str) -> Result<()> {
    let outcome = step(subject, device, state)?;
    ensure!(outcome.success(), "{state} failed: {outcome:?}");
    Ok(())
}

/// Every device has a folder of its own; two snapshots are compared as if it were the same.
fn relative(snapshot: &Snapshot, device: &MockClient) -> Snapshot {
    snapshot.clone().below(device.device())
}
