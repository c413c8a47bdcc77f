//! A Debian system with packages on it, and what the tests do to it.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use mock_client::debian::{Package, System};
use mock_client::{Generation, MockClient, Outcome, PayloadFile, Snapshot};

pub struct Device {
    pub client: MockClient,
}

impl Device {
    /// One with `installed` on it, in this order.
    pub fn new(installed: &[Package]) -> Self {
        Self::of_generation(Generation::V5, installed)
    }

    /// As [`new`](Self::new), with the module under another name than its own: a package of its name can be installed.
    pub fn new_as(name: &str, installed: &[Package]) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let module = folder.path().join(name);
        fs::hard_link(env!("CARGO_BIN_EXE_deb"), &module).unwrap();
        // The mount that it gets keeps the file when its folder goes.
        Self::with_module(&module, Generation::V5, installed)
    }

    pub fn of_generation(generation: Generation, installed: &[Package]) -> Self {
        Self::with_module(Path::new(env!("CARGO_BIN_EXE_deb")), generation, installed)
    }

    fn with_module(module: &Path, generation: Generation, installed: &[Package]) -> Self {
        let base = std::env::var_os("MENDER_TEST_DEBIAN")
            .expect("run by cargo xtask debian, which names a Debian system");
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
        fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
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

    /// `ii 1.0`, or nothing where dpkg does not know the package.
    pub fn version(&self, package: &str) -> String {
        let format = "${db:Status-Abbrev}${Version}";
        self.system().ok(&["dpkg-query", "--show", "--showformat", format, package]).unwrap_or_default()
    }

    /// Installs packages with dpkg, as somebody without this module would.
    pub fn dpkg(&self, debs: &[Vec<u8>]) {
        self.system().install_packages(debs).unwrap();
    }

    /// Has to find the system exactly as it was.
    pub fn is_as_before(&self, before: &Snapshot) {
        self.differs(before, &self.state(), "the device");
    }

    /// Panics with the first path at which `now` differs from `before`.
    pub fn differs(&self, before: &Snapshot, now: &Snapshot, what: &str) {
        for path in now.differences(before) {
            let [before, now] =
                [before, now].map(|state| state.text(path).unwrap_or_else(|| "(absent)".into()));
            let only = |one: &str, other: &str| -> Vec<String> {
                one.lines()
                    .filter(|line| !other.lines().any(|other| other == *line))
                    .map(str::to_owned)
                    .collect()
            };
            panic!(
                "{what}: {} is not as before, apart from what it shares with it: before {:#?}, now {:#?}",
                path.display(),
                only(&before, &now),
                only(&now, &before)
            );
        }
    }

    pub fn download_files(&self, files: &[(&str, &[u8])]) -> Outcome {
        let payload: Vec<PayloadFile> =
            files.iter().map(|(name, content)| (OsStr::new(*name), *content)).collect();
        self.client.download(&payload).unwrap()
    }

    /// Downloads `packages` under names that say nothing.
    pub fn download(&self, packages: &[Package]) {
        self.download_raw(&built(packages));
    }

    /// Downloads packages that are built already.
    pub fn download_raw(&self, built: &[Vec<u8>]) {
        let names: Vec<_> = (0..built.len()).map(|number| format!("file-{number}.deb")).collect();
        let files: Vec<_> = names.iter().map(String::as_str).zip(built.iter().map(Vec::as_slice)).collect();
        let outcome = self.download_files(&files);
        assert!(outcome.success(), "{outcome:?}");
    }

    /// Downloads and installs; the deployment log.
    pub fn install(&self, packages: &[Package]) -> String {
        self.download(packages);
        self.ok("ArtifactInstall")
    }

    /// Calls a state, which has to succeed and is no query; the deployment log.
    pub fn ok(&self, state: &str) -> String {
        let outcome = self.client.call(state).unwrap();
        assert!(outcome.success(), "{state}: {}", outcome.stderr);
        assert_eq!(outcome.stdout, "", "{state} is no query");
        outcome.stderr
    }

    /// Calls a state, which has to fail; the deployment log.
    pub fn fails(&self, state: &str) -> String {
        let outcome = self.client.call(state).unwrap();
        assert_eq!(outcome.status.code(), Some(1), "{state}: {outcome:?}");
        outcome.stderr
    }

    pub fn answer(&self, query: &str) -> String {
        let outcome = self.client.call(query).unwrap();
        assert!(outcome.success(), "{query}: {outcome:?}");
        outcome.stdout.trim_end().to_owned()
    }

    /// Rolls back and ends, as the client does after a failure.
    pub fn roll_back(&self) {
        for state in ["ArtifactRollback", "ArtifactFailure", "Cleanup"] {
            self.ok(state);
        }
    }

    pub fn commit(&self) {
        self.ok("ArtifactCommit");
        self.ok("Cleanup");
    }

    /// Nothing of an update is left but the packages kept for the next one.
    pub fn is_clean(&self) {
        let folder = self.client.datastore().join("update-modules/deb");
        for name in ["journal.json", "staging", "old"] {
            assert!(!folder.join(name).exists(), "{name} is left");
        }
    }

    /// The package is refused in `Download`, with all of `words`.
    pub fn refuses_in_download(&self, package: &[u8], words: &[&str]) {
        let outcome = self.download_files(&[("a.deb", package)]);
        assert!(!outcome.success(), "{outcome:?}");
        for word in words {
            assert!(outcome.stderr.contains(word), "{word:?} is missing in {}", outcome.stderr);
        }
        self.ok("Cleanup");
        self.is_clean();
    }

    /// As [`refuses`](Self::refuses), where the repair of an interrupted dpkg may change something before.
    pub fn refuses_after_repair(&self, packages: &[Package], words: &[&str]) {
        self.download(packages);
        let _ = self.client.call("ArtifactInstall").unwrap();
        self.roll_back();
        self.refuses(packages, words);
    }

    /// The `packages` are refused with all of `words`, and nothing has changed.
    pub fn refuses(&self, packages: &[Package], words: &[&str]) {
        let before = self.state();
        self.download(packages);
        let said = self.fails("ArtifactInstall");
        for word in words {
            assert!(said.contains(word), "{word:?} is missing in {said}");
        }
        self.is_as_before(&before);
        self.roll_back();
        self.is_as_before(&before);
        self.is_clean();
    }
}

pub fn built(packages: &[Package]) -> Vec<Vec<u8>> {
    packages.iter().map(|package| package.build().unwrap()).collect()
}

/// A package with one file and one configuration file, both of which tell its version.
pub fn app(version: &str) -> Package {
    Package::new("app", version)
        .file("/usr/share/app/data", &format!("the data of {version}"))
        .file(&format!("/usr/share/app/only-in-{version}"), "")
        .conffile("/etc/app.conf", &format!("the settings of {version}\n"))
}
