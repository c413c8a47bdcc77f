//! What a running suite records: its cases. And the time after which it starts no more of them.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use test_report::{Case, Cases, Verdict};

/// The value of `result`, if `other` has no error either.
///
/// # Errors
/// Those of both.
pub fn both<T>(result: Result<T>, other: Result<()>) -> Result<T> {
    match (result, other) {
        (Err(error), Err(other)) => Err(anyhow!("{error:#}\n{other:#}")),
        (result, other) => other.and(result),
    }
}

/// The record of one suite. Cases may end in several threads.
#[derive(Debug, Default)]
pub struct Record {
    cases: Cases,
    until: Deadline,
}

/// The time after which nothing is started; `None` for no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deadline(pub Option<Instant>);

impl Deadline {
    /// Whether the time is over.
    pub fn is_over(self) -> bool {
        self.0.is_some_and(|until| Instant::now() >= until)
    }
}

impl Record {
    /// An empty record of a suite that starts no case after `until`.
    pub fn new(until: Deadline) -> Self {
        Self { cases: Cases::default(), until }
    }

    /// Adds a case that has ended.
    pub fn add(&self, case: Case) {
        self.cases.add(case);
    }

    /// Adds the case `name` of `group` with its result, which took `duration`.
    pub fn ended<T>(&self, group: &str, name: &str, result: &Result<T>, duration: Option<Duration>) {
        self.add(Case { duration, ..case(group, name, Verdict::from(result)) });
    }

    /// Adds the case `name` of `group`, which was skipped for `reason`.
    pub fn skipped(&self, group: &str, name: &str, reason: impl Into<String>) {
        self.add(case(group, name, Verdict::Skipped(reason.into())));
    }

    /// Adds the case `name` of `group` as skipped if the time is over, and returns whether it is.
    pub fn skips(&self, group: &str, name: &str) -> bool {
        let is_over = self.until.is_over();
        if is_over {
            self.skipped(group, name, NO_TIME);
        }
        is_over
    }

    /// All cases, in the order in which they ended.
    pub fn into_cases(self) -> Vec<Case> {
        self.cases.take()
    }
}

/// The reason for which a suite or a case is skipped after the time of `--within`.
pub const NO_TIME: &str = "no time left of --within";

/// A case without description, duration and timeline.
pub fn case(group: &str, name: &str, verdict: Verdict) -> Case {
    Case {
        group: group.to_owned(),
        name: name.to_owned(),
        description: String::new(),
        verdict,
        duration: None,
        timeline: None,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn cases_are_skipped_when_the_time_is_over() {
        let record = Record::default();
        assert!(!record.skips("a", "b"));
        let record = Record::new(Deadline(Some(Instant::now())));
        assert!(record.skips("a", "b"));
        let [case] = &record.into_cases()[..] else { panic!() };
        assert_eq!(case.verdict, Verdict::Skipped(NO_TIME.to_owned()));
    }

    #[test]
    fn an_error_is_recorded_with_its_causes() {
        let record = Record::default();
        record.ended("a", "b", &Err::<(), _>(anyhow!("cause").context("failed")), None);
        let [case] = &record.into_cases()[..] else { panic!() };
        assert_eq!(case.verdict, Verdict::Failed("failed: cause".to_owned()));
    }
}
