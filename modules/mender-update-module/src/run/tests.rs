//! Which method of a module each command line calls, and what the client reads.

use std::cell::RefCell;
use std::fs;

use tempfile::TempDir;

use super::*;
use crate::settings_file::DIRECTORY_VARIABLE;
use crate::status::Pending;
use crate::test_support::{command, is_own_process, log_of, output, write_when_read};
use crate::{NeedsReboot, UpdateModule};

/// A module that records the calls of its methods, and fails in the one that is `failing`.
#[derive(Default)]
struct Recorder {
    calls: RefCell<Vec<&'static str>>,
    failing: Option<&'static str>,
}

impl Recorder {
    fn called(&self, method: &'static str) -> Result<()> {
        self.calls.borrow_mut().push(method);
        if self.failing == Some(method) { bail!("{method} has to fail") } else { Ok(()) }
    }

    fn calls(&self) -> Vec<&'static str> {
        self.calls.take()
    }
}

impl UpdateModule for Recorder {
    const NAME: &'static str = "test-of-the-command-line";
    const VERSION: &'static str = "1.2";

    fn provides_payload_file_sizes(&self, _: &WorkTree) -> Result<bool> {
        self.called("provides_payload_file_sizes").map(|()| true)
    }

    fn download(&self, _: &WorkTree, mut payloads: Payloads) -> Result<()> {
        self.called("download")?;
        payloads.try_for_each(|payload| {
            let with_size = payload?.size.is_some();
            self.called(if with_size { "a file with its size" } else { "a file" })
        })
    }

    fn artifact_install(&self, _: &WorkTree) -> Result<()> {
        self.called("artifact_install")
    }

    fn needs_artifact_reboot(&self, _: &WorkTree) -> Result<NeedsReboot> {
        self.called("needs_artifact_reboot").map(|()| NeedsReboot::Automatic)
    }

    fn artifact_reboot(&self, _: &WorkTree) -> Result<()> {
        self.called("artifact_reboot")
    }

    fn artifact_verify_reboot(&self, _: &WorkTree) -> Result<()> {
        self.called("artifact_verify_reboot")
    }

    fn artifact_commit(&self, _: &WorkTree) -> Result<()> {
        self.called("artifact_commit")
    }

    fn supports_rollback(&self, _: &WorkTree) -> Result<bool> {
        self.called("supports_rollback").map(|()| false)
    }

    fn artifact_rollback(&self, _: &WorkTree) -> Result<()> {
        self.called("artifact_rollback")
    }

    fn artifact_rollback_reboot(&self, _: &WorkTree) -> Result<()> {
        self.called("artifact_rollback_reboot")
    }

    fn artifact_verify_rollback_reboot(&self, _: &WorkTree) -> Result<()> {
        self.called("artifact_verify_rollback_reboot")
    }

    fn artifact_failure(&self, _: &WorkTree) -> Result<()> {
        self.called("artifact_failure")
    }

    fn cleanup(&self, _: &WorkTree) -> Result<()> {
        self.called("cleanup")
    }

    fn check_settings(&self, file: &Path) -> Result<()> {
        assert_eq!(file, Path::new("settings.toml"));
        self.called("check_settings")
    }

    fn pending(&self, _: &WorkTree) -> Result<Option<Pending>> {
        self.called("pending").map(|()| None)
    }

    fn recover(&self, _: &WorkTree) -> Result<()> {
        self.called("recover")
    }
}

/// The states with one method each, and the answers.
const STATES: [(&str, &str, Answer); 12] = [
    ("ProvidePayloadFileSizes", "provides_payload_file_sizes", Some("Yes")),
    ("ArtifactInstall", "artifact_install", None),
    ("NeedsArtifactReboot", "needs_artifact_reboot", Some("Automatic")),
    ("ArtifactReboot", "artifact_reboot", None),
    ("ArtifactVerifyReboot", "artifact_verify_reboot", None),
    ("ArtifactCommit", "artifact_commit", None),
    ("SupportsRollback", "supports_rollback", Some("No")),
    ("ArtifactRollback", "artifact_rollback", None),
    ("ArtifactRollbackReboot", "artifact_rollback_reboot", None),
    ("ArtifactVerifyRollbackReboot", "artifact_verify_rollback_reboot", None),
    ("ArtifactFailure", "artifact_failure", None),
    ("Cleanup", "cleanup", None),
];

fn answer_to(module: &Recorder, words: &[&str]) -> Result<Answer> {
    answer(module, words.iter().map(Into::into).collect())
}

/// A work tree, below a data directory of its own.
fn tree() -> (TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    fs::create_dir(&tree).unwrap();
    (directory, tree.into_os_string().into_string().unwrap())
}

#[test]
fn each_state_calls_its_method_and_returns_its_answer() {
    let (_directory, tree) = tree();
    for (state, method, expected) in STATES {
        let module = Recorder::default();
        assert_eq!(answer_to(&module, &[state, &tree]).unwrap(), expected, "{state}");
        assert_eq!(module.calls(), [method], "{state}");
        let module = Recorder { failing: Some(method), ..Recorder::default() };
        let error = format!("{:#}", answer_to(&module, &[state, &tree]).unwrap_err());
        assert_eq!(error, format!("{state} failed: {method} has to fail"));
    }
    let module = Recorder::default();
    assert_eq!(answer_to(&module, &["ArtifactTeleport", &tree]).unwrap(), None);
    assert!(module.calls().is_empty(), "a newer client may call states that this version does not know");
}

#[test]
fn a_query_is_answered_while_another_call_has_the_lock() {
    let (directory, tree) = tree();
    let _lock = Journal::new(&directory.path().join("update-modules").join(Recorder::NAME)).lock(true).unwrap();
    for (state, _, answer) in STATES.into_iter().filter(|(_, _, answer)| answer.is_some()) {
        assert_eq!(answer_to(&Recorder::default(), &[state, &tree]).unwrap(), answer, "{state}");
    }
}

#[test]
fn both_forms_of_a_download_read_the_streams() {
    for (state, line, expected) in [
        ("Download", "streams/file\n", "a file"),
        ("DownloadWithFileSizes", "streams/file 4\n", "a file with its size"),
    ] {
        let (directory, tree) = tree();
        let path = directory.path().join("tree");
        fs::create_dir(path.join("streams")).unwrap();
        let fifo = |name: &str| {
            let kind = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, path.join(name), kind, rustix::fs::Mode::RWXU, 0).unwrap();
        };
        ["stream-next", "streams/file"].into_iter().for_each(fifo);
        let client = std::thread::spawn({
            let path = path.clone();
            move || {
                for (name, text) in [("stream-next", line), ("streams/file", "text"), ("stream-next", "")] {
                    // The module does not read the content: it may have closed the stream.
                    if write_when_read(&path.join(name), text).is_none() {
                        return;
                    }
                }
            }
        });
        let module = Recorder::default();
        assert_eq!(answer_to(&module, &[state, &tree]).unwrap(), None);
        assert_eq!(module.calls(), ["download", expected], "{state}");
        client.join().unwrap();
        assert!(directory.path().join("update-modules").join(Recorder::NAME).exists(), "a download has the lock");
    }
}

#[test]
fn each_option_does_what_the_help_says() {
    let (_directory, tree) = tree();
    let cases: [(&[&str], &[&str]); 9] = [
        (&["--version"], &[]),
        (&["--help"], &[]),
        (&["-h"], &[]),
        (&["--status"], &["pending"]),
        (&["--status", "--json"], &["pending"]),
        (&["--check-settings"], &[]), // no file exists
        (&["--check-settings", "settings.toml"], &["check_settings"]),
        (&["--recover"], &["recover"]),
        (&["--recover", &tree], &["recover"]),
    ];
    for (words, expected) in cases {
        let module = Recorder::default();
        assert_eq!(answer_to(&module, words).unwrap(), None, "{words:?}");
        assert_eq!(module.calls(), expected, "{words:?}");
    }
    let failing = [
        (&["--status"][..], "pending"),
        (&["--check-settings", "settings.toml"], "check_settings"),
        (&["--recover"], "recover"),
        (&["--recover", &tree], "recover"),
    ];
    for (words, method) in failing {
        let module = Recorder { failing: Some(method), ..Recorder::default() };
        assert!(answer_to(&module, words).is_err(), "{words:?}");
    }
    let module = Recorder::default();
    let error = format!("{:#}", answer_to(&module, &["--under-way"]).unwrap_err());
    assert_eq!(error, "no update is pending");
    for words in [&[][..], &["--unknown"], &["Cleanup"], &["--status", "--json", "x"], &["Cleanup", &tree, "x"]] {
        let error = format!("{:#}", answer_to(&module, words).unwrap_err());
        assert!(
            error.starts_with("invalid arguments: use 'test-of-the-command-line STATE TREE'"),
            "{words:?}: {error}"
        );
    }
    // Not an option, but the state `--status` with a tree: a newer client may have any state.
    assert_eq!(answer_to(&module, &["--status", "--xml"]).unwrap(), None);
    assert!(module.calls().is_empty());
}

#[test]
fn answers_go_to_standard_output_and_errors_to_the_log() {
    const NAME: &str = "run::tests::answers_go_to_standard_output_and_errors_to_the_log";
    if is_own_process() {
        answer_to(&Recorder::default(), &["--version"]).unwrap();
        answer_to(&Recorder::default(), &["--recover"]).unwrap();
        write_answer(Some("Yes")).unwrap();
        // The options of this process are not those of a module.
        assert_eq!(format!("{:?}", run(Recorder::default())), format!("{:?}", ExitCode::FAILURE));
        return;
    }
    let ended = output(&mut command(NAME)).unwrap();
    let [answers, log] = [&ended.stdout, &ended.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert!(ended.status.success(), "{answers}{log}");
    for line in [Recorder::VERSION, "Yes"] {
        assert!(answers.lines().any(|found| found.ends_with(line)), "{line} is missing in {answers}");
    }
    assert!(log.contains("test-of-the-command-line: invalid arguments"), "{log}");
    let datastore = client::datastore_at_boot(Recorder::NAME).unwrap();
    assert_eq!(log.contains("no pending update found"), !datastore.exists(), "{log}");
}

#[test]
fn a_download_is_refused_if_the_settings_have_tables_that_the_module_does_not_read() {
    let settings = tempfile::tempdir().unwrap();
    fs::write(settings.path().join(Recorder::NAME).with_extension("toml"), "[health]\ntcp = \"127.0.0.1:1\"\n")
        .unwrap();
    log_of(
        "run::tests::a_download_is_refused_if_the_settings_have_tables_that_the_module_does_not_read",
        |command| {
            command.env(DIRECTORY_VARIABLE, settings.path());
        },
        || {
            let (module, (_directory, tree)) = (Recorder::default(), tree());
            let error = format!("{:#}", answer_to(&module, &["Download", &tree]).unwrap_err());
            assert!(error.contains("table health: this module does not support it") && module.calls().is_empty());
        },
    );
}
