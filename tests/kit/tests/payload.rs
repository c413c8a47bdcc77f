//! Payload directories that the suite refuses, and those in this repository, which it reads.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use mender_update_module_test::conformance::Payload;
use tempfile::TempDir;

const SETTINGS: (&str, &str) = ("settings.toml", "dest_dir = \"@DEVICE@/www\"\nuid = @UID@\n");

/// A payload directory with these files.
fn payload(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    directory
}

/// Why the payload is refused, with paths relative to it.
fn refused(payload: &TempDir) -> String {
    let error = Payload::read(payload.path()).err().map(|error| format!("{error:#}"));
    error.expect("it is read").replace(&payload.path().display().to_string(), "DIR")
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_payload_that_does_not_name_the_device_is_refused() {
    let expected = "invalid payload directory DIR: @DEVICE@ is not in settings.toml, meta-data.json or files/: \
                    the update would change this machine: write each destination as @DEVICE@/PATH";
    for part in [
        ("settings.toml", "dest_dir = \"/var/www\"\n"),
        ("meta-data.json", "{\"dest\": \"/var/www\"}"),
        ("files/dest_dir", "/var/www"),
        ("files/update.tar/dest_dir", "@DEVICE@/var/www"), // not replaced in an archive
    ] {
        assert_eq!(refused(&payload(&[part, ("new/var/www/index.html", "new")])), expected, "{part:?}");
    }
}

#[test]
fn a_payload_that_names_the_device_once_is_read() {
    for part in
        [SETTINGS, ("meta-data.json", "{\"dest\": \"@DEVICE@/www\", \"uid\": @UID@}"), ("files/dest", "@DEVICE@/www")]
    {
        Payload::read(payload(&[part, ("files/index.html", "new")]).path()).unwrap();
    }
}

#[test]
fn a_payload_that_changes_nothing_or_is_for_debian_needs_no_device() {
    for parts in [
        &[][..],
        &[("new/index.html", "new"), (".gitkeep", "")],
        &[("files/a.deb", "package"), ("installed/b.deb", "package")],
    ] {
        Payload::read(payload(parts).path()).unwrap();
    }
}

#[test]
fn unknown_names_are_refused() {
    let expected = "invalid payload directory DIR: unknown name \"file\": use settings.toml, meta-data.json, files, \
                    previous, new, installed";
    assert_eq!(refused(&payload(&[SETTINGS, ("file/index.html", "new")])), expected);
}

#[test]
fn names_of_the_wrong_type_are_refused() {
    let cases = [
        ("settings.toml/a", "invalid payload: DIR/settings.toml: it is a directory: replace it by a regular file"),
        ("previous", "invalid payload: DIR/previous: it is a regular file: replace it by a directory"),
        ("installed", "invalid payload: DIR/installed: it is a regular file: replace it by a directory"),
    ];
    for (name, expected) in cases {
        assert_eq!(refused(&payload(&[("files/dest", "@DEVICE@"), (name, "")])), expected);
    }
}

/// On the command line, with a time limit: to read a FIFO without a writer takes for ever.
#[test]
fn fifos_are_refused() {
    for name in ["meta-data.json", "files/a", "files/update.tar/a", "previous/srv/a", "new/a", "installed/a"] {
        let payload = payload(&[SETTINGS]);
        let path = payload.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fifo(&path);
        let mut command = Command::new("timeout");
        command.args(["10", env!("CARGO_BIN_EXE_mender-update-module-test"), "tests/modules/right"]);
        let output = command.arg(payload.path()).arg("--list").output().unwrap();
        let shown = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}: {shown}");
        assert!(shown.contains("it is a FIFO: replace it by a regular file"), "{name}: {shown}");
    }
}

#[test]
fn symlinks_to_devices_are_refused_only_where_they_are_followed() {
    let payload = payload(&[SETTINGS, ("previous/a", ""), ("files/a", "")]);
    symlink("/dev/null", payload.path().join("previous/masked")).unwrap();
    Payload::read(payload.path()).unwrap();
    symlink("/dev/null", payload.path().join("files/null")).unwrap();
    assert_eq!(refused(&payload), "invalid payload: DIR/files/null: it is a device: replace it by a regular file");
}

#[test]
fn sockets_are_refused() {
    let payload = payload(&[SETTINGS, ("previous/b", "")]);
    let _socket = UnixListener::bind(payload.path().join("previous/a")).unwrap();
    assert_eq!(refused(&payload), "invalid payload: DIR/previous/a: it is a socket: replace it by a regular file");
}

#[test]
fn settings_and_meta_data_that_cannot_be_parsed_are_refused() {
    let shown = refused(&payload(&[("settings.toml", "dest_dir = @DEVICE@\n")]));
    assert!(
        shown.starts_with("invalid payload: DIR/settings.toml: it is not TOML: TOML parse error at line 1"),
        "{shown}"
    );
    for text in ["[\"@DEVICE@\"]", "{\"dest\": @DEVICE@}", ""] {
        let shown = refused(&payload(&[SETTINGS, ("meta-data.json", text)]));
        assert!(shown.starts_with("invalid payload: DIR/meta-data.json: it is not a JSON object: "), "{shown}");
    }
}

#[test]
fn the_payloads_of_this_repository_are_read() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let list = |directory: &str| -> Vec<PathBuf> {
        let entries = fs::read_dir(repository.join(directory)).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let mut payloads = list("xtask/upstream");
    payloads.extend(list("modules").into_iter().map(|module| module.join("tests/payload")));
    payloads.extend(
        ["xtask/template/modules/fireplace/tests/payload", "modules/mender-update-module/examples/payload"]
            .map(|payload| repository.join(payload)),
    );
    payloads.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/payload"));
    payloads.retain(|payload| payload.is_dir());
    assert!(payloads.len() >= 7, "{payloads:?}");
    for payload in payloads {
        Payload::read(&payload).map(drop).unwrap_or_else(|error| panic!("{error:#}"));
    }
}
