//! The files of a report: what they contain, and that every text is escaped.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::fs;

use quick_junit::{Report, TestCaseStatus};
use tempfile::TempDir;
use test_report::{Case, Run, Verdict};

mod sample;

fn written(run: &Run) -> (String, String) {
    let directory = TempDir::new().unwrap();
    let directory = directory.path().join("test-report");
    test_report::write(&directory, run).unwrap();
    test_report::write(&directory, run).unwrap();
    let names: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
    (read("junit.xml"), read("index.html"))
}

#[test]
fn junit_has_every_suite_and_every_case() {
    let run = sample::run();
    let report = Report::deserialize_from_str(&written(&run).0).unwrap();
    assert_eq!(report.test_suites.len(), run.suites.len());
    for (suite, written) in run.suites.iter().zip(&report.test_suites) {
        assert_eq!(written.name.as_str(), suite.name);
        assert_eq!(written.test_cases.len(), suite.cases.len().max(1), "{}", suite.name);
    }
    assert_eq!((report.tests, report.failures), (28, 2));
    let skipped = &report.test_suites[3].test_cases[0];
    assert_eq!(skipped.name.as_str(), "engines");
    let TestCaseStatus::Skipped { message, .. } = &skipped.status else { panic!("{skipped:?}") };
    assert_eq!(message.as_ref().unwrap().as_str(), "docker is not installed");
    let case = &report.test_suites[2].test_cases[1];
    assert_eq!(case.classname.as_ref().unwrap().as_str(), "deb");
    assert_eq!(case.name.as_str(), sample::NASTY);
}

#[test]
fn junit_has_the_error_of_a_suite_whose_cases_passed() {
    let mut run = sample::run();
    run.suites[4].verdict = Verdict::Failed("removing the snapshot failed".to_owned());
    let xml = written(&run).0;
    let report = Report::deserialize_from_str(&xml).unwrap();
    assert_eq!(report.failures, 3);
    assert!(xml.contains("removing the snapshot failed"));
}

#[test]
fn the_page_has_no_other_elements_than_its_own() {
    let page = written(&sample::run()).1;
    assert_eq!(page.matches("<script").count(), 1);
    assert_eq!(page.matches("<style").count(), 1);
    for element in ["<img", "<link", "src=", "onerror='", "http:", "https:"] {
        let text = page.replace("&lt;img src=x onerror='", "");
        assert!(!text.contains(element), "{element}");
    }
}

#[test]
fn the_page_has_failed_suites_first() {
    let page = written(&sample::run()).1;
    let position = |name: &str| page.find(&format!("<h3>{name}</h3>")).unwrap();
    assert!(position("crash") < position("format") && position("format") < position("engines"));
    assert!(page.contains("<title>Test report: 2 failed</title>"));
}

#[test]
fn the_page_says_how_much_of_a_log_is_left_out() {
    let page = written(&sample::run()).1;
    assert!(page.contains("of it are left out"));
    assert!(!page.contains("started unit 0 of") && page.contains("started unit 8999 of"));
}

#[test]
fn a_run_without_suites_has_a_report() {
    let empty = Run { suites: Vec::new(), charts: Vec::new(), ..sample::run() };
    assert!(written(&empty).1.contains("<title>Test report: passed</title>"));
}

#[test]
fn cases_are_taken_once() {
    let cases = test_report::Cases::default();
    let case: Case = sample::run().suites[1].cases[0].clone();
    cases.add(case);
    assert_eq!((cases.take().len(), cases.take().len()), (1, 0));
}
