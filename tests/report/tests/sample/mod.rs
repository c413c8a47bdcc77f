//! A run with every kind of content, and texts that must be escaped.

use std::time::{Duration, SystemTime};

use test_report::{Case, Chart, Event, Kind, Run, Suite, Timeline, Verdict};

/// A text that is an element and the end of another one, where it is not escaped.
pub const NASTY: &str =
    r#"</pre></script><script>document.title = "script ran"</script><img src=x onerror='a()'> & ]]>"#;

/// A name that does not fit on a narrow screen.
pub const LONG: &str =
    "a_name_without_any_space_that_is_much_longer_than_the_width_of_a_narrow_screen_so_that_it_must_wrap";

/// The name of the scenario with a timeline.
pub const SCENARIO: &str = "power-loss-install";

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

pub fn run() -> Run {
    let passed = || Verdict::Passed(String::new());
    Run {
        command: format!("cargo xtask test {NASTY}"),
        commit: "0123456789abcdef-dirty".to_owned(),
        host: "2 cores, 8 GiB, Linux 6.1".to_owned(),
        start: SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000),
        duration: seconds(754.0),
        suites: vec![
            suite("format", passed(), 0.0, 2.4, Vec::new()),
            suite("unit tests", passed(), 2.4, 95.0, unit_tests()),
            suite("crash", Verdict::Failed(format!("2 sequences are inconsistent\n{NASTY}")), 40.0, 500.0, crash()),
            suite("engines", Verdict::Skipped("docker is not installed".to_owned()), 60.0, 0.0, Vec::new()),
            suite("end to end", Verdict::Passed("2 scenarios".to_owned()), 97.0, 650.0, scenarios()),
            suite(LONG, Verdict::Failed(LONG.repeat(4)), 700.0, 54.0, Vec::new()),
        ],
        charts: charts(),
        source_of_charts: format!("From a page of another day {NASTY}"),
    }
}

fn suite(name: &str, verdict: Verdict, start: f64, duration: f64, cases: Vec<Case>) -> Suite {
    Suite { name: name.to_owned(), verdict, start: seconds(start), duration: seconds(duration), cases }
}

fn case(group: &str, name: &str, verdict: Verdict) -> Case {
    Case {
        group: group.to_owned(),
        name: name.to_owned(),
        description: String::new(),
        verdict,
        duration: Some(seconds(0.3)),
        timeline: None,
    }
}

fn unit_tests() -> Vec<Case> {
    let names = (0..20).map(|number| format!("tests::a_property_of_the_journal_{number}"));
    let mut cases: Vec<_> =
        names.map(|name| case("mender-update-module", &name, Verdict::Passed(String::new()))).collect();
    cases.push(case("web-file", "needs_root", Verdict::Skipped("owners of files need root".to_owned())));
    cases
}

fn crash() -> Vec<Case> {
    let passed = Verdict::Passed("211 of 211 crash points are consistent".to_owned());
    let failed = Verdict::Failed(format!("point 17: inconsistent: {NASTY}\n{LONG}\0\x1b[31m\u{b}"));
    vec![case("web-file", "Download, ArtifactInstall", passed), case("deb", NASTY, failed)]
}

fn scenarios() -> Vec<Case> {
    let scenario = |name: &str, description: &str, timeline| Case {
        description: description.to_owned(),
        duration: Some(seconds(72.0)),
        timeline: Some(timeline),
        ..case("raspi3b", name, Verdict::Passed(String::new()))
    };
    vec![
        scenario(SCENARIO, "power loss in ArtifactInstall: the boot restores the previous version", timeline()),
        scenario("empty", "nothing was recorded", Timeline::default()),
    ]
}

fn timeline() -> Timeline {
    let event =
        |kind, name: &str, start, end| Event { kind, name: name.to_owned(), start: seconds(start), end: seconds(end) };
    let line = |number| format!("[{number:>5}.000000] systemd[1]: started unit {number} of the device\n");
    Timeline {
        events: vec![
            event(Kind::Boot, "resume the snapshot", 0.0, 8.2),
            event(
                Kind::Command,
                "test -x /usr/share/mender/modules/v3/web-file && echo 'a command with a long line'",
                8.2,
                9.0,
            ),
            event(Kind::Command, "mender install release-2.mender", 9.0, 22.0),
            event(Kind::State, "Download (web-file)", 11.0, 14.5),
            event(Kind::State, "ArtifactInstall (web-file)", 15.0, 22.0),
            event(Kind::PowerLoss, "power loss", 22.0, 22.0),
            event(Kind::Boot, "boot", 22.0, 58.0),
            event(Kind::Command, NASTY, 58.0, 59.0),
        ],
        console: format!("\x1b[0;32m  OK  \x1b[0m Reached target\n{NASTY}\nLast line of the console\n"),
        journal: (0..9000).map(line).collect(),
    }
}

fn charts() -> Vec<Chart> {
    let bars = |ours, upstream| vec![("this project".to_owned(), ours), ("upstream".to_owned(), upstream)];
    vec![
        Chart {
            title: "Duration of an update".to_owned(),
            unit: "s".to_owned(),
            groups: vec![("directory".to_owned(), bars(0.84, 2.31)), (NASTY.to_owned(), bars(1.2, f64::NAN))],
        },
        Chart {
            title: "Inconsistent outcomes".to_owned(),
            unit: "of 100".to_owned(),
            groups: vec![("directory".to_owned(), bars(0.0, 27.0))],
        },
    ]
}
