//! The outcomes of all attempts in one sequence.

use std::fmt;
use std::ops::AddAssign;

use anyhow::Result;

use crate::course::End;

/// What an attempt was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Every process was killed.
    Cut,
    /// A call failed.
    Failure,
    /// Power was lost, and writes with it.
    Loss,
}

/// An attempt that ended in anything but what it has to.
#[derive(Clone, Debug)]
pub struct Other {
    /// What was done.
    pub attempt: String,
    /// How it ended.
    pub end: String,
}

impl fmt::Display for Other {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.attempt, self.end)
    }
}

/// Attempts counted by what they were and how they ended; everything that is not as it has to be is told in full.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The subject and the course.
    pub course: String,
    /// Kills at different points.
    pub cuts: usize,
    /// Calls made to fail.
    pub failures: usize,
    /// Different states that a loss of writes leaves.
    pub losses: usize,
    /// Attempts that ended with the old, as they have to.
    pub old: usize,
    /// Attempts that ended with the new, as they have to.
    pub new: usize,
    /// Attempts that ended in anything but what they have to.
    pub other: Vec<Other>,
    /// How many of these end in the same way when the state is not cut at all: cuts are not to blame.
    pub wrong_uncut: usize,
}

impl Report {
    /// An empty report on `course`.
    pub fn new(course: impl Into<String>) -> Self {
        Self { course: course.into(), ..Self::default() }
    }

    /// Adds an attempt that has to end in one of `allowed`.
    pub fn add(&mut self, attempt: Attempt, allowed: &[End], shown: String, end: Result<End>) {
        match attempt {
            Attempt::Cut => self.cuts += 1,
            Attempt::Failure => self.failures += 1,
            Attempt::Loss => self.losses += 1,
        }
        let end = match end {
            Ok(End::Old) if allowed.contains(&End::Old) => return self.old += 1,
            Ok(End::New) if allowed.contains(&End::New) => return self.new += 1,
            Ok(end) => format!("ended with the {end:?}"),
            Err(error) => format!("{error:#}"),
        };
        self.other.push(Other { attempt: shown, end });
    }
}

impl AddAssign<&Report> for Report {
    fn add_assign(&mut self, more: &Report) {
        self.cuts += more.cuts;
        self.failures += more.failures;
        self.losses += more.losses;
        self.old += more.old;
        self.new += more.new;
        self.wrong_uncut += more.wrong_uncut;
        let named =
            |other: &Other| Other { attempt: format!("{}: {}", more.course, other.attempt), ..other.clone() };
        self.other.extend(more.other.iter().map(named));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cuts, failures, losses, old, new, other, wrong_uncut, .. } = self;
        write!(
            formatter,
            "{cuts} crash points, {failures} failing calls, {losses} states with unsynced writes lost: {old} previous, {new} new, \
             {} inconsistent",
            other.len()
        )?;
        if *wrong_uncut > 0 {
            write!(formatter, " ({wrong_uncut} the same without an interruption)")?;
        }
        Ok(())
    }
}
