//! Every cut: a module is killed at each system call that changes a file system, and each such call is made to fail;
//! then the client goes on as the real one does, and the destination has to be exactly the old or exactly the new.
//!
//! A cut is made by strace's injection of SIGKILL when a call is entered: the call does not happen. A kill after call
//! N is the kill before call N+1, and the last is the one before the process's exit. What a kill cannot show is the
//! loss of writes that were never synced; the power cuts of the end-to-end tests show that.

mod calls;
mod course;
mod report;

use std::panic::resume_unwind;
use std::thread;

use anyhow::{Context, Result, ensure};
use mock_client::{MockClient, Outcome, PayloadFile, Snapshot};

use calls::{Call, Fault};
pub use course::{COURSES, Course, End};
pub use report::Report;

/// A module under test and what it is tested on.
pub trait Subject: Sync {
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
    let calls = record(subject, prepared(subject, course)?, course.cut)?;
    let attempts: Vec<_> =
        calls.iter().flat_map(|call| call.faults().iter().map(move |&fault| (call, fault))).collect();
    let ends = side_by_side(&attempts, |&(call, fault)| attempt(subject, course, &trees, call, fault));
    let mut report = Report::new(course.name);
    for ((call, fault), end) in attempts.into_iter().zip(ends) {
        let allowed: &[End] = match fault {
            Fault::Kill => &[course.end_after_cut],
            Fault::Error(_) => &[course.end_after_failure, course.end_after_success],
        };
        report.add(allowed, call, fault, end);
    }
    Ok(report)
}

/// Cuts the rollback of an install that was itself cut: every pair of cuts, and then the rollback again.
///
/// # Errors
/// As [`run`].
pub fn run_twice_cut(subject: &dyn Subject) -> Result<Report> {
    let trees = trees(subject)?;
    let [install, rollback] = ["ArtifactInstall", "ArtifactRollback"];
    let cut_install = || -> Result<_> {
        let device = subject.device()?;
        succeed(subject, &device, "Download")?;
        Ok(device)
    };
    let mut report = Report::new("ArtifactInstall, then ArtifactRollback, both cut");
    for first in record(subject, cut_install()?, install)? {
        let half_installed = || -> Result<_> {
            let mut device = cut_install()?;
            inject(subject, &mut device, install, &first, Fault::Kill)?;
            Ok(device)
        };
        for second in record(subject, half_installed()?, rollback)? {
            let end = half_installed().and_then(|mut device| {
                inject(subject, &mut device, rollback, &second, Fault::Kill)?;
                finish(subject, &device, &["ArtifactRollback", "ArtifactFailure", "Cleanup"], &trees)
            });
            report.add(
                &[End::Old],
                &second,
                Fault::Kill,
                end.with_context(|| format!("after a cut at {first}")),
            );
        }
    }
    Ok(report)
}

/// Does `work` on every item, several at a time: most of an attempt is waiting for the disk to sync.
fn side_by_side<T: Sync, E: Send>(items: &[T], work: impl Fn(&T) -> E + Sync) -> Vec<E> {
    const WORKERS: usize = 8;
    let share = items.len().div_ceil(WORKERS).max(1);
    thread::scope(|scope| {
        let workers: Vec<_> = items
            .chunks(share)
            .map(|items| scope.spawn(|| items.iter().map(&work).collect::<Vec<_>>()))
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect()
    })
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

/// The changing calls that the module makes in `state` when nothing disturbs it.
fn record(subject: &dyn Subject, mut device: MockClient, state: &str) -> Result<Vec<Call>> {
    let log = device.device().join("strace.log");
    device.wrap(calls::recorder(&log));
    succeed(subject, &device, state)?;
    calls::parse(&std::fs::read_to_string(&log).context("reading strace's log: is strace installed?")?)
}

/// Runs `state` with `fault` at `call`.
fn inject(
    subject: &dyn Subject,
    device: &mut MockClient,
    state: &str,
    call: &Call,
    fault: Fault,
) -> Result<Outcome> {
    device.wrap(calls::injector(call, fault));
    let outcome = step(subject, device, state)?;
    device.wrap([""; 0]);
    let cut = outcome.status.code().is_none();
    ensure!(cut == (fault == Fault::Kill), "{fault:?} at {call} had another effect: {outcome:?}");
    Ok(outcome)
}

/// Injects `fault` at `call`, goes on as the client would, and says how that ended.
fn attempt(subject: &dyn Subject, course: &Course, trees: &Trees, call: &Call, fault: Fault) -> Result<End> {
    let mut device = prepared(subject, course)?;
    let outcome = inject(subject, &mut device, course.cut, call, fault)?;
    let rest = match fault {
        Fault::Kill => course.after_cut,
        Fault::Error(_) if outcome.success() => course.after_success,
        Fault::Error(_) => course.after_failure,
    };
    finish(subject, &device, rest, trees)
}

/// Goes through `states`, which have to succeed, and compares what is live in the end.
fn finish(subject: &dyn Subject, device: &MockClient, states: &[&str], trees: &Trees) -> Result<End> {
    for state in states {
        succeed(subject, device, state)?;
    }
    subject.is_clean(device)?;
    let live = relative(&subject.live(device)?, device);
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
