//! JUnit XML, which CI systems read.

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::model::{Case, Run, Suite, Verdict};

/// The report of `run`. quick-junit removes control characters that XML cannot contain.
pub fn report(run: &Run) -> Result<String> {
    let mut report = Report::new(run.command.as_str());
    report.set_timestamp(DateTime::<Utc>::from(run.start)).set_time(run.duration);
    report.add_test_suites(run.suites.iter().map(|suite| test_suite(run, suite)));
    report.to_string().context("writing JUnit XML failed")
}

fn test_suite(run: &Run, suite: &Suite) -> TestSuite {
    let mut result = TestSuite::new(suite.name.as_str());
    // A time that the clock cannot hold is left out.
    if let Some(start) = run.start.checked_add(suite.start) {
        result.set_timestamp(DateTime::<Utc>::from(start));
    }
    result.set_time(suite.duration);
    result.add_test_cases(suite.cases.iter().map(test_case));
    // The suite's own result: an error of the whole suite may have no case.
    let failed_case = suite.cases.iter().any(|case| matches!(case.verdict, Verdict::Failed(_)));
    let failed = matches!(suite.verdict, Verdict::Failed(_));
    if suite.cases.is_empty() || failed && !failed_case {
        let mut case = TestCase::new(suite.name.as_str(), status(&suite.verdict));
        case.set_classname(suite.name.as_str()).set_time(suite.duration);
        result.add_test_case(case);
    }
    result
}

fn test_case(case: &Case) -> TestCase {
    let mut result = TestCase::new(case.name.as_str(), status(&case.verdict));
    result.set_classname(case.group.as_str());
    if let Some(duration) = case.duration {
        result.set_time(duration);
    }
    result
}

fn status(verdict: &Verdict) -> TestCaseStatus {
    match verdict {
        Verdict::Passed(_) => TestCaseStatus::success(),
        Verdict::Failed(error) => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(error.lines().next().unwrap_or_default()).set_description(error.as_str());
            status
        }
        Verdict::Skipped(reason) => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(reason.as_str());
            status
        }
    }
}
