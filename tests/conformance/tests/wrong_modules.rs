//! The suite can fail: each wrong module is found out by the cases that are about its mistake, and by no others.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::path::Path;
use std::time::Duration;

use conformance::{CASES, Payload, Subject, Verdict};

/// The module of that name in `tests/modules`, which some cases have to wait for in vain.
fn subject(module: &str) -> Subject {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    Subject {
        module: here.join("modules").join(module),
        payload: Payload::read(&here.join("payload")).unwrap(),
        debian: None,
        limit: Duration::from_secs(3),
    }
}

/// The cases that `module` fails, and those that are not applicable.
fn outcome(module: &str) -> [Vec<&'static str>; 2] {
    let subject = subject(module);
    let (mut failed, mut not_applicable) = (Vec::new(), Vec::new());
    for case in CASES {
        match case.run(&subject) {
            Ok(Verdict::Kept) => {}
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

const OF_ROLLBACK: [&str; 5] = [
    "rollback",
    "rollback-is-exact",
    "rollback-to-nothing",
    "rollback-after-commit",
    "rollback-without-install",
];

#[test]
fn a_right_module_passes_every_case() {
    assert_eq!(outcome("right"), [NONE, NONE]);
}

#[test]
fn two_lines_are_no_answer() {
    assert_eq!(outcome("answers-twice"), [vec!["one-line-answers"], OF_ROLLBACK.to_vec()]);
}

#[test]
fn success_without_an_installed_file_is_found_out() {
    let [failed, _] = outcome("installs-nothing");
    assert!(failed.contains(&"install-commit"), "{failed:?}");
}

#[test]
fn waiting_for_an_answer_is_found_out() {
    assert_eq!(outcome("reads-stdin"), [vec!["no-stdin"], NONE]);
}

#[test]
fn a_rollback_that_destroys_is_found_out() {
    assert_eq!(outcome("destroys"), [vec!["rollback-without-install"], NONE]);
}

#[test]
fn unquoted_paths_fail_once_and_not_everywhere() {
    assert_eq!(outcome("splits-paths"), [vec!["blanks-in-paths"], NONE]);
}

#[test]
fn traces_are_found() {
    let [failed, _] = outcome("leaves-traces");
    assert!(failed.contains(&"install-commit") && failed.contains(&"rollback"), "{failed:?}");
}

#[test]
fn an_opened_fifo_is_found_out() {
    // Every case in which the FIFOs are there hangs for the whole limit: one will do.
    let case = CASES.iter().find(|case| case.name == "fifos-left-behind").unwrap();
    let error = case.run(&subject("opens-fifos")).unwrap_err();
    assert_eq!(error.to_string(), "ArtifactInstall did not end within 3 s");
}
