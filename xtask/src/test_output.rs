//! Runs test executables and reads their output: of cargo test, and of cargo-nextest.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, anyhow};
use host::command::complete;
use host::status::Step;
use test_report::{Case, Verdict};

use crate::record::{Record, case};

/// Runs `command`, adds every test to `record`, and returns the counts.
///
/// # Errors
/// A test failed. The error has what the failed tests printed.
pub fn run(step: &Step, command: impl Into<Command>, record: &Record) -> Result<String> {
    let (output, result) = complete(step, command)?;
    let interrupted = if result.is_err() { interrupted(&output.stderr) } else { Vec::new() };
    let runner = if output.stderr.contains(NEXTEST_START) { Runner::Nextest } else { Runner::Cargo };
    let text = match runner {
        Runner::Nextest => output.stdout + &output.stderr,
        Runner::Cargo => output.stdout,
    };
    let cases = cases(runner, &text).into_iter();
    cases.chain(interrupted.iter().map(Interrupted::case)).for_each(|case| record.add(case));
    if let Err(error) = result {
        let interrupted = interrupted.into_iter().map(|Interrupted { text, .. }| text);
        let failures: Vec<_> = [failures(runner, &text)].into_iter().chain(interrupted).collect();
        let failures = failures.join("\n").trim().to_owned();
        // Without a failed test, for example because a crate does not compile, the end of the output has the reason.
        let command = error.to_string();
        let command = command.lines().next().unwrap_or_default();
        return Err(if failures.is_empty() { error } else { anyhow!("{command}\n{failures}") });
    }
    let is_count =
        |line: &&str| line.contains("tests run:") || line.starts_with("test result: ") && !line.contains(" 0 passed");
    Ok(text.lines().map(str::trim).filter(is_count).collect::<Vec<_>>().join("; "))
}

/// What runs the tests.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Runner {
    Cargo,
    Nextest,
}

/// What failed tests printed, in the output of a run: of cargo test from the line `failures:` to the result of each
/// executable, of cargo-nextest after its summary.
fn failures(runner: Runner, text: &str) -> String {
    if runner == Runner::Nextest {
        let lines = text.lines().skip_while(|line| !line.contains(NEXTEST_START)).skip_while(|line| !is_summary(line));
        return lines.collect::<Vec<_>>().join("\n");
    }
    // What a test printed may look like a result, too: only the start of the next executable ends a block.
    let (mut found, mut is_in_block, mut has_result) = (Vec::new(), false, false);
    for line in text.lines() {
        is_in_block |= line == "failures:";
        if has_result && line.starts_with("running ") {
            (is_in_block, has_result) = (false, false);
        }
        if is_in_block {
            found.push(line);
            has_result |= line.starts_with("test result: FAILED");
        }
    }
    found.join("\n")
}

/// A test executable that ended before its last test: of the tests that it ran there is no result.
struct Interrupted {
    executable: String,
    /// What it printed on standard error, and cargo's error about it.
    text: String,
}

impl Interrupted {
    fn case(&self) -> Case {
        case("tests", &self.executable, Verdict::Failed(OUTPUT_IN_SUITE_ERROR.into()))
    }
}

/// The test executables that a signal ended, or that ended with another exit status than that of failed tests, in the
/// standard error of a run of cargo test.
fn interrupted(stderr: &str) -> Vec<Interrupted> {
    let starts = |line: &str| ["Running ", "Doc-tests "].iter().any(|word| line.trim_start().starts_with(word));
    let mut found = Vec::new();
    // Before the first executable, compilers may be ended by signals.
    let mut lines = stderr.lines().skip_while(|line| !starts(line)).peekable();
    while lines.next().is_some() {
        let of_one: Vec<_> = std::iter::from_fn(|| lines.next_if(|line| !starts(line))).collect();
        let executable = of_one.iter().find_map(|line| interrupted_executable(line)).map(str::to_owned);
        found.extend(executable.map(|executable| Interrupted { executable, text: of_one.join("\n") }));
    }
    found
}

/// The executable in `line`, if that is cargo's message about one that did not report failed tests.
fn interrupted_executable(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("process didn't exit successfully: `")?;
    let (executable, how) = rest.split_once('`')?;
    (!how.contains("(exit status: 101)")).then_some(executable)
}

/// A part of the first line of cargo-nextest.
const NEXTEST_START: &str = "Nextest run ID";

/// Whether `line` is the summary of cargo-nextest.
fn is_summary(line: &str) -> bool {
    line.trim_start().starts_with("Summary [")
}

/// The tests in the output of a run. cargo-nextest repeats the failed ones, with what they printed, after its summary.
fn cases(runner: Runner, text: &str) -> Vec<Case> {
    if runner == Runner::Cargo {
        return text.lines().filter_map(of_cargo).collect();
    }
    let lines = text.lines().skip_while(|line| !line.contains(NEXTEST_START));
    lines.take_while(|line| !is_summary(line)).filter_map(of_nextest).collect()
}

/// The test of the line `test a::b ... ok`.
fn of_cargo(line: &str) -> Option<Case> {
    let (name, outcome) = line.trim().strip_prefix("test ")?.split_once(" ... ")?;
    Some(case("tests", name, verdict(outcome.split([' ', ',']).next()?)?))
}

/// The test of the line `PASS [   0.007s] (1/7) crate a::b`.
fn of_nextest(line: &str) -> Option<Case> {
    let (outcome, rest) = line.trim().split_once(" [")?;
    let (seconds, rest) = rest.split_once("] ")?;
    let (_, rest) = rest.strip_prefix('(')?.split_once(") ")?;
    let (group, name) = rest.trim().rsplit_once(' ')?;
    // A skipped test has no duration, and a slow one has a line of its own while it runs.
    let seconds = seconds.trim().trim_end_matches('s').parse().ok();
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Some(Case { duration, ..case(group, name, verdict(outcome)?) })
}

/// The reason of a failed test.
pub const OUTPUT_IN_SUITE_ERROR: &str = "its output is in the suite's error";

fn verdict(word: &str) -> Option<Verdict> {
    Some(match word {
        "ok" | "PASS" | "LEAK" => Verdict::Passed(String::new()),
        "ignored" | "SKIP" => Verdict::Skipped("ignored: see its attribute".into()),
        "SLOW" => return None,
        // FAIL, TIMEOUT, or the name of a signal.
        word if word.chars().all(|letter| letter.is_ascii_uppercase() || " +".contains(letter)) => {
            Verdict::Failed(OUTPUT_IN_SUITE_ERROR.into())
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_runners_are_tests() {
        let nextest = of_nextest("        PASS [   0.007s] (1/7) host cache::tests::keys").unwrap();
        assert_eq!((nextest.group.as_str(), nextest.name.as_str()), ("host", "cache::tests::keys"));
        assert_eq!(nextest.duration, Some(Duration::from_millis(7)));
        assert_eq!(nextest.verdict, Verdict::Passed(String::new()));
        let binary = of_nextest("        FAIL [  61.000s] ( 12/424) web-file::hostile a::b").unwrap();
        assert_eq!(binary.group, "web-file::hostile");
        assert!(matches!(binary.verdict, Verdict::Failed(_)));
        let skipped = of_nextest("        SKIP [         ] (───) host a").unwrap();
        assert!(matches!(skipped.verdict, Verdict::Skipped(_)));
        for outcome in ["SIGKILL", "FAIL + LEAK", "TIMEOUT"] {
            let line = format!("     {outcome} [   0.5s] (1/7) host a");
            assert!(matches!(of_nextest(&line).unwrap().verdict, Verdict::Failed(_)), "{outcome}");
        }
        assert!(of_nextest("        SLOW [> 60.000s] (---) host a").is_none());
        let cargo = of_cargo("test transaction::an_update ... ok").unwrap();
        assert_eq!((cargo.name.as_str(), cargo.verdict), ("transaction::an_update", Verdict::Passed(String::new())));
        assert!(matches!(of_cargo("test a ... ignored, needs root").unwrap().verdict, Verdict::Skipped(_)));
        assert!(matches!(of_cargo("test a ... FAILED").unwrap().verdict, Verdict::Failed(_)));
    }

    #[test]
    fn an_error_has_the_output_of_every_failed_test_however_much_follows() {
        let script = "echo 'test a ... FAILED'; echo; echo 'failures:'; echo; echo '---- a stdout ----'; \
                      echo 'the reason of a'; echo; echo 'failures:'; echo '    a'; \
                      echo 'test result: FAILED. 0 passed; 1 failed'; echo; echo 'running 1000 tests'; \
                      for i in $(seq 1000); do echo \"test other-$i ... ok\"; done; \
                      echo 'test result: ok. 1000 passed; 0 failed'; echo 'Running other' >&2; exit 101";
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let record = Record::default();
        let error = host::status::step("tests", |step| run(step, command, &record)).unwrap_err().to_string();
        assert!(error.contains("exit status: 101\nfailures:\n"), "{error}");
        assert!(error.contains("the reason of a") && !error.contains("\ntest other"), "{error}");
        assert!(!error.contains("\nRunning other"), "{error}");
        let nextest = "Nextest run ID x\n PASS [ 0.5s] (1/2) host b\n Summary [ 1s] 2 tests run\n FAIL [ 0.5s] (2/2) host a\n\
                       the reason of a\n";
        let error = failures(Runner::Nextest, nextest);
        assert!(error.contains("the reason of a") && !error.contains("host b"), "{error}");
        assert_eq!(failures(Runner::Cargo, "error: expected one of\n"), "");
    }

    #[test]
    fn what_a_failed_test_printed_does_not_end_its_output() {
        let block = |output: &str| {
            format!(
                "failures:\n---- a stdout ----\n{output}\nfailures:\n    a\n\ntest result: FAILED. 0 passed; 1 failed\n"
            )
        };
        let run = format!("running 1 test\ntest x ... FAILED\n{}", block("of x"));
        for printed in ["test result: ok. 7 passed", run.as_str()] {
            let text = block(&format!("{printed}\nthe reason"));
            let found = failures(Runner::Cargo, &format!("{text}\nrunning 1 test\ntest b ... ok\n"));
            assert_eq!(found.trim(), text.trim());
        }
    }

    #[test]
    fn an_executable_that_a_signal_ended_is_a_failed_case_with_its_output() {
        let stderr = "   Compiling a v0.1.0\n     Running unittests src/lib.rs (target/a-1)\n     Running tests/b.rs (target/b-2)\n\
                      memory allocation of 7 bytes failed\nerror: test failed, to rerun pass `-p a --test b`\n\n\
                      Caused by:\n  process didn't exit successfully: `/target/b-2` (signal: 6, SIGABRT: process abort signal)\n\
                      \x20    Running tests/c.rs (target/c-3)\nerror: 2 targets failed:\n    `-p a --lib`\n    `-p a --test b`\n";
        let [Interrupted { executable, text }] = &interrupted(stderr)[..] else { panic!("not one executable") };
        assert_eq!(executable, "/target/b-2");
        assert!(text.contains("memory allocation of 7 bytes") && text.contains("SIGABRT"), "{text}");
        assert!(!text.contains("Compiling") && !text.contains("2 targets"), "{text}");
        assert_eq!(
            interrupted(&stderr.replace("(signal: 6, SIGABRT: process abort signal)", "(exit status: 3)")).len(),
            1
        );
        let failed = stderr.replace("(signal: 6, SIGABRT: process abort signal)", "(exit status: 101)");
        assert!(interrupted(&failed).is_empty(), "failed tests have results");
        let compiler =
            "error: could not compile `a`\n\nCaused by:\n  process didn't exit successfully: `rustc` (signal: 9)\n";
        assert!(interrupted(compiler).is_empty());
    }

    #[test]
    fn what_a_failed_test_printed_is_no_test() {
        let text = "Nextest run ID x\n FAIL [ 0.5s] (1/1) host a\n Summary [ 1s] 1 tests run\n test b ... ok\n\
                    FAIL [ 0.5s] (1/1) host a\n";
        let names: Vec<_> = cases(Runner::Nextest, text).into_iter().map(|case| case.name).collect();
        assert_eq!(names, ["a"]);
    }

    #[test]
    fn other_lines_are_no_tests() {
        for line in
            ["", "running 7 tests", "test result: ok. 7 passed", "    Summary [   0.035s] 7 tests run: 7 passed"]
        {
            assert!(of_cargo(line).is_none() && of_nextest(line).is_none(), "{line}");
        }
    }
}
