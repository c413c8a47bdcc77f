//! The options for a person on the device: --help, --status, --check-settings.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use mender_update_module_test::{Generation, MockClient};

fn device() -> MockClient {
    let client = MockClient::new(env!("CARGO_BIN_EXE_web-file"), Generation::V5).unwrap();
    let www = client.device().join("www");
    fs::create_dir(&www).unwrap();
    fs::write(www.join("index.html"), "previous").unwrap();
    let (uid, gid) = (id("-u"), id("-g"));
    client.set("web-file", &format!("dest_dir = {www:?}\nowner = {uid:?}\ngroup = {gid:?}\n")).unwrap();
    client
}

fn id(which: &str) -> String {
    String::from_utf8(Command::new("id").arg(which).output().unwrap().stdout).unwrap().trim().to_owned()
}

fn prints(client: &MockClient, arguments: &[&str], words: &[&str]) {
    let output = client.by_hand(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    for word in words {
        assert!(text.contains(word), "{arguments:?}: {word:?} is missing in {text}");
    }
}

fn refuses(client: &MockClient, arguments: &[&str], words: &[&str]) {
    let output = client.by_hand(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    for word in words {
        assert!(text.contains(word), "{arguments:?}: {word:?} is missing in {text}");
    }
}

#[test]
fn help_and_version_succeed() {
    let client = device();
    prints(&client, &["--help"], &["web-file STATE TREE", "--status", "--check-settings", "--recover"]);
    prints(&client, &["--version"], &[env!("CARGO_PKG_VERSION")]);
    refuses(&client, &["--halp"], &["invalid arguments", "web-file --help"]);
    refuses(&client, &[], &["web-file --help"]);
}

#[test]
fn the_status_follows_an_update() {
    let client = device();
    let status = |words: &[&str]| prints(&client, &["--status"], words);
    status(&["none pending", "journal.json", "web-file.toml"]);
    assert!(client.download(&[(OsStr::new("index.html"), b"new")]).unwrap().success());
    status(&["downloaded, not installed (Staged)", "nothing to roll back", "install the artifact again"]);
    assert!(client.call("ArtifactInstall").unwrap().success());
    status(&["installed, waiting for commit (Active)", "rollback:  possible", " commit, or ", "kept in:   /"]);
    prints(&client, &["--status", "--json"], &[r#""phase":"Active""#, r#""can_roll_back":true"#]);
    assert!(client.call("ArtifactRollback").unwrap().success());
    status(&["rolled back"]);
    assert!(client.call("Cleanup").unwrap().success());
    status(&["none pending"]);
}

#[test]
fn settings_are_checked_before_an_update_needs_them() {
    let client = device();
    prints(&client, &["--check-settings"], &["web-file.toml: valid"]);
    let file = client.settings().join("other.toml");
    let path = file.to_str().unwrap();
    refuses(&client, &["--check-settings", path], &["no such file"]);
    let settings = client.settings().join("web-file.toml");
    let before = fs::read(&settings).unwrap();
    fs::remove_file(&settings).unwrap();
    prints(&client, &["--check-settings"], &["does not exist: the defaults apply"]);
    symlink("missing", &settings).unwrap();
    refuses(&client, &["--check-settings"], &["web-file.toml failed: no such file"]);
    fs::remove_file(&settings).unwrap();
    fs::write(&settings, before).unwrap();
    for (text, words) in [
        ("dest-dir = \"/srv\"\n", "`dest-dir`"),
        ("[helth]\ntcp = \"127.0.0.1:1\"\n", "the tables `units` and `health`"),
        ("[health]\ntcp = \"somewhere\"\n", "invalid health check"),
        ("[units]\nhalt = []\n", "`halt`"),
        ("datastore = \"here\"\n", "not an absolute path"),
        ("dest_dir = \n", "invalid settings in"),
        ("dest_dir = \"www\"\n", "dest_dir"),
        ("dest_dir = \"/etc/passwd/www\"\n", "Not a directory"),
        ("owner = \"nobody-of-this-name\"\n", "no account"),
    ] {
        fs::write(&file, text).unwrap();
        refuses(&client, &["--check-settings", path], &[words, "other.toml"]);
    }
    fs::write(&file, "dest_dir = \"/srv\"\n[units]\nstop = [\"a.service\"]\n").unwrap();
    prints(&client, &["--check-settings", path], &["other.toml: valid"]);
}
