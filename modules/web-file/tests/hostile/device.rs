//! A device with a web root in a directory of the web server.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use mender_update_module_test::privileged::Mounted;
use mender_update_module_test::{Generation, MockClient, Outcome, read_text};

/// The user ID of the web server, which owns the parent directory of the web root.
pub const WWW_DATA: u32 = 33;

pub const NEW: &[(&str, &str)] = &[("index.html", "new"), ("added.css", "only in the new version")];

/// A device with a web root in a directory of the web server, and a directory of root beside it.
pub struct Device {
    pub client: MockClient,
    /// Owned by the web server.
    pub home: PathBuf,
    pub www: PathBuf,
    /// Files that an attacker wants root to read, change or remove.
    pub victim: PathBuf,
}

impl Device {
    pub fn new() -> Option<Self> {
        Self::of(Generation::V5)
    }

    pub fn of(generation: Generation) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        let client = MockClient::new(env!("CARGO_BIN_EXE_web-file"), generation).unwrap();
        let (home, victim) = (client.device().join("home"), client.device().join("victim"));
        let www = home.join("html");
        fs::create_dir_all(&www).unwrap();
        fs::create_dir(&victim).unwrap();
        for (directory, text) in [(&www, "previous"), (&victim, "root's")] {
            fs::write(directory.join("index.html"), text).unwrap();
            fs::write(directory.join("passwd"), text).unwrap();
        }
        chown(&home, Some(WWW_DATA), Some(WWW_DATA)).unwrap();
        let device = Self { client, home, www, victim };
        device.set(&device.www, "");
        Some(device)
    }

    pub fn set(&self, dest_dir: &Path, more: &str) {
        self.client.set("web-file", &format!("dest_dir = {:?}\n{more}", dest_dir.to_str().unwrap())).unwrap();
    }

    /// Sets a health check that runs `script`. It is in the journal, so that a rollback uses it too.
    pub fn set_health_check(&self, script: &str) {
        let flag = self.client.device().join("checked");
        fs::write(&flag, "").unwrap();
        let script = format!("test -e '{}' || exit 0; {script}", flag.display());
        let check = format!("command = [\"sh\", \"-c\", {script:?}]\nlimit_seconds = 600\nstable_seconds = 0");
        self.set(&self.www, &format!("[health]\n{check}\n"));
    }

    pub fn let_health_checks_pass(&self) {
        fs::remove_file(self.client.device().join("checked")).unwrap();
    }

    /// Makes strace change the results of system calls in later calls of the module; `false` if it cannot.
    pub fn inject(&mut self, fault: &[&str]) -> bool {
        let words = [&["strace", "--follow-forks", "--output=/dev/null"], fault].concat();
        let output = Command::new(words[0]).args(&words[1..]).arg("true").output();
        let is_possible = output.is_ok_and(|output| output.status.success());
        if is_possible {
            self.client.wrap(words);
        } else {
            eprintln!("skipped: strace is not installed, or may not trace");
        }
        is_possible
    }

    pub fn download(&self) -> Outcome {
        let payload: Vec<_> = NEW.iter().map(|(name, text)| (OsStr::new(*name), text.as_bytes())).collect();
        self.client.download(&payload).unwrap()
    }

    pub fn call(&self, state: &str) -> Outcome {
        self.client.call(state).unwrap()
    }

    pub fn ok(&self, state: &str) {
        let outcome = self.call(state);
        assert!(outcome.success(), "{state}: {outcome:?}");
    }

    /// Installs an update whose rollback fails, because another directory has the name of the web root. Returns the
    /// path of the web root, for [`Device::put_back`].
    pub fn fail_a_rollback(&self) -> PathBuf {
        assert!(self.download().success());
        self.ok("ArtifactInstall");
        let aside = self.home.join("aside");
        fs::rename(&self.www, &aside).unwrap();
        fs::create_dir(&self.www).unwrap();
        failed(&self.call("ArtifactRollback"), "was replaced");
        self.ok("Cleanup");
        aside
    }

    /// Gives the web root at `aside` its name back.
    pub fn put_back(&self, aside: &Path) {
        fs::remove_dir(&self.www).unwrap();
        fs::rename(aside, &self.www).unwrap();
    }

    pub fn staging(&self) -> PathBuf {
        self.home.join(".html.web-file")
    }

    /// The directory of the previous files.
    pub fn previous(&self) -> PathBuf {
        let kept = self.staging().join("kept");
        if kept.exists() { kept } else { self.staging().join("old") }
    }

    pub fn journal(&self) -> PathBuf {
        self.client.datastore().join("update-modules/web-file")
    }

    pub fn text(&self, name: &str) -> String {
        read_text(&self.www.join(name)).unwrap()
    }

    /// Checks that a whole update succeeds.
    pub fn updates_again(&self) {
        let outcome = self.download();
        assert!(outcome.success(), "{outcome:?}");
        for state in ["ArtifactInstall", "ArtifactCommit", "Cleanup"] {
            self.ok(state);
        }
        assert_eq!(self.text("index.html"), "new");
    }
}

pub fn failed(outcome: &Outcome, words: &str) {
    assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains(words), "{words:?} is missing in {}", outcome.stderr);
}

pub fn run(program: &str, arguments: &[&OsStr]) -> bool {
    Command::new(program).args(arguments).status().unwrap().success()
}

/// Whether this process may mount. Root in a container often may not.
pub fn may_mount() -> bool {
    let directory = tempfile::tempdir().unwrap();
    Mounted::tmpfs(directory.path(), "").is_some()
}

/// A change that an attacker with write access to the parent directory makes between two calls.
pub type Attack = fn(&Device);
