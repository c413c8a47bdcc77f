//! Fault injection: a module is killed before and after each system call that changes a file system, each such call
//! is made to fail, and unsynced writes are lost. Then the client continues as the real one does, and exactly the
//! previous or exactly the new version has to be active.
//!
//! The [`Tracer`] makes the faults, in all processes of a module. It also records the effects of the calls, from which
//! `lost` computes the states that a power loss may leave.

mod described;
mod drive;
#[doc(hidden)]
pub mod image;
mod lost;
mod lost_writes;
mod memory;
#[doc(hidden)]
pub mod operation;
mod report;
mod scope;
mod sequence;
mod traced;
#[cfg(target_arch = "x86_64")]
mod tracer;

use anyhow::{Context, Result};
use rayon::prelude::*;

use crate::{MockClient, Snapshot};
pub use described::described;
use drive::{Versions, finish, prepared};
pub use drive::{call, succeed};
pub use memory::directory_for_devices;
use operation::Recording;
use report::Attempt;
pub use report::{Report, Violation};
pub use scope::Scope;
use scope::{FaultKind, step_width};
pub use sequence::{BOOT, End, Expected, SEQUENCES, Sequence};
use sequence::{SECOND_INTERRUPTIONS, SecondInterruption};
pub use traced::{Fault, Tracer};
#[cfg(target_arch = "x86_64")]
pub(crate) use tracer::main as tracer_main;

/// A module under test, its device and its payload.
pub trait Subject: Sync {
    /// The name, different from the module's other subjects.
    fn name(&self) -> &'static str;

    /// A new device with the previous version, the same one every time.
    fn device(&self) -> Result<MockClient>;

    /// Everything on `device` that an update may change.
    fn active(&self, device: &MockClient) -> Result<Snapshot>;

    /// What users see of `active`, also while an update is pending: without what the module keeps for itself. Default:
    /// all of it.
    fn visible(&self, device: &MockClient) -> Result<Snapshot> {
        self.active(device)
    }

    /// Checks that `device`, on which an update has succeeded, has the version that the payload describes. The check
    /// must not use the module: a module that installs something else the same way every time would pass.
    ///
    /// # Errors
    /// What is different.
    fn require_new(&self, device: &MockClient) -> Result<()>;

    /// The files of an artifact for `device`: name and content.
    fn payload(&self, device: &MockClient) -> Result<Vec<(String, Vec<u8>)>>;

    /// Whether the artifact sets the modification time of everything that the update makes. Otherwise times are not
    /// known in advance, and the new version is compared without them.
    fn knows_times(&self) -> bool {
        false
    }

    /// What a power loss and the next boot do to `device` before the recovery: files in memory are gone. Default:
    /// nothing.
    fn boot(&self, _device: &MockClient) -> Result<()> {
        Ok(())
    }

    /// The directories of the device whose unsynced writes are lost, relative to it; none is inside another. Default:
    /// the device itself.
    fn recorded(&self) -> &'static [&'static str] {
        &[""]
    }

    /// Whether the failure of the sync `call`, as reports show it, is injected: another program answers for its own
    /// files. Default: all but that of the device's top directory, in which the staging directory of a first install
    /// is: one that was removed may come back then, which takes space only.
    fn is_sync_of_module(&self, call: &str) -> bool {
        !call.ends_with("/with spaces")
    }

    /// Checks that nothing of an ended update is left on `device`, apart from what is active.
    ///
    /// # Errors
    /// When something is left.
    fn is_clean(&self, device: &MockClient) -> Result<()>;
}

/// Injects the faults of `scope` in `subject`, in every sequence.
///
/// # Errors
/// When the test itself fails, for example because the update does not work without a fault. Effects of faults are in
/// the reports.
pub fn run(subject: &dyn Subject, tracer: &Tracer, scope: Scope) -> Result<Vec<Report>> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(WORKERS).build();
    let pool = pool.context("starting threads failed")?;
    pool.install(|| {
        let injection = Injection { subject, tracer, versions: Versions::of(subject)? };
        let name = |sequence: &Sequence| format!("{}: {}", subject.name(), sequence.name);
        let mut reports: Vec<_> = SEQUENCES.iter().map(|sequence| Report::new(name(sequence))).collect();
        injection.faults(scope, &mut reports)?;
        if scope.lost_writes {
            injection.lost_writes(scope, &mut reports)?;
            injection.failed_syncs(scope, &mut reports)?;
        }
        for (index, second) in SECOND_INTERRUPTIONS.iter().enumerate() {
            if scope.pairs && scope.has(FaultKind::CrashPoints, index) {
                reports.push(injection.pairs(second, scope)?);
            }
            if scope.pairs && scope.has(FaultKind::LostWrites, index) {
                reports.push(injection.lost_in_second(second, scope)?);
            }
        }
        Ok(reports)
    })
}

/// The number of attempts at a time. Most of an attempt is waiting for processes and for the disk.
const WORKERS: usize = 8;

/// A subject with everything that an attempt needs.
struct Injection<'a> {
    subject: &'a dyn Subject,
    tracer: &'a Tracer,
    versions: Versions,
}

impl Injection<'_> {
    /// Every crash point and every failing call of every sequence.
    fn faults(&self, scope: Scope, reports: &mut [Report]) -> Result<()> {
        if !scope.one_kind {
            let undisturbed: Vec<_> = SEQUENCES.par_iter().map(|sequence| self.undisturbed(sequence)).collect();
            for ((sequence, end), report) in SEQUENCES.iter().zip(undisturbed).zip(&mut *reports) {
                report.add(Attempt::Undisturbed, sequence.after_success.1, "without a fault".to_owned(), end);
            }
        }
        let plan = |(index, sequence): (usize, &Sequence)| self.plan(index, sequence, scope);
        let plans: Vec<_> = SEQUENCES.par_iter().enumerate().map(plan).collect();
        let mut attempts = Vec::new();
        for (index, plan) in plans.into_iter().enumerate() {
            attempts.extend(plan?.into_iter().map(|(fault, shown)| (index, fault, shown)));
        }
        let attempt = |&(index, fault, _): &(usize, Fault, String)| self.attempt(&SEQUENCES[index], fault);
        let ends: Vec<_> = attempts.par_iter().map(attempt).collect();
        for ((index, fault, shown), (expected, end)) in attempts.into_iter().zip(ends) {
            let report = &mut reports[index];
            let before = report.violations.len();
            let attempt = if fault.is_interruption() { Attempt::CrashPoint } else { Attempt::FailingCall };
            report.add(attempt, expected, format!("{fault} ({shown})"), end);
            // The last crash point is after the last call: everything was done.
            if let (Fault::KillAfter(_), [last]) = (fault, &report.violations[before..]) {
                let same = |violation: &&Violation| violation.end == last.end;
                report.without_interruption = report.violations.iter().filter(same).count();
            }
        }
        Ok(())
    }

    /// The faults to inject in `sequence`, each with its call.
    fn plan(&self, index: usize, sequence: &Sequence, scope: Scope) -> Result<Vec<(Fault, String)>> {
        let recorded = |list: fn(&Tracer, &dyn Subject, &mut MockClient, &str) -> Result<Recording>| {
            let mut device = prepared(self.subject, sequence)?;
            list(self.tracer, self.subject, &mut device, sequence.interrupted)
                .with_context(|| format!("recording the sequence {:?} failed", sequence.name))
        };
        let mut plan = Vec::new();
        if scope.has(FaultKind::FailingReads, index) {
            let reads = recorded(Tracer::list_reads)?.calls.into_iter().map(|call| call.shown);
            let reads = (1..).zip(reads).map(|(number, shown)| (Fault::Read(number), shown));
            plan.extend(scope.of(reads.collect()));
        }
        if ![FaultKind::CrashPoints, FaultKind::FailingCalls].iter().any(|kind| scope.has(*kind, index)) {
            return Ok(plan);
        }
        let recording = recorded(Tracer::list)?;
        let mut faults = Vec::new();
        if scope.has(FaultKind::CrashPoints, index) {
            faults.extend(scope.of(crash_points(&recording)));
        }
        if scope.has(FaultKind::FailingCalls, index) {
            let (errors, calls) = (["ENOSPC", "EIO"].into_iter(), 1..=recording.calls.len());
            let failures = errors.flat_map(|error| {
                let alone = calls.clone().map(move |n| Fault::Error(n, error));
                alone.chain(calls.clone().map(move |n| Fault::Persistent(n, error)))
            });
            faults.extend(scope.of(failures.collect()));
        }
        plan.extend(faults.into_iter().map(|fault| (fault, recording.calls[fault.call() - 1].shown.clone())));
        Ok(plan)
    }

    /// The calls of `sequence` without a fault.
    fn undisturbed(&self, sequence: &Sequence) -> Result<End> {
        let device = prepared(self.subject, sequence)?;
        succeed(self.subject, &device, sequence.interrupted)?;
        finish(self.subject, &device, sequence.after_success.0, &self.versions)
    }

    /// Injects `fault`, continues as the client does, and returns the version that has to be active, and the outcome.
    /// After a failing call they follow from what the module has reported.
    fn attempt(&self, sequence: &Sequence, fault: Fault) -> (Expected, Result<End>) {
        let inject = || -> Result<_> {
            let mut device = prepared(self.subject, sequence)?;
            let success = self.tracer.inject(self.subject, &mut device, sequence.interrupted, fault)?;
            Ok((device, success))
        };
        let (device, success) = match inject() {
            Ok(injected) => injected,
            Err(error) => return (sequence.after_power_loss.1, Err(error)),
        };
        let (states, expected) = match fault {
            Fault::KillBefore(_) | Fault::KillAfter(_) => sequence.after_power_loss,
            _ if success => sequence.after_success,
            _ => sequence.after_failure,
        };
        (expected, finish(self.subject, &device, states, &self.versions))
    }

    /// A device before the first state of `second`.
    fn before(&self, second: &SecondInterruption) -> Result<MockClient> {
        let device = self.subject.device()?;
        second.before.iter().try_for_each(|state| succeed(self.subject, &device, state))?;
        Ok(device)
    }

    /// Interrupts both states of `second`: every pair of crash points.
    fn pairs(&self, second: &SecondInterruption, scope: Scope) -> Result<Report> {
        let SecondInterruption { first: earlier, state, .. } = second;
        let scope = scope.of_each(); // as many pairs as a sequence has crash points
        let recording = self.tracer.list(self.subject, &mut self.before(second)?, earlier)?;
        let firsts = crash_points(&recording);
        // Each first crash point is paired with every second one by some offset.
        let seconds_of = Scope { offset: scope.offset / step_width(firsts.len(), scope.sample), ..scope };
        let pairs = |&first: &Fault| -> Result<Vec<_>> {
            let interrupted = || -> Result<_> {
                let mut device = self.before(second)?;
                self.tracer.inject(self.subject, &mut device, earlier, first)?;
                Ok(device)
            };
            let seconds = crash_points(&self.tracer.list(self.subject, &mut interrupted()?, state)?);
            let end = |fault| {
                let mut device = interrupted()?;
                self.tracer.inject(self.subject, &mut device, state, fault)?;
                finish(self.subject, &device, second.after_power_loss, &self.versions)
            };
            Ok(seconds_of.of(seconds).into_iter().map(|fault| (first, fault, end(fault))).collect())
        };
        let firsts = scope.of(firsts);
        let pairs: Vec<_> = firsts.par_iter().map(pairs).collect();
        let mut report = Report::new(format!("{}: {earlier} and then {state}, both interrupted", self.subject.name()));
        for pair in pairs {
            for (first, fault, end) in pair? {
                let shown = format!("{earlier} {first}, {state} {fault}");
                report.add(Attempt::CrashPoint, Expected::Only(End::Previous), shown, end);
            }
        }
        Ok(report)
    }
}

/// The crash points of a recording: before each call and after the last. "After call N" is the same as "before call
/// N+1", and a call that fails anyway changes nothing.
fn crash_points(recording: &Recording) -> Vec<Fault> {
    let done = |(index, call): (usize, &operation::Call)| call.done.then_some(index + 1);
    let calls: Vec<_> = recording.calls.iter().enumerate().filter_map(done).collect();
    let last = calls.last().map(|&call| Fault::KillAfter(call));
    calls.iter().map(|&call| Fault::KillBefore(call)).chain(last).collect()
}
