//! The summary of a test run: every suite by name, with its result, its error, or the reason why it was skipped.

use std::fmt;

use anyhow::{Result, ensure};

/// The result of each suite, in the order in which they ran.
#[derive(Default)]
pub struct Summary {
    suites: Vec<(String, Verdict)>,
}

enum Verdict {
    Passed(String),
    Failed(anyhow::Error),
    Skipped(String),
}

impl Summary {
    /// Adds the suite `name` with its result or its error.
    pub fn ended(&mut self, name: impl Into<String>, result: Result<String>) {
        let verdict = result.map_or_else(Verdict::Failed, Verdict::Passed);
        self.suites.push((name.into(), verdict));
    }

    /// Adds the suite `name`, which was skipped for `reason`.
    pub fn skipped(&mut self, name: impl Into<String>, reason: impl Into<String>) {
        self.suites.push((name.into(), Verdict::Skipped(reason.into())));
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
        self.suites.iter().filter(|(_, verdict)| is(verdict)).count()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, verdict) in &self.suites {
            match verdict {
                Verdict::Passed(detail) => writeln!(formatter, "passed  {name:<26} {detail}")?,
                Verdict::Failed(error) => writeln!(formatter, "FAILED  {name:<26} {error:#}")?,
                Verdict::Skipped(reason) => writeln!(formatter, "skipped {name:<26} {reason}")?,
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
            "passed  format",
            "FAILED  lints                      clippy: a warning",
            "skipped e2e raspi3b                --quick",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
        assert!(text.ends_with("\nsuites: 1 passed, 1 failed, 1 skipped"), "{text}");
        assert_eq!(summary.failed(), 1);
    }
}
