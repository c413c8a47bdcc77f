//! The summary of a test run: every suite by name, with its result, its error, or the reason why it was skipped.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

/// The result of each suite.
pub struct Summary {
    suites: Vec<Suite>,
    /// When the last suite ended.
    since: Instant,
}

struct Suite {
    name: String,
    verdict: Verdict,
    duration: Duration,
}

impl Default for Summary {
    fn default() -> Self {
        Self { suites: Vec::new(), since: Instant::now() }
    }
}

enum Verdict {
    Passed(String),
    Failed(anyhow::Error),
    Skipped(String),
}

impl Summary {
    /// Adds the suite `name` with its result or its error.
    pub fn ended(&mut self, name: impl Into<String>, result: Result<String>) {
        self.add(name.into(), result.map_or_else(Verdict::Failed, Verdict::Passed));
    }

    /// Adds the suite `name`, which was skipped for `reason`.
    pub fn skipped(&mut self, name: impl Into<String>, reason: impl Into<String>) {
        self.add(name.into(), Verdict::Skipped(reason.into()));
    }

    fn add(&mut self, name: String, verdict: Verdict) {
        self.suites.push(Suite { name, verdict, duration: self.since.elapsed() });
        self.since = Instant::now();
    }

    /// Prints the summary and returns the number of suites.
    ///
    /// # Errors
    /// A suite failed.
    pub fn close(self) -> Result<String> {
        println!("\n{self}");
        ensure!(self.failed() == 0, "{} suites failed", self.failed());
        Ok(format!("{} suites", self.suites.len()))
    }

    fn failed(&self) -> usize {
        self.count(|verdict| matches!(verdict, Verdict::Failed(_)))
    }

    fn count(&self, is: impl Fn(&Verdict) -> bool) -> usize {
        self.suites.iter().filter(|suite| is(&suite.verdict)).count()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Failures come last, where a terminal shows them.
        let is_failure = |suite: &&Suite| matches!(suite.verdict, Verdict::Failed(_));
        let others = self.suites.iter().filter(|suite| !is_failure(suite));
        for Suite { name, verdict, duration } in others.chain(self.suites.iter().filter(is_failure)) {
            let seconds = duration.as_secs();
            match verdict {
                Verdict::Passed(detail) => writeln!(formatter, "passed  {seconds:>5} s  {name:<26} {detail}")?,
                Verdict::Skipped(reason) => writeln!(formatter, "skipped          {name:<26} {reason}")?,
                Verdict::Failed(error) => writeln!(formatter, "FAILED  {seconds:>5} s  {name:<26} {error:#}")?,
            }
        }
        let passed = self.count(|verdict| matches!(verdict, Verdict::Passed(_)));
        let skipped = self.count(|verdict| matches!(verdict, Verdict::Skipped(_)));
        write!(formatter, "suites: {passed} passed, {} failed, {skipped} skipped", self.failed())
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn every_suite_is_named_and_counted() {
        let mut summary = Summary::default();
        summary.ended("format", Ok(String::new()));
        summary.ended("lints", Err(anyhow!("a warning").context("clippy")));
        summary.skipped("e2e raspi3b", "--quick");
        let text = summary.to_string();
        for part in [
            "passed      0 s  format",
            "FAILED      0 s  lints                      clippy: a warning\nsuites:",
            "skipped          e2e raspi3b                --quick",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
        assert!(text.ends_with("\nsuites: 1 passed, 1 failed, 1 skipped"), "{text}");
        assert_eq!(summary.failed(), 1);
    }
}
