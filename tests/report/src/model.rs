//! What a report is made of: a run has suites, a suite has cases, and a case may have a timeline.

use std::mem;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

/// A run of the test command.
#[derive(Clone, Debug)]
pub struct Run {
    /// The command line.
    pub command: String,
    /// The commit of the work tree, with `-dirty` if it has changes.
    pub commit: String,
    /// The host: processor, cores, memory, kernel.
    pub host: String,
    /// The time of its start.
    pub start: SystemTime,
    /// Its duration.
    pub duration: Duration,
    /// All suites, in the order of their start.
    pub suites: Vec<Suite>,
    /// Comparisons with the modules that Mender ships.
    pub charts: Vec<Chart>,
    /// Where the charts come from: they are not measured by the run.
    pub source_of_charts: String,
}

/// A test suite.
#[derive(Clone, Debug)]
pub struct Suite {
    /// The name, different from those of other suites.
    pub name: String,
    /// The result.
    pub verdict: Verdict,
    /// The time from the start of the run to the start of the suite. Suites run in parallel.
    pub start: Duration,
    /// The duration.
    pub duration: Duration,
    /// The cases, in the order in which they ended; empty for a suite that only passes or fails.
    pub cases: Vec<Case>,
}

/// The result of a suite or of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passed, with a summary, which may be empty.
    Passed(String),
    /// It failed, with the error.
    Failed(String),
    /// It did not run, with the reason.
    Skipped(String),
}

impl<T> From<&anyhow::Result<T>> for Verdict {
    /// Passed without a summary, or failed with the error and its causes.
    fn from(result: &anyhow::Result<T>) -> Self {
        match result {
            Ok(_) => Self::Passed(String::new()),
            Err(error) => Self::Failed(format!("{error:#}")),
        }
    }
}

/// A case of a suite: a test, a scenario, a sequence of fault injection.
#[derive(Clone, Debug)]
pub struct Case {
    /// What the case belongs to: a crate, a module, a machine.
    pub group: String,
    /// The name, different from those of other cases in its group.
    pub name: String,
    /// What it shows, in a sentence; may be empty.
    pub description: String,
    /// The result.
    pub verdict: Verdict,
    /// The duration, if it was measured.
    pub duration: Option<Duration>,
    /// What happened when, in a scenario on an emulated device.
    pub timeline: Option<Timeline>,
}

/// The course of a scenario on an emulated device.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    /// What happened, in the order of its start.
    pub events: Vec<Event>,
    /// The serial console.
    pub console: String,
    /// The system journal of the last boot.
    pub journal: String,
}

/// A part of a scenario. Times are from the start of the scenario.
#[derive(Clone, Debug)]
pub struct Event {
    /// What kind it is.
    pub kind: Kind,
    /// The name: a command, or a state with its module.
    pub name: String,
    /// The start.
    pub start: Duration,
    /// The end.
    pub end: Duration,
}

/// The kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The device boots, or resumes a snapshot.
    Boot,
    /// The device loses power.
    PowerLoss,
    /// A command on the device.
    Command,
    /// A state of the Update Module protocol.
    State,
}

/// A bar chart that compares our modules with others.
#[derive(Clone, Debug)]
pub struct Chart {
    /// What is measured.
    pub title: String,
    /// The unit of the values.
    pub unit: String,
    /// The groups of bars, each with its name and its bars: a series and a value.
    pub groups: Vec<(String, Vec<(String, f64)>)>,
}

/// The cases of a running suite, which may end in several threads.
#[derive(Debug, Default)]
pub struct Cases(Mutex<Vec<Case>>);

impl Cases {
    /// Adds a case.
    pub fn add(&self, case: Case) {
        self.lock().push(case);
    }

    /// Removes and returns all cases.
    pub fn take(&self) -> Vec<Case> {
        mem::take(&mut *self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Case>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
