//! The executable on a device on which somebody else may write, resources run out, and clients die.
//!
//! Everything here takes root: owners, mounts, attributes. Without, each test says that it is skipped.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use mock_client::{Generation, MockClient, Outcome, Snapshot};

/// The web server's user: it owns the directory that the web root is in.
const WWW_DATA: u32 = 33;

const NEW: &[(&str, &str)] = &[("index.html", "new"), ("added.css", "only in the new")];

/// A device with a web root in a directory of the web server's, and one with root's files beside it.
struct Device {
    client: MockClient,
    /// Owned by the web server's user.
    home: PathBuf,
    www: PathBuf,
    /// What an attacker would like root to read, change or remove.
    victim: PathBuf,
}

impl Device {
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: takes root");
            return None;
        }
        let client = MockClient::new(env!("CARGO_BIN_EXE_web-file"), Generation::V5).unwrap();
        let (home, victim) = (client.device().join("home"), client.device().join("victim"));
        let www = home.join("html");
        fs::create_dir_all(&www).unwrap();
        fs::create_dir(&victim).unwrap();
        for (directory, text) in [(&www, "old"), (&victim, "root's")] {
            fs::write(directory.join("index.html"), text).unwrap();
            fs::write(directory.join("passwd"), text).unwrap();
        }
        chown(&home, Some(WWW_DATA), Some(WWW_DATA)).unwrap();
        let device = Self { client, home, www, victim };
        device.set(&device.www, "");
        Some(device)
    }

    fn set(&self, dest_dir: &Path, more: &str) {
        self.client.set("web-file", &format!("dest_dir = {:?}\n{more}", dest_dir.to_str().unwrap())).unwrap();
    }

    /// A health check that runs `script`; it is in the journal, and so also that of a rollback.
    fn set_health_check(&self, script: &str) {
        let flag = self.client.device().join("checked");
        fs::write(&flag, "").unwrap();
        let script = format!("test -e '{}' || exit 0; {script}", flag.display());
        let check =
            format!("command = [\"sh\", \"-c\", {script:?}]\nlimit_seconds = 600\nstable_seconds = 0");
        self.set(&self.www, &format!("[health]\n{check}\n"));
    }

    fn let_health_checks_pass(&self) {
        fs::remove_file(self.client.device().join("checked")).unwrap();
    }

    fn download(&self) -> Outcome {
        let payload: Vec<_> = NEW.iter().map(|(name, text)| (OsStr::new(*name), text.as_bytes())).collect();
        self.client.download(&payload).unwrap()
    }

    fn call(&self, state: &str) -> Outcome {
        self.client.call(state).unwrap()
    }

    fn ok(&self, state: &str) {
        let outcome = self.call(state);
        assert!(outcome.success(), "{state}: {outcome:?}");
    }

    fn staging(&self) -> PathBuf {
        self.home.join(".html.web-file")
    }

    /// Where the previous files are.
    fn previous(&self) -> PathBuf {
        let kept = self.staging().join("kept");
        if kept.exists() { kept } else { self.staging().join("old") }
    }

    fn journal(&self) -> PathBuf {
        self.client.datastore().join("update-modules/web-file")
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.www.join(name)).unwrap()
    }

    /// An update from beginning to end, as if nothing had ever happened.
    fn updates_again(&self) {
        let outcome = self.download();
        assert!(outcome.success(), "{outcome:?}");
        for state in ["ArtifactInstall", "ArtifactCommit", "Cleanup"] {
            self.ok(state);
        }
        assert_eq!(self.text("index.html"), "new");
    }
}

fn failed(outcome: &Outcome, words: &str) {
    assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains(words), "{words:?} is missing in {}", outcome.stderr);
}

fn run(program: &str, arguments: &[&OsStr]) -> bool {
    Command::new(program).args(arguments).status().unwrap().success()
}

/// What somebody who may write to the directory above does between two calls.
type Attack = fn(&Device);

const ATTACKS: &[(&str, Attack)] = &[
    ("the destination becomes a symlink", |device| {
        fs::rename(&device.www, device.home.join("aside")).unwrap();
        symlink(&device.victim, &device.www).unwrap();
    }),
    ("the destination becomes another directory", |device| {
        fs::rename(&device.www, device.home.join("aside")).unwrap();
        fs::create_dir(&device.www).unwrap();
        fs::write(device.www.join("index.html"), "theirs").unwrap();
    }),
    ("a directory above becomes a symlink", |device| {
        fs::rename(&device.home, device.client.device().join("aside")).unwrap();
        fs::create_dir(device.client.device().join("fake")).unwrap();
        symlink(&device.victim, device.client.device().join("fake/html")).unwrap();
        symlink("fake", &device.home).unwrap();
    }),
    ("the staging directory becomes another one", |device| {
        fs::rename(device.staging(), device.home.join("aside")).unwrap();
        for name in ["new", "old", "kept"] {
            fs::create_dir_all(device.staging().join(name)).unwrap();
            for file in ["index.html", "added.css", "passwd"] {
                fs::write(device.staging().join(name).join(file), "theirs").unwrap();
            }
        }
        assert!(run("chown", &["-R".as_ref(), "33".as_ref(), device.staging().as_os_str()]));
    }),
    ("the staging directory becomes another one of root's", |device| {
        fs::rename(device.staging(), device.home.join("aside")).unwrap();
        fs::create_dir_all(device.staging().join("new")).unwrap();
        fs::create_dir_all(device.staging().join("old")).unwrap();
        for file in ["index.html", "added.css"] {
            fs::write(device.staging().join("new").join(file), "theirs").unwrap();
        }
    }),
    ("the staging directory becomes a symlink", |device| {
        fs::rename(device.staging(), device.home.join("aside")).unwrap();
        symlink(&device.victim, device.staging()).unwrap();
    }),
    ("the staging directory is given away", |device| {
        chown(device.staging(), Some(WWW_DATA), None).unwrap();
    }),
    ("the staging directory is opened to others", |device| {
        fs::set_permissions(device.staging(), fs::Permissions::from_mode(0o777)).unwrap();
    }),
    ("what was downloaded becomes another directory", |device| {
        fs::rename(device.staging().join("new"), device.home.join("aside")).unwrap();
        fs::create_dir(device.staging().join("new")).unwrap();
        fs::write(device.staging().join("new/index.html"), "theirs").unwrap();
        fs::write(device.staging().join("new/added.css"), "theirs").unwrap();
    }),
    ("the previous files become another directory", |device| {
        let previous = device.previous();
        fs::rename(&previous, device.home.join("aside")).unwrap();
        fs::create_dir(&previous).unwrap();
        fs::write(previous.join("passwd"), "theirs").unwrap();
    }),
    ("something is mounted on the destination", |device| {
        assert!(run("mount", &["--bind".as_ref(), device.victim.as_os_str(), device.www.as_os_str()]));
    }),
    ("something is mounted on the staging directory", |device| {
        assert!(run("mount", &["--bind".as_ref(), device.victim.as_os_str(), device.staging().as_os_str()]));
    }),
];

/// Unmounts what an attack has mounted.
struct Mounted(Vec<PathBuf>);

impl Drop for Mounted {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = Command::new("umount").arg("--quiet").arg(path).output();
        }
    }
}

#[test]
fn whatever_is_replaced_between_two_calls_is_refused_and_root_touches_nothing_else() {
    for (name, attack) in ATTACKS {
        for states in [&["ArtifactInstall"][..], &["ArtifactInstall", "ArtifactRollback"]] {
            let Some(device) = Device::new() else { return };
            let _mounted = Mounted(vec![device.www.clone(), device.staging()]);
            assert!(device.download().success());
            let (last, before) = states.split_last().unwrap();
            before.iter().for_each(|state| device.ok(state));
            let victim = Snapshot::of(&device.victim).unwrap();
            attack(&device);
            let what = format!("{name}, then {last}");
            let outcome = device.call(last);
            assert_eq!(outcome.status.code(), Some(1), "{what}: {outcome:?}");
            assert!(
                ["refused", "not trusted", "replaced", "mounted", "symlink", "missing"]
                    .iter()
                    .any(|word| outcome.stderr.contains(word)),
                "{what}: {}",
                outcome.stderr
            );
            for state in ["ArtifactRollback", "ArtifactFailure", "Cleanup"] {
                device.call(state);
            }
            assert!(Snapshot::of(&device.victim).unwrap() == victim, "{what}: root's files have changed");
            // Another destination is updated all the same.
            device.set(&device.client.device().join("other"), "");
            let outcome = device.download();
            assert!(outcome.success(), "{what}: {outcome:?}");
        }
    }
}

#[test]
fn a_symlink_that_somebody_else_may_have_made_is_not_followed_in_download() {
    let Some(device) = Device::new() else { return };
    fs::rename(&device.www, device.home.join("aside")).unwrap();
    symlink(&device.victim, &device.www).unwrap();
    let victim = Snapshot::of(&device.victim).unwrap();
    failed(&device.download(), "is a symlink, and others may change");
    assert!(Snapshot::of(&device.victim).unwrap() == victim);
    // Root's own symlink in a directory of root's is followed.
    let link = device.client.device().join("link");
    fs::remove_file(&device.www).unwrap();
    fs::rename(device.home.join("aside"), &device.www).unwrap();
    symlink(&device.www, &link).unwrap();
    device.set(&link, "");
    device.updates_again();
}

#[test]
fn settings_and_journal_that_others_may_change_are_refused() {
    let Some(device) = Device::new() else { return };
    let settings = device.client.settings();
    for path in [settings.join("web-file.toml"), settings.clone(), device.client.device().to_owned()] {
        chown(&path, Some(WWW_DATA), None).unwrap();
        failed(&device.download(), "not trusted");
        chown(&path, Some(0), None).unwrap();
    }
    assert!(device.download().success());
    device.ok("ArtifactInstall");
    for path in [device.journal().join("journal.json"), device.journal(), device.client.datastore()] {
        chown(&path, Some(WWW_DATA), None).unwrap();
        failed(&device.call("ArtifactRollback"), "not trusted");
        chown(&path, Some(0), None).unwrap();
    }
    device.ok("ArtifactRollback");
    assert_eq!(device.text("index.html"), "old");
}

#[test]
fn what_is_no_regular_file_in_the_web_root_is_neither_opened_nor_followed() {
    let Some(device) = Device::new() else { return };
    let index = device.www.join("index.html");
    fs::remove_file(&index).unwrap();
    assert!(run("mkfifo", &[index.as_os_str()]));
    fs::hard_link(device.victim.join("passwd"), device.www.join("added.css")).unwrap();
    assert!(run("mknod", &[device.www.join("null").as_os_str(), "c".as_ref(), "1".as_ref(), "3".as_ref()]));
    let (before, victim) = (Snapshot::of(&device.www).unwrap(), Snapshot::of(&device.victim).unwrap());
    assert!(device.download().success());
    device.ok("ArtifactInstall");
    assert_eq!(device.text("index.html"), "new");
    device.ok("ArtifactRollback");
    assert!(Snapshot::of(&device.www).unwrap() == before);
    device.ok("Cleanup");
    assert!(Snapshot::of(&device.victim).unwrap() == victim, "the file behind a hard link");
}

#[test]
fn planted_staging_names_keep_no_update_from_beginning() {
    let plants: &[Attack] = &[
        |device| fs::write(device.staging(), "a file").unwrap(),
        |device| symlink(&device.victim, device.staging()).unwrap(),
        |device| assert!(run("mkfifo", &[device.staging().as_os_str()])),
        |device| {
            fs::create_dir(device.staging()).unwrap();
            fs::write(device.staging().join("theirs"), "").unwrap();
        },
    ];
    for plant in plants {
        let Some(device) = Device::new() else { return };
        plant(&device);
        let victim = Snapshot::of(&device.victim).unwrap();
        device.updates_again();
        assert!(Snapshot::of(&device.victim).unwrap() == victim);
        assert!(fs::symlink_metadata(device.staging()).is_ok(), "what somebody has put there was removed");
    }
}

#[test]
fn destinations_that_cannot_work_are_refused_in_download_and_block_nothing() {
    let Some(device) = Device::new() else { return };
    let root = device.client.device().to_owned();
    for (dest_dir, words) in [
        (PathBuf::from("/proc/web"), "/proc"),
        (PathBuf::from("/sys/web"), "/sys"),
        (root.join("n".repeat(256)), ""),
        (root.join("home\r"), "control character"),
        (device.client.datastore().join("modules"), "name another directory"),
        (device.journal(), "name another directory"),
        (
            PathBuf::from(env!("CARGO_BIN_EXE_web-file")).parent().unwrap().to_owned(),
            "name another directory",
        ),
    ] {
        device.set(&dest_dir, "");
        failed(&device.download(), words);
        assert!(!device.journal().join("journal.json").exists(), "{dest_dir:?}: the journal was opened");
        device.ok("Cleanup");
    }
    for length in [240, 245, 250, 255] {
        device.set(&root.join("n".repeat(length)), "");
        assert!(device.download().success(), "{length}");
        device.ok("ArtifactInstall");
        device.ok("ArtifactRollback");
        device.ok("Cleanup");
    }
    device.set(&device.www, "owner = \"4294967295\"\n");
    failed(&device.download(), "4294967295");
    device.set(&device.www, "");
    device.updates_again();
}

/// Sets an attribute of chattr(1); `false` where the file system has none.
fn attribute(change: &str, path: &Path) -> bool {
    let set = Command::new("chattr").arg(change).arg(path).output().unwrap();
    if !set.status.success() {
        eprintln!("skipped: {}", String::from_utf8_lossy(&set.stderr));
    }
    set.status.success()
}

#[test]
fn an_immutable_web_root_is_refused_and_an_immutable_file_in_it_blocks_nothing() {
    let Some(device) = Device::new() else { return };
    if !attribute("+i", &device.www) {
        return;
    }
    failed(&device.download(), "chattr -ia");
    assert!(!device.journal().join("journal.json").exists());
    attribute("-i", &device.www);
    let before = Snapshot::of(&device.www).unwrap();
    attribute("+i", &device.www.join("passwd"));
    assert!(device.download().success());
    failed(&device.call("ArtifactInstall"), "immutable");
    for state in ["ArtifactRollback", "Cleanup"] {
        device.ok(state);
    }
    assert!(Snapshot::of(&device.www).unwrap() == before);
    attribute("-i", &device.www.join("passwd"));
    device.updates_again();
}

#[test]
fn a_previous_file_whose_place_is_taken_by_a_directory_comes_back() {
    let Some(device) = Device::new() else { return };
    assert!(device.download().success());
    device.ok("ArtifactInstall");
    fs::create_dir(device.www.join("passwd")).unwrap();
    fs::write(device.www.join("passwd/theirs"), "data").unwrap();
    let outcome = device.call("ArtifactRollback");
    assert!(outcome.success() && outcome.stderr.contains("moved aside"), "{outcome:?}");
    assert_eq!((device.text("passwd"), device.text("index.html")), ("old".into(), "old".into()));
    assert_eq!(device.text("passwd.aside-1/theirs"), "data");
    device.ok("Cleanup");
    device.updates_again();
}

#[test]
fn a_rollback_without_the_previous_files_fails_and_blocks_only_its_destination() {
    let removals: &[(&str, Attack)] = &[
        ("previous files", |device| fs::remove_dir_all(device.previous()).unwrap()),
        ("passwd", |device| fs::remove_file(device.previous().join("passwd")).unwrap()),
        ("html", |device| fs::remove_dir_all(&device.www).unwrap()),
    ];
    for (words, remove) in removals {
        let Some(device) = Device::new() else { return };
        assert!(device.download().success());
        device.ok("ArtifactInstall");
        remove(&device);
        failed(&device.call("ArtifactRollback"), words);
        for state in ["ArtifactFailure", "Cleanup"] {
            device.ok(state);
        }
        let refused = device.download();
        failed(&refused, "blocks others of the same destination");
        let record = device.journal().join("unrestored-1.json");
        assert!(refused.stderr.contains(record.to_str().unwrap()), "{}", refused.stderr);
        device.set(&device.client.device().join("other"), "");
        assert!(device.download().success(), "another destination is blocked");
        device.ok("Cleanup");
        // As the message says.
        fs::remove_file(record).unwrap();
        fs::create_dir_all(&device.www).unwrap();
        device.set(&device.www, "");
        device.updates_again();
    }
}

#[test]
fn a_failed_download_frees_its_space_at_once_and_an_interrupted_one_at_boot() {
    let Some(device) = Device::new() else { return };
    let twice = [(OsStr::new("a"), &b"x"[..]), (OsStr::new("passwd/"), &b"x"[..])];
    let outcome = device.client.download(&twice[..1]).unwrap();
    assert!(outcome.success());
    device.ok("Cleanup");
    fs::create_dir(device.www.join("a")).unwrap();
    failed(&device.client.download(&twice[..1]).unwrap(), "directory");
    assert!(
        !device.staging().exists() && !device.journal().join("journal.json").exists(),
        "its space is not free"
    );
    let payload = [(OsStr::new("big"), &[7_u8; 100_000][..])];
    device.client.interrupt_download(&payload).unwrap();
    assert!(device.staging().exists());
    let mut recover = Command::new(env!("CARGO_BIN_EXE_web-file"));
    recover.env("MENDER_MODULES_SETTINGS", device.client.settings());
    assert!(recover.arg("--recover").arg(device.client.tree()).status().unwrap().success());
    assert!(!device.staging().exists() && !device.journal().join("journal.json").exists());
}

#[test]
fn cleaning_up_needs_neither_space_nor_inodes() {
    for (options, fill) in [
        ("size=1m", "dd if=/dev/zero of=\"$0/fill\" bs=4k"),
        ("nr_inodes=60", "while : > \"$0/fill-$((i+=1))\"; do :; done"),
    ] {
        let Some(mut device) = Device::new() else { return };
        let small = device.client.device().join("mender");
        fs::create_dir_all(&small).unwrap();
        let _mounted = Mounted(vec![small.clone()]);
        assert!(run(
            "mount",
            &[
                "-t".as_ref(),
                "tmpfs".as_ref(),
                "-o".as_ref(),
                format!("mode=755,{options}").as_ref(),
                "tmpfs".as_ref(),
                small.as_os_str()
            ]
        ));
        // The web root and the client's data are on the file system that becomes full.
        device.www = small.join("html");
        device.home = small.clone();
        fs::create_dir(&device.www).unwrap();
        fs::write(device.www.join("index.html"), "old").unwrap();
        device.set(&device.www, "");
        if options.starts_with("size") {
            failed(&device.download(), "free some space");
            assert!(run("mount", &["-o".as_ref(), "remount,size=16m".as_ref(), small.as_os_str()]));
        }
        let outcome = device.download();
        assert!(outcome.success(), "{outcome:?}");
        device.ok("ArtifactInstall");
        let filled = Command::new("sh").args(["-c", fill]).arg(&small).output().unwrap();
        let said = String::from_utf8_lossy(&filled.stderr);
        assert!(said.contains("No space left"), "{options}: {said}");
        device.ok("ArtifactRollback");
        assert_eq!(device.text("index.html"), "old");
        let outcome = device.call("Cleanup");
        assert!(outcome.success() && outcome.stderr.is_empty(), "{options}: {outcome:?}");
        assert!(!device.staging().exists(), "{options}: nothing was freed");
        assert!(!device.journal().join("discard.json").exists());
    }
}

/// Waits for `condition`, for a minute at most.
fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what} did not happen");
        thread::sleep(Duration::from_millis(20));
    }
}

fn runs(pattern: &str) -> bool {
    !Command::new("pgrep").args(["-f", pattern]).output().unwrap().stdout.is_empty()
}

#[test]
fn a_call_ends_with_its_client_and_writes_no_stale_record() {
    let Some(device) = Device::new() else { return };
    let (first, second) = ("sleep 4001.5", "sleep 4002.5");
    device.set_health_check("setsid sleep 4002.5 & sleep 4001.5");
    assert!(device.download().success());
    let mut client = device.client.start_below_a_client("ArtifactInstall").unwrap();
    wait_for("the health check", || runs(&format!("^{first}")) && runs(&format!("^{second}")));
    // Ctrl-C, a lost ssh session or the OOM killer ends the client alone.
    client.kill().unwrap();
    client.wait().unwrap();
    device.let_health_checks_pass();
    wait_for("the end of the health check", || !runs(&format!("^{first}")) && !runs(&format!("^{second}")));
    device.set(&device.www, "");
    device.ok("ArtifactRollback");
    assert_eq!(device.text("index.html"), "old");
    thread::sleep(Duration::from_millis(300));
    device.ok("Cleanup");
    assert!(!device.journal().join("journal.json").exists());
    device.updates_again();
}

#[test]
fn a_download_does_not_wait_for_a_client_that_has_died() {
    let Some(device) = Device::new() else { return };
    assert!(device.download().success());
    device.ok("Cleanup");
    // The client has died before it has opened the FIFO.
    let next = device.client.tree().join("stream-next");
    let _ = fs::remove_file(&next);
    assert!(run("mkfifo", &[next.as_os_str()]));
    let tree = device.client.tree();
    let mut client = device.client.start_below_a_client("Download").unwrap();
    let pattern = format!("web-file Download {}", tree.display());
    wait_for("the download", || runs(&pattern));
    client.kill().unwrap();
    client.wait().unwrap();
    wait_for("the end of the download", || !runs(&pattern));
    device.updates_again();
}

#[test]
fn sigterm_ends_a_call_with_all_that_it_has_started() {
    let Some(device) = Device::new() else { return };
    device.set_health_check("sleep 4003.5");
    assert!(device.download().success());
    let mut client = device.client.start_below_a_client("ArtifactInstall").unwrap();
    wait_for("the health check", || runs("^sleep 4003.5"));
    device.let_health_checks_pass();
    // The client sends SIGTERM to the module's process group at its time limit.
    let pattern = format!("web-file ArtifactInstall {}", device.client.tree().display());
    assert!(
        Command::new("pkill").args(["-TERM", "-f", &format!("^[^ ]*{pattern}")]).status().unwrap().success()
    );
    wait_for("the end", || !runs("^sleep 4003.5"));
    client.wait().unwrap();
    device.set(&device.www, "");
    device.ok("ArtifactRollback");
    assert_eq!(device.text("index.html"), "old");
}

#[test]
fn a_rollback_waits_for_an_install_that_still_runs() {
    let Some(device) = Device::new() else { return };
    device.set_health_check("touch begun; sleep 1");
    assert!(device.download().success());
    thread::scope(|scope| {
        let install = scope.spawn(|| device.call("ArtifactInstall"));
        wait_for("the health check", || device.client.tree().join("begun").exists());
        device.let_health_checks_pass();
        device.ok("ArtifactRollback");
        assert!(install.join().unwrap().success());
    });
    let journal = fs::read_to_string(device.journal().join("journal.json")).unwrap();
    assert!(journal.contains("RolledBack"), "a stale record: {journal}");
    assert_eq!(device.text("index.html"), "old");
    device.ok("Cleanup");
    device.updates_again();
}

#[test]
fn calls_wait_for_each_other() {
    let Some(device) = Device::new() else { return };
    for _ in 0..20 {
        assert!(device.download().success());
        device.ok("ArtifactInstall");
        thread::scope(|scope| {
            let calls = ["ArtifactRollback", "Cleanup", "ArtifactRollback", "Cleanup"];
            let calls = calls.map(|state| scope.spawn(|| device.call(state)));
            calls.into_iter().for_each(|call| drop(call.join().unwrap()));
        });
        device.ok("ArtifactRollback");
        device.ok("Cleanup");
        let whole = (device.text("index.html"), device.www.join("added.css").exists());
        assert!([("old".into(), false), ("new".into(), true)].contains(&whole), "mixed: {whole:?}");
        assert!(!device.journal().join("journal.json").exists() && !device.staging().exists());
    }
}

#[test]
fn nothing_that_a_health_check_leaves_running_holds_the_clients_pipes() {
    let Some(device) = Device::new() else { return };
    let check = "command = [\"sh\", \"-c\", \"sleep 90.25 & true\"]\nlimit_seconds = 60\nstable_seconds = 0";
    device.set(&device.www, &format!("[health]\n{check}\n"));
    assert!(device.download().success());
    // Reads its output to the end, as the client does.
    let begun = Instant::now();
    device.ok("ArtifactInstall");
    assert!(begun.elapsed() < Duration::from_secs(80), "the background child was waited for");
    let _ = Command::new("pkill").args(["-f", "^sleep 90.25"]).status();
}

#[test]
fn every_log_line_is_one_write() {
    let Some(device) = Device::new() else { return };
    device.set_health_check(
        "printf 'in '; sleep 0.2; printf 'pieces\\n'; head -c 20000 /dev/zero | tr '\\0' x; echo; exit 1",
    );
    device
        .client
        .set(
            "web-file",
            &fs::read_to_string(device.client.settings().join("web-file.toml"))
                .unwrap()
                .replace("= 600", "= 1"),
        )
        .unwrap();
    assert!(device.download().success());
    // Each write to a socket of datagrams is one of them.
    let (reader, writer) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let mut call = Command::new(env!("CARGO_BIN_EXE_web-file"));
    call.arg("ArtifactInstall")
        .arg(device.client.tree())
        .env("MENDER_MODULES_SETTINGS", device.client.settings());
    let mut call = call.stderr(std::os::fd::OwnedFd::from(writer)).spawn().unwrap();
    reader.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let (mut lines, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        match reader.recv(&mut buffer) {
            Ok(0) => break,
            Ok(length) => lines.push(String::from_utf8_lossy(&buffer[..length]).into_owned()),
            Err(_) if call.try_wait().unwrap().is_some() => break,
            Err(_) => {}
        }
    }
    assert!(lines.iter().any(|line| line == "in pieces\n"), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("ArtifactInstall failed")), "{lines:?}");
    for line in &lines {
        assert!(line.ends_with('\n') && line.matches('\n').count() == 1 && line.len() <= 4096, "{line:?}");
    }
}

#[test]
fn the_recovery_at_boot_finds_a_datastore_that_was_moved_or_says_so() {
    let Some(device) = Device::new() else { return };
    device.client.interrupt_download(&[(OsStr::new("big"), &[7_u8; 100_000][..])]).unwrap();
    let recover = |datastore: Option<&Path>| {
        let mut call = Command::new(env!("CARGO_BIN_EXE_web-file"));
        call.arg("--recover")
            .env("MENDER_MODULES_SETTINGS", device.client.settings())
            .env_remove("MENDER_DATASTORE_DIR");
        if let Some(path) = datastore {
            call.env("MENDER_DATASTORE_DIR", path);
        }
        let output = call.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(recover(Some(Path::new("/no/such/datastore"))).contains("does not exist"));
    assert!(device.staging().exists());
    recover(Some(&device.client.datastore()));
    assert!(!device.staging().exists(), "by the client's variable");
    device.client.interrupt_download(&[(OsStr::new("big"), &[7_u8; 100_000][..])]).unwrap();
    device.set(&device.www, &format!("datastore = {:?}\n", device.client.datastore().to_str().unwrap()));
    recover(None);
    assert!(!device.staging().exists(), "by the module's setting");
}

#[test]
fn a_file_system_without_inodes_is_not_taken_for_a_name_that_comes_twice() {
    let Some(device) = Device::new() else { return };
    let small = device.client.device().join("small");
    fs::create_dir(&small).unwrap();
    let _mounted = Mounted(vec![small.clone()]);
    let options = ["-t", "tmpfs", "-o", "mode=755,nr_inodes=10", "tmpfs"].map(OsStr::new);
    assert!(run("mount", &[&options[..], &[small.as_os_str()]].concat()));
    device.set(&small.join("html"), "");
    let names: Vec<String> = (0..20).map(|number| format!("file-{number}")).collect();
    let payload: Vec<_> = names.iter().map(|name| (OsStr::new(name.as_str()), &b"x"[..])).collect();
    let outcome = device.client.download(&payload).unwrap();
    failed(&outcome, "No space left on device");
    assert!(!outcome.stderr.contains("twice"), "{outcome:?}");
    assert_eq!(fs::read_dir(&small).unwrap().count(), 0, "its space is not free");
}

#[test]
fn a_rollback_whose_cause_was_removed_succeeds_at_the_next_update_whatever_came_between() {
    for between in ["nothing", "a refused update", "an update of another destination of the same name"] {
        let Some(device) = Device::new() else { return };
        assert!(device.download().success());
        device.ok("ArtifactInstall");
        let aside = device.home.join("aside");
        fs::rename(&device.www, &aside).unwrap();
        fs::create_dir(&device.www).unwrap();
        failed(&device.call("ArtifactRollback"), "somebody has replaced it");
        device.ok("Cleanup");
        match between {
            "nothing" => {}
            "a refused update" => {
                let refused = device.download();
                failed(&refused, "blocks others of the same destination");
                assert!(refused.stderr.contains(device.staging().to_str().unwrap()), "{}", refused.stderr);
            }
            _ => {
                // Its staging directory is in the same place, and would have the same name.
                device.set(&device.home.join("missing/html"), "");
                assert!(device.download().success());
                device.ok("Cleanup");
                device.set(&device.www, "");
            }
        }
        fs::remove_dir(&device.www).unwrap();
        fs::rename(&aside, &device.www).unwrap();
        let outcome = device.download();
        assert!(outcome.success() && outcome.stderr.contains("rollback complete"), "{between}: {outcome:?}");
        assert_eq!(device.text("index.html"), "old", "{between}");
        device.ok("Cleanup");
        device.updates_again();
    }
}

#[test]
fn an_update_under_way_is_found_wherever_the_clients_data_are() {
    let Some(device) = Device::new() else { return };
    let under_way = |datastore: &str| {
        let settings = format!("datastore = {datastore}\n");
        device.set(&device.www, &settings);
        let mut call = Command::new(env!("CARGO_BIN_EXE_web-file"));
        call.arg("--under-way").env("MENDER_MODULES_SETTINGS", device.client.settings());
        let output = call.output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let datastore = device.client.datastore().display().to_string();
    assert!(!under_way(&format!("\"{datastore}\"")).0, "none has begun");
    assert!(device.download().success());
    let journal = format!("{}\n", device.journal().join("journal.json").display());
    for spelling in [format!("\"{datastore}\""), format!("'{datastore}' # the \"big\" one")] {
        assert_eq!(under_way(&spelling), (true, journal.clone()));
    }
    device.ok("Cleanup");
    assert!(!under_way(&format!("\"{datastore}\"")).0, "it has ended");
}

#[test]
fn a_file_that_an_application_saves_while_its_unit_stops_is_restored() {
    let Some(mut device) = Device::new() else { return };
    let save = format!("printf saved > '{0}/x' && mv '{0}/x' '{0}/passwd'", device.www.display());
    let systemctl = device.client.device().join("systemctl");
    let first = device.client.device().join("stopped");
    let script = format!(
        "#!/bin/sh\ncase $* in *stop*) test -e '{0}' || {{ touch '{0}'; {save}; }};; esac\n",
        first.display()
    );
    fs::write(&systemctl, script).unwrap();
    fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("PATH={}:/usr/bin:/bin", device.client.device().display());
    device.client.wrap(["env", &path]);
    device.set(
        &device.www,
        "[units]\nstop = [\"app.service\"]\n[health]\ncommand = [\"false\"]\nlimit_seconds = 1\nstable_seconds = 0\n",
    );
    assert!(device.download().success());
    failed(&device.call("ArtifactInstall"), "rolled back to the previous version");
    assert!(first.exists(), "no unit was stopped");
    for state in ["ArtifactRollback", "Cleanup"] {
        device.ok(state);
    }
    assert_eq!((device.text("index.html"), device.text("passwd")), ("old".into(), "saved".into()));
    device.client.wrap::<&str>([]);
    device.set(&device.www, "");
    device.updates_again();
}

#[test]
fn a_log_that_nobody_reads_keeps_no_call_from_ending() {
    let Some(device) = Device::new() else { return };
    device.set_health_check("yes flood-4004.5; sleep 4004.5");
    assert!(device.download().success());
    let mut call = Command::new(env!("CARGO_BIN_EXE_web-file"));
    call.arg("ArtifactInstall")
        .arg(device.client.tree())
        .env("MENDER_MODULES_SETTINGS", device.client.settings());
    // The pipe stays open, and is not read.
    let mut call = call.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("the flood", || runs("^yes flood-4004.5"));
    thread::sleep(Duration::from_millis(500));
    assert!(Command::new("kill").arg("-TERM").arg(call.id().to_string()).status().unwrap().success());
    let begun = Instant::now();
    while call.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < Duration::from_secs(30), "SIGTERM does not end it");
        thread::sleep(Duration::from_millis(20));
    }
    wait_for("the end of the flood", || !runs("^yes flood-4004.5"));
    device.let_health_checks_pass();
    device.ok("ArtifactRollback");
    assert_eq!(device.text("index.html"), "old");
}
