//! The outcomes of all attempts in one sequence.

use std::fmt;
use std::ops::AddAssign;

use anyhow::Result;

use crate::fault_injection::sequence::{End, Expected};

/// The kind of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Without a fault: the calls of the sequence alone. It does not count.
    Undisturbed,
    /// Every process was killed at a crash point.
    CrashPoint,
    /// A system call failed.
    FailingCall,
    /// Unsynced writes were lost.
    LostWrites,
}

/// An attempt that ended in another outcome than the protocol asks for.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The fault.
    pub attempt: String,
    /// The outcome.
    pub end: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.attempt, self.end)
    }
}

/// Counts of attempts by kind and outcome, and every violation.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The subject and the sequence.
    pub sequence: String,
    /// Interruptions at different crash points.
    pub crash_points: usize,
    /// System calls that were made to fail.
    pub failing_calls: usize,
    /// Different states of the device after a loss of unsynced writes.
    pub lost_writes: usize,
    /// Attempts that ended with the previous version, as required.
    pub previous: usize,
    /// Attempts that ended with the new version, as required.
    pub new: usize,
    /// Attempts with an inconsistent outcome.
    pub violations: Vec<Violation>,
    /// How many of the violations also occur when the state is not interrupted.
    pub without_interruption: usize,
}

impl Report {
    /// An empty report on `sequence`.
    pub fn new(sequence: impl Into<String>) -> Self {
        Self { sequence: sequence.into(), ..Self::default() }
    }

    /// Whether the sample had no fault for the sequence, so that nothing is known about it.
    pub fn is_untested(&self) -> bool {
        self.crash_points + self.failing_calls + self.lost_writes + self.violations.len() == 0
    }

    /// Adds an attempt that has to end in the version `expected`.
    pub fn add(&mut self, attempt: Attempt, expected: Expected, shown: String, end: Result<End>) {
        match attempt {
            Attempt::Undisturbed => {}
            Attempt::CrashPoint => self.crash_points += 1,
            Attempt::FailingCall => self.failing_calls += 1,
            Attempt::LostWrites => self.lost_writes += 1,
        }
        let end = match end {
            Ok(end) if expected.allows(end) => {
                match (attempt, end) {
                    (Attempt::Undisturbed, _) => {}
                    (_, End::Previous) => self.previous += 1,
                    (_, End::New) => self.new += 1,
                }
                return;
            }
            Ok(End::Previous) => "the previous version is active, and the new one has to be".to_owned(),
            Ok(End::New) => "the new version is active, and the previous one has to be".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        self.violations.push(Violation { attempt: shown, end });
    }
}

impl AddAssign<&Report> for Report {
    fn add_assign(&mut self, more: &Report) {
        self.crash_points += more.crash_points;
        self.failing_calls += more.failing_calls;
        self.lost_writes += more.lost_writes;
        self.previous += more.previous;
        self.new += more.new;
        self.without_interruption += more.without_interruption;
        let named = |violation: &Violation| Violation {
            attempt: format!("{}: {}", more.sequence, violation.attempt),
            ..violation.clone()
        };
        self.violations.extend(more.violations.iter().map(named));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_untested() {
            return write!(formatter, "not tested: no fault in this sample");
        }
        write!(
            formatter,
            "{} crash points, {} failing calls, {} states with unsynced writes lost: {} previous, {} new, {} inconsistent",
            self.crash_points,
            self.failing_calls,
            self.lost_writes,
            self.previous,
            self.new,
            self.violations.len()
        )?;
        if self.without_interruption > 0 {
            write!(formatter, " ({} the same without an interruption)", self.without_interruption)?;
        }
        Ok(())
    }
}
