//! The conformance suite can fail: each faulty module fails the cases about its fault, and no others.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mender_update_module_test::conformance::{CASES, Case, LIMIT, Payload, Subject, Verdict};

/// A limit for cases that run into it; others end in milliseconds, or in seconds beside programs that write.
const SHORT: Duration = Duration::from_secs(10);

/// The module `module` in `tests/modules`.
fn subject(module: &str, limit: Duration) -> Subject {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    Subject {
        module: here.join("modules").join(module),
        payload: Payload::read(&here.join("payload")).unwrap(),
        debian: None,
        limit,
    }
}

/// The cases that `module` fails, and those that are not applicable.
fn outcome(module: &str) -> [Vec<&'static str>; 2] {
    let mut subject = subject(module, LIMIT);
    let hangs = |case: &Case| (module, case.name) == ("reads-stdin", "no-stdin");
    let (mut failed, mut not_applicable) = (Vec::new(), Vec::new());
    for case in CASES {
        subject.limit = if hangs(case) { SHORT } else { LIMIT };
        match case.run(&subject) {
            Ok(Verdict::Passed) => {}
            Ok(Verdict::NotApplicable) => not_applicable.push(case.name),
            Err(error) => {
                println!("{module}, {}: {error:#}", case.name);
                failed.push(case.name);
            }
        }
    }
    [failed, not_applicable]
}

const NONE: Vec<&str> = Vec::new();

const OF_ROLLBACK: [&str; 5] =
    ["rollback", "rollback-is-exact", "rollback-to-nothing", "rollback-after-commit", "rollback-without-install"];

#[test]
fn a_correct_module_passes_every_case() {
    assert_eq!(outcome("right"), [NONE, NONE]);
}

#[test]
fn an_answer_of_two_lines_fails() {
    assert_eq!(outcome("answers-twice"), [vec!["one-line-answers"], OF_ROLLBACK.to_vec()]);
}

#[test]
fn success_without_an_installed_file_fails() {
    let [failed, _] = outcome("installs-nothing");
    assert!(failed.contains(&"install-commit"), "{failed:?}");
}

#[test]
fn reading_standard_input_fails() {
    assert_eq!(outcome("reads-stdin"), [vec!["no-stdin"], NONE]);
}

#[test]
fn a_rollback_that_destroys_fails() {
    assert_eq!(outcome("destroys"), [vec!["rollback-without-install"], NONE]);
}

#[test]
fn unquoted_paths_fail_one_case_only() {
    assert_eq!(outcome("splits-paths"), [vec!["spaces-in-paths"], NONE]);
}

#[test]
fn files_left_behind_fail() {
    let [failed, _] = outcome("leaves-traces");
    assert!(failed.contains(&"install-commit") && failed.contains(&"rollback"), "{failed:?}");
}

#[test]
fn an_opened_fifo_fails() {
    // Every case with FIFOs takes the whole limit: one is enough.
    let case = CASES.iter().find(|case| case.name == "fifos-left-behind").unwrap();
    let error = case.run(&subject("opens-fifos", SHORT)).unwrap_err();
    assert_eq!(error.to_string(), "ArtifactInstall failed: it did not end within 10 s");
}

#[test]
fn a_process_that_keeps_the_output_open_fails_and_is_killed() {
    let case = CASES.iter().find(|case| case.name == "install-commit").unwrap();
    let error = format!("{:#}", case.run(&subject("leaves-process", LIMIT)).unwrap_err());
    assert!(error.contains("leaves-process failed: it left a process that keeps its output open"), "{error}");
    let left = Command::new("pgrep").args(["-f", "^sleep 600\\.25"]).output().unwrap();
    assert!(left.stdout.is_empty(), "the process is not killed");
}

/// A query that fails is no answer: the cases about rollback are not skipped.
#[test]
fn a_module_that_does_not_run_fails_every_case() {
    let all: Vec<_> = CASES.iter().map(|case| case.name).collect();
    assert_eq!(outcome("dies"), [all.clone(), NONE]);
    assert_eq!(outcome("."), [all.clone(), NONE], "a directory");
    assert_eq!(outcome("does-not-exist"), [all, NONE]);
}
