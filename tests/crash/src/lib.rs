//! Every cut: a module is killed before and after each system call that changes a file system, each such call is made
//! to fail, and writes that were not synced are lost; then the client goes on as the real one does, and the
//! destination has to be exactly the old or exactly the new.
//!
//! Cuts and failures are made by `crash-tracer`, over all processes of a module. It also records what the calls do,
//! from which `lost` makes the directories that a power loss may leave.

mod course;
mod drive;
pub mod image;
mod lost;
pub mod operation;
mod report;
pub mod subjects;
mod tracer;

use anyhow::{Context, Result, bail, ensure};
use host::pool::side_by_side;
use image::Image;
use mock_client::{MockClient, Snapshot};

pub use course::{COURSES, Course, End};
use course::{SECONDS, Second};
use drive::{Trees, finish, prepared, succeed};
use report::Attempt;
pub use report::{Other, Report};
use tracer::Fault;
pub use tracer::Tracer;

/// A module under test and what it is tested on.
pub trait Subject: Sync {
    /// What tells it from the module's other subjects.
    fn name(&self) -> &'static str;

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

    /// The files of an artifact for `device`: name and content.
    ///
    /// # Errors
    /// When they cannot be made.
    fn payload(&self, device: &MockClient) -> Result<Vec<(String, Vec<u8>)>>;

    /// Whether the artifact says the modification time of everything that the update makes. Else nobody knows them in
    /// advance, and the new is compared without.
    fn knows_times(&self) -> bool {
        false
    }

    /// What a power loss and the start after it do to `device` before the boot's recovery: what is in memory only goes.
    /// Default: nothing.
    ///
    /// # Errors
    /// When that cannot be done.
    fn boot(&self, _device: &MockClient) -> Result<()> {
        Ok(())
    }

    /// What the update must have left on `device` beside what is live: nothing, once it has ended.
    ///
    /// # Errors
    /// When something is left, or cannot be looked at.
    fn is_clean(&self, device: &MockClient) -> Result<()>;
}

/// What is tried on a module.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// Every call failing with ENOSPC and with EIO.
    pub failures: bool,
    /// Un-synced writes lost.
    pub losses: bool,
    /// The install's cut followed by a cut of what meets it, every pair.
    pub pairs: bool,
    /// At most so many cut points, so many failing calls and so many pairs in a course, evenly spread.
    pub cuts: usize,
}

impl Scope {
    /// Everything, as for our own modules.
    pub const ALL: Self = Self { failures: true, losses: true, pairs: true, cuts: usize::MAX };
}

/// Tries `scope` on `subject`, in every course.
///
/// # Errors
/// When the suite itself fails: an update without any fault does not work, or the like. What a fault does to the
/// module is in the reports.
pub fn run(subject: &dyn Subject, tracer: &Tracer, scope: Scope) -> Result<Vec<Report>> {
    let bench = Bench { subject, tracer, trees: Trees::of(subject)? };
    let mut reports: Vec<_> =
        COURSES.iter().map(|course| Report::new(format!("{}: {}", subject.name(), course.name))).collect();
    bench.faults(scope, &mut reports)?;
    if scope.losses {
        bench.losses(&mut reports)?;
    }
    if scope.pairs {
        for second in SECONDS {
            reports.push(bench.pairs(second, scope)?);
        }
    }
    Ok(reports)
}

/// So many attempts at a time: most of one is waiting for processes and for the disk.
const WORKERS: usize = 8;

/// The losses of one course are tried side by side in so many shares.
const SHARES: usize = 4;

/// Whether the state had ended, what was lost, and how it went on.
type Loss = (bool, String, Result<End>);

/// A subject with all that an attempt needs.
struct Bench<'a> {
    subject: &'a dyn Subject,
    tracer: &'a Tracer,
    trees: Trees,
}

impl Bench<'_> {
    /// Every cut and every failing call of every course.
    fn faults(&self, scope: Scope, reports: &mut [Report]) -> Result<()> {
        let plans = side_by_side(WORKERS, COURSES, |course| self.plan(course, scope));
        let mut attempts = Vec::new();
        for (index, plan) in plans.into_iter().enumerate() {
            attempts.extend(plan?.into_iter().map(|(fault, shown)| (index, fault, shown)));
        }
        let ends =
            side_by_side(WORKERS, &attempts, |&(course, fault, _)| self.attempt(&COURSES[course], fault));
        for ((index, fault, shown), end) in attempts.into_iter().zip(ends) {
            let course = &COURSES[index];
            let (attempt, allowed) = match fault {
                Fault::Error(..) => {
                    (Attempt::Failure, vec![course.end_after_failure, course.end_after_success])
                }
                _ => (Attempt::Cut, vec![course.end_after_cut]),
            };
            let report = &mut reports[index];
            let before = report.other.len();
            report.add(attempt, &allowed, format!("{fault} ({shown})"), end);
            // The last of the cuts comes when all is done.
            if let (Fault::KillAfter(_), [uncut]) = (fault, &report.other[before..]) {
                report.wrong_uncut = report.other.iter().filter(|other| other.end == uncut.end).count();
            }
        }
        Ok(())
    }

    /// The faults to try in `course`, each with the call that it is about.
    fn plan(&self, course: &Course, scope: Scope) -> Result<Vec<(Fault, String)>> {
        let mut device = prepared(self.subject, course)?;
        let recording = self
            .tracer
            .list(self.subject, &mut device, course.cut)
            .with_context(|| format!("recording the course {:?}", course.name))?;
        let calls: Vec<_> = recording.calls.iter().map(|call| call.shown.clone()).collect();
        let mut plan = spread(cuts(&recording), scope.cuts);
        if scope.failures {
            let errors = ["ENOSPC", "EIO"].into_iter();
            let failures = errors.flat_map(|error| (1..=calls.len()).map(move |n| Fault::Error(n, error)));
            plan.extend(spread(failures.collect(), scope.cuts));
        }
        let shown = |fault| match fault {
            Fault::KillBefore(n) | Fault::KillAfter(n) | Fault::Error(n, _) => calls[n - 1].clone(),
        };
        Ok(plan.into_iter().map(|fault| (fault, shown(fault))).collect())
    }

    /// Injects `fault`, goes on as the client would, and says how that ended.
    fn attempt(&self, course: &Course, fault: Fault) -> Result<End> {
        let mut device = prepared(self.subject, course)?;
        let success = self.tracer.inject(self.subject, &mut device, course.cut, fault)?;
        let rest = match fault {
            Fault::KillBefore(_) | Fault::KillAfter(_) => course.after_cut,
            Fault::Error(..) if success => course.after_success,
            Fault::Error(..) => course.after_failure,
        };
        finish(self.subject, &device, rest, &self.trees)
    }

    /// Every loss of writes in every course.
    fn losses(&self, reports: &mut [Report]) -> Result<()> {
        let shares: Vec<_> =
            (0..COURSES.len()).flat_map(|course| (0..SHARES).map(move |share| (course, share))).collect();
        let lost = side_by_side(WORKERS, &shares, |&(course, share)| self.lost(&COURSES[course], share));
        let mut counts = vec![None; COURSES.len()];
        for ((index, _), lost) in shares.into_iter().zip(lost) {
            let (course, (count, ends)) = (&COURSES[index], lost?);
            let agreed = *counts[index].get_or_insert(count) == count;
            ensure!(
                agreed,
                "{:?} does not do the same each time: its losses cannot be shared out",
                course.name
            );
            for (complete, shown, end) in ends {
                let allowed = if complete { course.end_after_success } else { course.end_after_cut };
                reports[index].add(Attempt::Loss, &[allowed], shown, end);
            }
        }
        Ok(())
    }

    /// How many losses of writes there are in `course`, and how those of one `share` ended. All of a share are on the
    /// device on which it was recorded, because a journal holds paths.
    fn lost(&self, course: &Course, share: usize) -> Result<(usize, Vec<Loss>)> {
        let mut device = prepared(self.subject, course)?;
        let recording = self.tracer.record(self.subject, &mut device, course.cut)?;
        check(&recording, &device)?;
        let states = lost::states(&recording);
        let count = states.len();
        let end = |state: &lost::State| {
            state.image.write_to(device.device()).context("laying out what was not lost")?;
            let rest = if state.complete { course.after_success } else { course.after_cut };
            finish(self.subject, &device, rest, &self.trees)
        };
        let mine = states.into_iter().skip(share).step_by(SHARES);
        Ok((count, mine.map(|state| (state.complete, state.shown.clone(), end(&state))).collect()))
    }

    /// Cuts what meets an install that was itself cut: every pair of cuts, and then what follows.
    fn pairs(&self, second: &Second, scope: Scope) -> Result<Report> {
        let (install, state) = ("ArtifactInstall", second.state);
        let downloaded = || -> Result<_> {
            let device = self.subject.device()?;
            succeed(self.subject, &device, "Download")?;
            Ok(device)
        };
        let most = scope.cuts.isqrt(); // of each, for as many pairs as a course has cuts
        let installs = spread(cuts(&self.tracer.list(self.subject, &mut downloaded()?, install)?), most);
        let pairs = side_by_side(WORKERS, &installs, |&first| -> Result<Vec<_>> {
            let half_installed = || -> Result<_> {
                let mut device = downloaded()?;
                self.tracer.inject(self.subject, &mut device, install, first)?;
                Ok(device)
            };
            let seconds = cuts(&self.tracer.list(self.subject, &mut half_installed()?, state)?);
            let end = |fault| {
                let mut device = half_installed()?;
                self.tracer.inject(self.subject, &mut device, state, fault)?;
                finish(self.subject, &device, second.after_cut, &self.trees)
            };
            let ends = spread(seconds, most).into_iter().map(|fault| (first, fault, end(fault)));
            Ok(ends.collect())
        });
        let mut report =
            Report::new(format!("{}: {install} and then {state}, both interrupted", self.subject.name()));
        for pair in pairs {
            for (first, fault, end) in pair? {
                report.add(Attempt::Cut, &[End::Old], format!("{install} {first}, {state} {fault}"), end);
            }
        }
        Ok(report)
    }
}

/// What was recorded has to explain what is on the device now; only the work tree belongs to the client, too.
fn check(recording: &operation::Recording, device: &MockClient) -> Result<()> {
    let (told, found) = (lost::complete(recording).listing(), Image::of(device.device())?.listing());
    let paths = told.keys().chain(found.keys());
    let mut differing = paths
        .filter(|path| told.get(*path) != found.get(*path))
        .filter(|path| !device.tree().starts_with(device.device().join(path)))
        .filter(|path| !device.device().join(path).starts_with(device.tree()));
    match differing.next() {
        Some(path) => bail!("the tracer has missed how {} became what it is", path.display()),
        None => Ok(()),
    }
}

/// At most `most` of `faults`, evenly spread.
fn spread(faults: Vec<Fault>, most: usize) -> Vec<Fault> {
    let every = faults.len().div_ceil(most).max(1);
    faults.into_iter().step_by(every).collect()
}

/// The points at which what was recorded can be cut: before each call and after the last. After call N is before call
/// N+1, and a call that fails anyway leaves what the one before it left.
fn cuts(recording: &operation::Recording) -> Vec<Fault> {
    let done = |(index, call): (usize, &operation::Call)| call.done.then_some(index + 1);
    let calls: Vec<_> = recording.calls.iter().enumerate().filter_map(done).collect();
    let last = calls.last().map(|&call| Fault::KillAfter(call));
    calls.iter().map(|&call| Fault::KillBefore(call)).chain(last).collect()
}
