//! Runs test executables and reads their output: of cargo test, and of cargo-nextest.

use std::collections::HashSet;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use host::command::complete;
use host::status::Step;
use test_report::{Case, Verdict};

use crate::record::{Record, case};

/// Runs `command`, adds every test to `record`, and returns the counts.
///
/// # Errors
/// A test failed. The error has the end of the output, in which the failed tests are.
pub fn run(step: &Step, command: impl Into<Command>, record: &Record) -> Result<String> {
    let (output, result) = complete(step, command)?;
    let text = output.stdout + &output.stderr;
    let mut seen = HashSet::new(); // cargo-nextest repeats the failed tests at its end
    let is_new = |case: &Case| seen.insert((case.group.clone(), case.name.clone()));
    text.lines().filter_map(test).filter(is_new).for_each(|case| record.add(case));
    result?;
    let is_count =
        |line: &&str| line.contains("tests run:") || line.starts_with("test result: ") && !line.contains(" 0 passed");
    Ok(text.lines().map(str::trim).filter(is_count).collect::<Vec<_>>().join("; "))
}

/// The test of a line such as `test a::b ... ok`, or `PASS [   0.007s] (1/7) crate a::b`.
fn test(line: &str) -> Option<Case> {
    let line = line.trim();
    if let Some((name, outcome)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
        return Some(case("tests", name, verdict(outcome.split([' ', ',']).next()?)?));
    }
    let (outcome, rest) = line.split_once(" [")?;
    let (seconds, rest) = rest.split_once("s] ")?;
    let (_, rest) = rest.split_once(") ")?;
    let (group, name) = rest.trim().rsplit_once(' ')?;
    let duration = Duration::try_from_secs_f64(seconds.trim().parse().ok()?).ok();
    Some(Case { duration, ..case(group, name, verdict(outcome)?) })
}

fn verdict(word: &str) -> Option<Verdict> {
    Some(match word {
        "ok" | "PASS" | "LEAK" => Verdict::Passed(String::new()),
        "FAILED" | "FAIL" | "TIMEOUT" | "SIGABRT" | "SIGSEGV" => {
            Verdict::Failed("its output is in the suite's error".into())
        }
        "ignored" | "SKIP" => Verdict::Skipped("ignored: see its attribute".into()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_runners_are_tests() {
        let nextest = test("        PASS [   0.007s] (1/7) host cache::tests::keys").unwrap();
        assert_eq!((nextest.group.as_str(), nextest.name.as_str()), ("host", "cache::tests::keys"));
        assert_eq!(nextest.duration, Some(Duration::from_millis(7)));
        assert_eq!(nextest.verdict, Verdict::Passed(String::new()));
        let binary = test("        FAIL [  61.000s] ( 12/424) web-file::hostile a::b").unwrap();
        assert_eq!(binary.group, "web-file::hostile");
        assert!(matches!(binary.verdict, Verdict::Failed(_)));
        let cargo = test("test transaction::an_update ... ok").unwrap();
        assert_eq!((cargo.name.as_str(), cargo.verdict), ("transaction::an_update", Verdict::Passed(String::new())));
        assert!(matches!(test("test a ... ignored, needs root").unwrap().verdict, Verdict::Skipped(_)));
        assert!(matches!(test("test a ... FAILED").unwrap().verdict, Verdict::Failed(_)));
    }

    #[test]
    fn other_lines_are_no_tests() {
        for line in
            ["", "running 7 tests", "test result: ok. 7 passed", "    Summary [   0.035s] 7 tests run: 7 passed"]
        {
            assert!(test(line).is_none(), "{line}");
        }
    }
}
