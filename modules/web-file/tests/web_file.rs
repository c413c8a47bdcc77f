//! The executable, called by a mock client, on real directories.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use mender_update_module_test::{Generation, MockClient, Outcome, Snapshot};
use rustix::fs::{XattrFlags, setxattr};

/// A device whose web root is `www` in its directory.
struct Device {
    client: MockClient,
    www: PathBuf,
}

impl Device {
    /// A device with `files` in the web root; with `None`, the web root does not exist. `settings` follow `dest_dir`.
    fn new(generation: Generation, files: Option<&[(&str, &str)]>, settings: &str) -> Self {
        let client = MockClient::new(env!("CARGO_BIN_EXE_web-file"), generation).unwrap();
        let www = client.device().join("www");
        let device = Self { client, www };
        device.set(&device.www, settings);
        if let Some(files) = files {
            fs::create_dir(&device.www).unwrap();
            for (name, content) in files {
                fs::write(device.www.join(name), content).unwrap();
            }
            age(&device.www);
        }
        device
    }

    /// Writes settings in which files belong to the user that runs this test.
    fn set(&self, dest_dir: &Path, more: &str) {
        let me = fs::metadata(self.client.device()).unwrap();
        let (dest_dir, owner, group) = (dest_dir.to_str().unwrap(), me.uid(), me.gid());
        let settings = format!("dest_dir = {dest_dir:?}\nowner = \"{owner}\"\ngroup = \"{group}\"\n{more}");
        self.client.set("web-file", &settings).unwrap();
    }

    fn filled(generation: Generation) -> Self {
        Self::new(generation, Some(&[("index.html", "old"), ("gone.html", "only in the previous version")]), "")
    }

    fn download(&self, payload: &[(&str, &str)]) -> Outcome {
        let payload: Vec<_> = payload.iter().map(|(name, content)| (OsStr::new(*name), content.as_bytes())).collect();
        self.client.download(&payload).unwrap()
    }

    fn ok(&self, state: &str) {
        let outcome = self.client.call(state).unwrap();
        assert!(outcome.success(), "{state}: {outcome:?}");
        assert_eq!(outcome.stdout, "", "{state} is no query");
    }

    fn fails(&self, state: &str, words: &[&str]) {
        failed(self.client.call(state).unwrap(), words);
    }

    fn install(&self, payload: &[(&str, &str)]) {
        let outcome = self.download(payload);
        assert!(outcome.success(), "{outcome:?}");
        self.ok("ArtifactInstall");
    }

    /// The names and contents in the web root.
    fn content(&self) -> BTreeMap<OsString, String> {
        let entries = fs::read_dir(&self.www).unwrap().map(Result::unwrap);
        entries
            .map(|entry| (entry.file_name(), fs::read_to_string(entry.path()).unwrap_or("(directory)".into())))
            .collect()
    }

    fn exact(&self) -> Snapshot {
        Snapshot::of(&self.www).unwrap()
    }

    /// Whether nothing of an update is left: no staging directory and no journal.
    fn is_clean(&self) -> bool {
        let hidden = |directory: &Path| {
            directory.exists()
                && fs::read_dir(directory).unwrap().any(|entry| entry.unwrap().file_name().as_bytes().starts_with(b"."))
        };
        !hidden(self.client.device())
            && !hidden(&self.www)
            && !self.client.datastore().join("update-modules/web-file/journal.json").exists()
    }
}

/// Sets times in the past on `directory` and everything in it.
fn age(directory: &Path) {
    let then = SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 987_654_321);
    for found in fs::read_dir(directory).unwrap() {
        let path = found.unwrap().path();
        fs::File::open(path).unwrap().set_modified(then).unwrap();
    }
    fs::File::open(directory).unwrap().set_modified(then).unwrap();
}

fn failed(outcome: Outcome, words: &[&str]) {
    assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
    for word in words {
        assert!(outcome.stderr.contains(word), "{word:?} is missing in {}", outcome.stderr);
    }
}

fn is(pairs: &[(&str, &str)]) -> BTreeMap<OsString, String> {
    pairs.iter().map(|(name, content)| (OsString::from(name), (*content).to_owned())).collect()
}

const NEW: &[(&str, &str)] = &[("index.html", "new"), ("added.css", "only in the new")];

#[test]
fn install_and_commit_leave_exactly_the_new_version() {
    for generation in [Generation::V3, Generation::V5] {
        let device = Device::filled(generation);
        fs::create_dir(device.www.join("uploads")).unwrap();
        device.install(NEW);
        device.ok("ArtifactCommit");
        device.ok("Cleanup");
        let mut expected = is(NEW);
        expected.insert("uploads".into(), "(directory)".into());
        assert_eq!(device.content(), expected);
        assert_eq!(fs::metadata(device.www.join("index.html")).unwrap().mode() & 0o7777, 0o644);
        assert!(device.is_clean());
    }
}

#[test]
fn a_commit_is_repeated_after_cleanup_and_a_rolled_back_update_is_not_committed() {
    let device = Device::filled(Generation::V3);
    device.install(NEW);
    device.ok("ArtifactCommit");
    device.ok("Cleanup");
    let new = device.exact();
    // Client 3.4 does so after a power loss in Cleanup. If the commit failed, it would take the update for rolled back.
    device.ok("ArtifactCommit");
    device.ok("Cleanup");
    assert_eq!(device.exact(), new);
    assert!(device.is_clean());
    let device = Device::filled(Generation::V3);
    device.install(NEW);
    device.ok("ArtifactRollback");
    device.ok("Cleanup");
    device.fails("ArtifactCommit", &["nothing to commit"]);
}

#[test]
fn nothing_changes_before_install() {
    let device = Device::filled(Generation::V5);
    let before = device.exact();
    assert!(device.download(NEW).success());
    assert_eq!(device.exact(), before);
    device.ok("Cleanup");
    assert!(device.is_clean());
}

#[test]
fn rollback_restores_everything_exactly_even_after_commit() {
    for commit in [false, true] {
        let device = Device::filled(Generation::V3);
        fs::set_permissions(device.www.join("gone.html"), fs::Permissions::from_mode(0o604)).unwrap();
        let before = device.exact();
        device.install(NEW);
        if commit {
            device.ok("ArtifactCommit");
        }
        for _ in 0..2 {
            device.ok("ArtifactRollback");
            assert_eq!(device.exact(), before);
        }
        device.ok("ArtifactFailure");
        device.ok("Cleanup");
        device.ok("Cleanup");
        assert_eq!(device.exact(), before);
        assert!(device.is_clean());
    }
}

#[test]
fn a_rollback_that_cannot_read_the_kept_files_fails() {
    let device = Device::filled(Generation::V5);
    let before = device.exact();
    device.install(NEW);
    let staging = device.client.device().join(".www.web-file");
    let (kept, aside) = (staging.join("kept"), staging.join("aside"));
    fs::rename(&kept, &aside).unwrap();
    symlink("kept", &kept).unwrap(); // a loop
    device.fails("ArtifactRollback", &[kept.to_str().unwrap()]);
    fs::remove_file(&kept).unwrap();
    fs::rename(&aside, &kept).unwrap();
    device.ok("ArtifactRollback");
    assert_eq!(device.exact(), before);
}

#[test]
fn rollback_restores_extended_attributes() {
    let device = Device::filled(Generation::V5);
    let path = device.www.join("index.html");
    setxattr(&path, "user.origin", b"factory", XattrFlags::CREATE).unwrap();
    let before = device.exact();
    device.install(NEW);
    device.ok("ArtifactRollback");
    assert_eq!(device.exact(), before);
}

#[test]
fn a_first_install_rolls_back_to_nothing() {
    for files in [None, Some(&[][..])] {
        let device = Device::new(Generation::V3, files, "");
        let before = device.exact();
        device.install(NEW);
        assert_eq!(device.content(), is(NEW));
        device.ok("ArtifactRollback");
        device.ok("Cleanup");
        assert_eq!(device.exact(), before);
        assert!(device.is_clean());
    }
}

#[test]
fn missing_parents_are_made_and_removed() {
    let device = Device::new(Generation::V5, None, "");
    let deep = device.www.join("a b/c");
    device.set(&deep, "");
    device.install(NEW);
    assert_eq!(fs::read_to_string(deep.join("index.html")).unwrap(), "new");
    device.ok("ArtifactRollback");
    device.ok("Cleanup");
    assert!(!device.www.exists());
}

#[test]
fn add_mode_leaves_other_files() {
    let old = [("index.html", "old"), ("mine.html", "stays")];
    let device = Device::new(Generation::V3, Some(&old), "mode = \"add\"\n");
    let before = device.exact();
    device.install(NEW);
    assert_eq!(
        device.content(),
        is(&[("index.html", "new"), ("added.css", "only in the new"), ("mine.html", "stays")])
    );
    device.ok("ArtifactRollback");
    assert_eq!(device.exact(), before);
}

#[test]
fn awkward_names_are_safe() {
    let names: [&[u8]; 8] =
        [b"with space", b"-rf", b"--help", b"quo\"te'", b"new\nline", b"\xff\xfe", b".htaccess", b"$(reboot);*"];
    for generation in [Generation::V3, Generation::V5] {
        let device = Device::new(generation, Some(&[]), "");
        for name in names {
            fs::write(device.www.join(OsStr::from_bytes(name)), "old").unwrap();
        }
        fs::write(device.www.join("space"), "old").unwrap();
        age(&device.www);
        let before = device.exact();
        let payload: Vec<_> = names.iter().map(|name| (OsStr::from_bytes(name), &b"new"[..])).collect();
        assert!(device.client.download(&payload).unwrap().success());
        device.ok("ArtifactInstall");
        let expected = names.iter().map(|name| (OsStr::from_bytes(name).to_owned(), "new".to_owned())).collect();
        assert_eq!(device.content(), expected);
        device.ok("ArtifactRollback");
        assert_eq!(device.exact(), before);
    }
}

#[test]
fn a_name_of_a_directory_is_refused_before_anything_changes() {
    let device = Device::filled(Generation::V3);
    fs::create_dir(device.www.join("added.css")).unwrap();
    age(&device.www);
    let before = device.exact();
    failed(device.download(NEW), &["added.css", "directory", "update refused"]);
    device.ok("Cleanup");
    assert_eq!(device.exact(), before);
    assert!(device.is_clean());
}

#[test]
fn a_directory_that_is_made_between_download_and_install_is_refused() {
    let device = Device::filled(Generation::V3);
    assert!(device.download(NEW).success());
    fs::remove_file(device.www.join("index.html")).unwrap();
    fs::create_dir(device.www.join("index.html")).unwrap();
    let before = device.exact();
    device.fails("ArtifactInstall", &["index.html", "directory"]);
    device.ok("ArtifactRollback");
    assert_eq!(device.exact(), before);
}

#[test]
fn a_symlink_is_replaced_and_not_followed() {
    let device = Device::filled(Generation::V3);
    let outside = device.client.device().join("outside");
    fs::write(&outside, "precious").unwrap();
    symlink(&outside, device.www.join("added.css")).unwrap();
    device.install(NEW);
    assert_eq!(fs::read_to_string(&outside).unwrap(), "precious");
    assert!(fs::symlink_metadata(device.www.join("added.css")).unwrap().is_file());
    device.ok("ArtifactRollback");
    assert_eq!(fs::read_link(device.www.join("added.css")).unwrap(), outside);
}

#[test]
fn the_target_of_a_symlink_is_updated() {
    let device = Device::filled(Generation::V3);
    let real = device.client.device().join("data");
    fs::rename(&device.www, &real).unwrap();
    symlink("data", &device.www).unwrap();
    let before = device.exact();
    device.install(NEW);
    assert!(device.www.is_symlink());
    assert_eq!(device.content(), is(NEW));
    device.ok("ArtifactRollback");
    assert_eq!(device.exact(), before);
}

#[test]
fn every_state_can_be_repeated() {
    let device = Device::filled(Generation::V5);
    for _ in 0..2 {
        assert!(device.download(NEW).success());
    }
    for state in ["ArtifactInstall", "ArtifactInstall", "ArtifactCommit", "ArtifactCommit", "ArtifactInstall"] {
        device.ok(state);
        assert_eq!(device.content(), is(NEW), "after {state}");
    }
    for _ in 0..2 {
        device.ok("Cleanup");
        assert!(device.is_clean());
    }
    assert_eq!(device.content(), is(NEW));
    device.ok("ArtifactRollback");
    assert_eq!(device.content(), is(NEW), "after Cleanup, no rollback is possible");
}

#[test]
fn an_update_that_was_never_committed_is_rolled_back_by_the_next() {
    let device = Device::filled(Generation::V3);
    let before = device.exact();
    device.install(NEW);
    assert!(device.download(&[("index.html", "newer")]).success());
    assert_eq!(device.exact(), before);
    device.ok("ArtifactInstall");
    assert_eq!(device.content(), is(&[("index.html", "newer")]));
}

#[test]
fn install_without_download_and_commit_without_install_are_refused() {
    let device = Device::filled(Generation::V3);
    let before = device.exact();
    device.fails("ArtifactInstall", &["ArtifactInstall", "nothing is staged"]);
    device.fails("ArtifactCommit", &["commit"]);
    device.ok("ArtifactRollback");
    device.ok("Cleanup");
    assert_eq!(device.exact(), before);
}

#[test]
fn an_empty_artifact_is_refused() {
    let device = Device::filled(Generation::V3);
    failed(device.download(&[]), &["no files"]);
}

#[test]
fn invalid_settings_stop_a_download_but_not_a_rollback() {
    let device = Device::filled(Generation::V3);
    let before = device.exact();
    device.install(NEW);
    device.client.set("web-file", "dest-dir = \"/srv\"\n").unwrap();
    device.ok("ArtifactRollback");
    device.ok("Cleanup");
    assert_eq!(device.exact(), before);
    failed(device.download(NEW), &["web-file.toml", "dest-dir"]);
}

#[test]
fn queries_are_answered_with_one_line() {
    let device = Device::filled(Generation::V5);
    for (query, answer) in
        [("SupportsRollback", "Yes\n"), ("NeedsArtifactReboot", "No\n"), ("ProvidePayloadFileSizes", "Yes\n")]
    {
        assert_eq!(device.client.call(query).unwrap().stdout, answer);
    }
}
