//! What came out of all attempts of one course.

use std::fmt;

use anyhow::Result;

use crate::calls::{Call, Fault};
use crate::course::End;

/// Attempts counted by outcome; everything that is not as it has to be is told in full.
pub struct Report {
    course: &'static str,
    cuts: usize,
    errors: usize,
    old: usize,
    new: usize,
    other: Vec<String>,
}

impl Report {
    pub(crate) fn new(course: &'static str) -> Self {
        Self { course, cuts: 0, errors: 0, old: 0, new: 0, other: Vec::new() }
    }

    pub(crate) fn add(&mut self, allowed: &[End], call: &Call, fault: Fault, end: Result<End>) {
        match fault {
            Fault::Kill => self.cuts += 1,
            Fault::Error(_) => self.errors += 1,
        }
        match end {
            Ok(end) if allowed.contains(&end) => match end {
                End::Old => self.old += 1,
                End::New => self.new += 1,
            },
            Ok(end) => self.other.push(format!("{fault:?} at {call}: ended with the {end:?}")),
            Err(error) => self.other.push(format!("{fault:?} at {call}: {error:#}")),
        }
    }

    /// Faults tried: cuts and failing calls.
    pub fn tried(&self) -> usize {
        self.cuts + self.errors
    }

    /// Attempts that ended in anything but what they have to.
    pub fn other(&self) -> &[String] {
        &self.other
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { course, cuts, errors, old, new, other } = self;
        write!(
            formatter,
            "{course}: {cuts} cuts, {errors} failing calls: {old} old, {new} new, {} OTHER",
            other.len()
        )
    }
}
