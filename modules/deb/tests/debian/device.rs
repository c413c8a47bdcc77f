//! The device of a test: a Debian system with a mock client.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use mender_update_module_test::debian::{Package, System};
use mender_update_module_test::{Generation, MockClient, Outcome, PayloadFile, Snapshot, read_text};

pub struct Device {
    pub client: MockClient,
}

impl Device {
    /// A device with the packages `installed`, which are installed in this order.
    pub fn new(installed: &[Package]) -> Self {
        Self::of_generation(Generation::V5, installed)
    }

    /// As [`new`](Self::new), with the module under another name, so that a package with its real name can be
    /// installed.
    pub fn new_as(name: &str, installed: &[Package]) -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let module = directory.path().join(name);
        fs::hard_link(env!("CARGO_BIN_EXE_deb"), &module).unwrap();
        // The mount of the file keeps it when its directory is removed.
        Self::with_module(&module, Generation::V5, installed)
    }

    pub fn of_generation(generation: Generation, installed: &[Package]) -> Self {
        Self::with_module(Path::new(env!("CARGO_BIN_EXE_deb")), generation, installed)
    }

    fn with_module(module: &Path, generation: Generation, installed: &[Package]) -> Self {
        let base =
            std::env::var_os("MENDER_TEST_DEBIAN").expect("run by cargo xtask debian, which names a Debian system");
        let client = MockClient::debian(Path::new(&base), module, generation, true).unwrap();
        let device = Self { client };
        if !installed.is_empty() {
            device.system().install_packages(&built(installed)).unwrap();
        }
        device
    }

    pub fn system(&self) -> &System {
        self.client.system().unwrap()
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.client.device().join(path.trim_start_matches('/'))
    }

    pub fn text(&self, path: &str) -> String {
        read_text(&self.path(path)).unwrap()
    }

    pub fn write(&self, path: &str, content: &str) {
        fs::write(self.path(path), content).unwrap();
    }

    /// Runs a program on the device; it has to succeed.
    pub fn run(&self, words: &[&str]) -> String {
        self.system().ok(words).unwrap()
    }

    pub fn state(&self) -> Snapshot {
        self.system().state().unwrap()
    }

    /// State and version such as `ii 1.0`; empty where dpkg does not know the package.
    pub fn version(&self, package: &str) -> String {
        let format = "${db:Status-Abbrev}${Version}";
        self.system().ok(&["dpkg-query", "--show", "--showformat", format, package]).unwrap_or_default()
    }

    /// Installs packages with dpkg, without the module.
    pub fn dpkg(&self, debs: &[Vec<u8>]) {
        self.system().install_packages(debs).unwrap();
    }

    /// Asserts that the system is as `before`.
    pub fn assert_state(&self, before: &Snapshot) {
        self.assert_same(before, &self.state(), "the device");
    }

    /// Asserts that `now` is as `before`, with the first path that differs in the message.
    pub fn assert_same(&self, before: &Snapshot, now: &Snapshot, what: &str) {
        if let Some(path) = now.differences(before).into_iter().next() {
            let [before, now] = [before, now].map(|state| state.text(path).unwrap_or_else(|| "(absent)".into()));
            let only_in = |one: &str, other: &str| -> Vec<String> {
                one.lines().filter(|line| !other.lines().any(|other| other == *line)).map(str::to_owned).collect()
            };
            panic!(
                "{what}: {} differs; lines that were only there before: {:#?}; lines that are only there now: {:#?}",
                path.display(),
                only_in(&before, &now),
                only_in(&now, &before)
            );
        }
    }

    pub fn download_files(&self, files: &[(&str, &[u8])]) -> Outcome {
        let payload: Vec<PayloadFile> = files.iter().map(|(name, content)| (OsStr::new(*name), *content)).collect();
        self.client.download(&payload).unwrap()
    }

    /// Downloads `packages` under other names than their own.
    pub fn download(&self, packages: &[Package]) {
        self.download_raw(&built(packages));
    }

    /// Downloads built packages.
    pub fn download_raw(&self, built: &[Vec<u8>]) {
        let names: Vec<_> = (0..built.len()).map(|number| format!("file-{number}.deb")).collect();
        let files: Vec<_> = names.iter().map(String::as_str).zip(built.iter().map(Vec::as_slice)).collect();
        let outcome = self.download_files(&files);
        assert!(outcome.success(), "{outcome:?}");
    }

    /// Downloads and installs `packages`. Returns the deployment log.
    pub fn install(&self, packages: &[Package]) -> String {
        self.download(packages);
        self.ok("ArtifactInstall")
    }

    /// Calls a state that must succeed and answer nothing. Returns the deployment log.
    pub fn ok(&self, state: &str) -> String {
        let outcome = self.client.call(state).unwrap();
        assert!(outcome.success(), "{state}: {}", outcome.stderr);
        assert_eq!(outcome.stdout, "", "{state} must not answer");
        outcome.stderr
    }

    /// Calls a state that must fail. Returns the deployment log.
    pub fn fails(&self, state: &str) -> String {
        let outcome = self.client.call(state).unwrap();
        assert_eq!(outcome.status.code(), Some(1), "{state}: {outcome:?}");
        outcome.stderr
    }

    /// Calls a query. Returns the answer.
    pub fn answer(&self, query: &str) -> String {
        let outcome = self.client.call(query).unwrap();
        assert!(outcome.success(), "{query}: {outcome:?}");
        outcome.stdout.trim_end().to_owned()
    }

    /// Rolls back and cleans up, as the client does after a failure.
    pub fn roll_back(&self) {
        for state in ["ArtifactRollback", "ArtifactFailure", "Cleanup"] {
            self.ok(state);
        }
    }

    pub fn commit(&self) {
        self.ok("ArtifactCommit");
        self.ok("Cleanup");
    }

    /// Asserts that nothing of an update is left, except the package cache.
    pub fn assert_clean(&self) {
        let directory = self.client.datastore().join("update-modules/deb");
        for name in ["journal.json", "staging", "old"] {
            assert!(!directory.join(name).exists(), "{name} is left");
        }
    }

    /// Asserts that the package is refused in `Download` with all of `words`.
    pub fn assert_refused_in_download(&self, package: &[u8], words: &[&str]) {
        let outcome = self.download_files(&[("a.deb", package)]);
        assert!(!outcome.success(), "{outcome:?}");
        for word in words {
            assert!(outcome.stderr.contains(word), "{word:?} is missing in {}", outcome.stderr);
        }
        self.ok("Cleanup");
        self.assert_clean();
    }

    /// As [`assert_refused`](Self::assert_refused), after the repair of an interrupted dpkg, which may change
    /// something.
    pub fn assert_refused_after_repair(&self, packages: &[Package], words: &[&str]) {
        self.download(packages);
        let _ = self.client.call("ArtifactInstall").unwrap();
        self.roll_back();
        self.assert_refused(packages, words);
    }

    /// Asserts that `packages` are refused with all of `words`, and that nothing has changed.
    pub fn assert_refused(&self, packages: &[Package], words: &[&str]) {
        let before = self.state();
        self.download(packages);
        let log = self.fails("ArtifactInstall");
        for word in words {
            assert!(log.contains(word), "{word:?} is missing in {log}");
        }
        self.assert_state(&before);
        self.roll_back();
        self.assert_state(&before);
        self.assert_clean();
    }
}

pub fn built(packages: &[Package]) -> Vec<Vec<u8>> {
    packages.iter().map(|package| package.build().unwrap()).collect()
}

/// A package with one file and one configuration file, which have its version in them.
pub fn app(version: &str) -> Package {
    Package::new("app", version)
        .file("/usr/share/app/data", &format!("the data of {version}"))
        .file(&format!("/usr/share/app/only-in-{version}"), "")
        .conffile("/etc/app.conf", &format!("the settings of {version}\n"))
}
