//! The summary of a test run: every suite by name, with its result, its error, or the reason why it was skipped.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use test_report::{Case, Suite, Verdict};

use crate::record::{Deadline, NO_TIME, Record};
use crate::test_output::OUTPUT_IN_SUITE_ERROR;

/// The results of suites, which may run in several threads.
pub struct Summary {
    start: Instant,
    /// The time after which no suite and no case starts.
    until: Deadline,
    suites: Mutex<Vec<Suite>>,
}

impl Summary {
    /// An empty summary. Suites that would start later than `limit` from now are skipped.
    pub fn new(limit: Option<Duration>) -> Self {
        let start = Instant::now();
        Self { start, until: Deadline(limit.map(|limit| start + limit)), suites: Mutex::default() }
    }

    /// Whether the time is over: no suite starts any more.
    pub fn is_over(&self) -> bool {
        self.until.is_over()
    }

    /// Runs the suite `name` and adds its result, or its error, and its cases. Skips it if the time is over. A panic is
    /// an error of the suite: the results of the others must not be lost.
    pub fn run(&self, name: impl Into<String>, suite: impl FnOnce(&Record) -> Result<String>) {
        if self.is_over() {
            return self.skipped(name, NO_TIME);
        }
        let (record, start) = (Record::new(self.until), Instant::now());
        let result = caught(|| suite(&record));
        self.add(name.into(), result, start, record.into_cases());
    }

    /// Adds the suite `name`, which began at `start` and has ended with `result`.
    pub fn ended(&self, name: impl Into<String>, start: Instant, result: Result<String>) {
        self.add(name.into(), result, start, Vec::new());
    }

    fn add(&self, name: String, result: Result<String>, start: Instant, cases: Vec<Case>) {
        let ran = |case: &Case| !matches!(case.verdict, Verdict::Skipped(_));
        let verdict = match result {
            Ok(_) if !cases.is_empty() && !cases.iter().any(ran) => Verdict::Skipped("no case was run".to_owned()),
            Ok(summary) => Verdict::Passed(summary),
            Err(error) => Verdict::Failed(format!("{error:#}")),
        };
        let (duration, start) = (start.elapsed(), start - self.start);
        self.lock().push(Suite { name, verdict, start, duration, cases });
    }

    /// Adds the suite `name`, which was skipped for `reason`.
    pub fn skipped(&self, name: impl Into<String>, reason: impl Into<String>) {
        let (verdict, start) = (Verdict::Skipped(reason.into()), self.start.elapsed());
        self.lock().push(Suite { name: name.into(), verdict, start, duration: Duration::ZERO, cases: Vec::new() });
    }

    /// Prints the summary and returns all suites, in the order of their start, and their number as text.
    ///
    /// # Errors
    /// A suite failed.
    pub fn close(self) -> (Vec<Suite>, Result<String>) {
        println!("\n{self}");
        let mut suites = mem::take(&mut *self.lock());
        suites.sort_by_key(|suite| suite.start);
        let failed = count(&suites, |verdict| matches!(verdict, Verdict::Failed(_)));
        let checked = || {
            ensure!(failed == 0, "{failed} suites failed");
            Ok(format!("{} suites", suites.len()))
        };
        let result = checked();
        (suites, result)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Suite>> {
        self.suites.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The result of `suite`; an error if it panics.
pub fn caught<T>(suite: impl FnOnce() -> Result<T>) -> Result<T> {
    let result = catch_unwind(AssertUnwindSafe(suite));
    result.unwrap_or_else(|panic| Err(anyhow!("the suite panicked: {}", message(&*panic))))
}

/// The message of a panic.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

fn count(suites: &[Suite], is: impl Fn(&Verdict) -> bool) -> usize {
    suites.iter().filter(|suite| is(&suite.verdict)).count()
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suites = self.lock();
        // Failures come last, where a terminal shows them.
        let is_failure = |suite: &&Suite| matches!(suite.verdict, Verdict::Failed(_));
        let others = suites.iter().filter(|suite| !is_failure(suite));
        for suite in others.chain(suites.iter().filter(is_failure)) {
            let Suite { name, verdict, duration, .. } = suite;
            for (reason, names) in skipped_cases(suite) {
                writeln!(
                    formatter,
                    "skipped          {name:<26} {} cases: {reason}: {}",
                    names.len(),
                    names.join(", ")
                )?;
            }
            let seconds = duration.as_secs();
            match verdict {
                Verdict::Passed(detail) => writeln!(formatter, "passed  {seconds:>5} s  {name:<26} {detail}")?,
                Verdict::Skipped(reason) => writeln!(formatter, "skipped          {name:<26} {reason}")?,
                Verdict::Failed(error) => {
                    writeln!(formatter, "FAILED  {seconds:>5} s  {name:<26} {error}")?;
                    for (case, reason) in failed_cases(suite) {
                        let shown = if error.contains(reason) { String::new() } else { format!(": {reason}") };
                        if !shown.is_empty() || !error.contains(&case.name) {
                            writeln!(formatter, "FAILED           {name:<26} {} {}{shown}", case.group, case.name)?;
                        }
                    }
                }
            }
        }
        let passed = count(&suites, |verdict| matches!(verdict, Verdict::Passed(_)));
        let failed = count(&suites, |verdict| matches!(verdict, Verdict::Failed(_)));
        let skipped = count(&suites, |verdict| matches!(verdict, Verdict::Skipped(_)));
        let minutes = self.start.elapsed().as_secs_f64() / 60.0;
        write!(formatter, "suites: {passed} passed, {failed} failed, {skipped} skipped, in {minutes:.1} min")
    }
}

/// The failed cases of a suite, with what each reported.
fn failed_cases(suite: &Suite) -> impl Iterator<Item = (&Case, &str)> {
    suite.cases.iter().filter_map(|case| match &case.verdict {
        Verdict::Failed(reason) if reason != OUTPUT_IN_SUITE_ERROR => Some((case, reason.as_str())),
        _ => None,
    })
}

/// The skipped cases of a suite, by reason.
fn skipped_cases(suite: &Suite) -> BTreeMap<&str, Vec<String>> {
    let mut by_reason: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for case in &suite.cases {
        if let Verdict::Skipped(reason) = &case.verdict {
            by_reason.entry(reason.as_str()).or_default().push(format!("{} {}", case.group, case.name));
        }
    }
    by_reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_is_named_and_counted() {
        let summary = Summary::new(None);
        summary.run("lints", |_| Err(anyhow!("a warning").context("clippy")));
        summary.run("format", |_| Ok(String::new()));
        summary.skipped("e2e raspi3b", "--quick");
        let text = summary.to_string();
        for part in [
            "passed      0 s  format",
            "FAILED      0 s  lints                      clippy: a warning\nsuites:",
            "skipped          e2e raspi3b                --quick",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
        assert!(text.contains("\nsuites: 1 passed, 1 failed, 1 skipped, in "), "{text}");
        let (suites, result) = summary.close();
        assert_eq!(
            suites.iter().map(|suite| suite.name.as_str()).collect::<Vec<_>>(),
            ["lints", "format", "e2e raspi3b"]
        );
        assert_eq!(result.unwrap_err().to_string(), "1 suites failed");
    }

    #[test]
    fn skipped_cases_are_lines_of_their_own() {
        let summary = Summary::new(None);
        summary.run("unit tests", |record| {
            record.skipped("web-file", "a", "needs root");
            record.skipped("web-file", "b", "needs root");
            Ok("2 tests".to_owned())
        });
        let text = summary.to_string();
        assert!(text.contains("unit tests                 2 cases: needs root: web-file a, web-file b\n"), "{text}");
    }

    #[test]
    fn a_failed_suite_has_the_reason_of_every_failed_case() {
        let summary = Summary::new(None);
        summary.run("conformance", |record| {
            record.ended("web-file", "one-line-answers", &Err::<(), _>(anyhow!("no answer")), None);
            record.ended("web-file", "survives", &Err::<(), _>(anyhow!("mentioned")), None);
            record.ended("web-file", "good", &Ok(()), None);
            Err(anyhow!("2 of 3 cases failed: mentioned"))
        });
        let text = summary.to_string();
        let lines = "conformance                web-file one-line-answers: no answer\n\
                     FAILED           conformance                web-file survives\nsuites:";
        assert!(text.contains(lines), "{text}");
        assert_eq!(text.matches("mentioned").count(), 1, "{text}");
    }

    #[test]
    fn an_error_after_the_time_is_a_failure() {
        let summary = Summary::new(Some(Duration::ZERO));
        summary.ended("layer: prebuilt checksums", Instant::now(), Err(anyhow!("wrong checksum")));
        assert!(summary.close().1.is_err());
    }

    #[test]
    fn a_panic_is_a_failure_of_its_suite() {
        let summary = Summary::new(None);
        summary.run("lints", |_| panic!("a reason"));
        summary.run("format", |_| Ok(String::new()));
        let text = summary.to_string();
        assert!(text.contains("the suite panicked: a reason") && text.contains("1 passed, 1 failed"), "{text}");
    }

    #[test]
    fn a_suite_of_skipped_cases_did_not_pass() {
        let summary = Summary::new(None);
        summary.run("engines", |record| {
            record.skipped("podman", "install", NO_TIME);
            Ok("scenarios: 0".to_owned())
        });
        assert!(summary.to_string().contains("0 passed, 0 failed, 1 skipped"));
    }

    #[test]
    fn a_suite_after_the_time_is_skipped() {
        let summary = Summary::new(Some(Duration::ZERO));
        summary.run("lints", |_| panic!("it was started"));
        assert!(summary.to_string().contains("skipped          lints                      no time left"));
    }
}
