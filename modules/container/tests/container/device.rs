//! A device with a mock of a container engine.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use fake_engine::State;
use mender_update_module_test::{Generation, MockClient, Outcome};
use serde_json::{Value, json};
use test_image::{Archive, Image, Mode};

pub struct Device {
    pub client: MockClient,
    pub engine: State,
}

/// The state of an engine: running containers, tags, and images.
pub type EngineState = (Vec<(String, String)>, Vec<(String, String)>, Vec<(String, String)>);

/// The directory of the mock's executables.
pub fn mocks() -> &'static Path {
    static MOCKS: OnceLock<PathBuf> = OnceLock::new();
    MOCKS.get_or_init(|| fake_engine::executables().unwrap())
}

pub fn archive(reference: &str, version: &str, mode: Mode) -> Archive {
    Image { reference, version, mode, architecture: "amd64", executable: b"not run here" }.archive()
}

/// Writes the executable `path`.
pub fn executable(path: &Path, script: &str) {
    fs::write(path, script).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

impl Device {
    pub fn new() -> Self {
        Self::with("")
    }

    pub fn with(settings: &str) -> Self {
        Self::of(Generation::V5, settings)
    }

    /// A device with the client of `generation`.
    pub fn of(generation: Generation, settings: &str) -> Self {
        let client = MockClient::new(env!("CARGO_BIN_EXE_container"), generation).unwrap();
        let engine = State::new(client.device().join("storage/engine"));
        fs::create_dir_all(engine.directory()).unwrap();
        let device = Self { client, engine };
        device.set(settings);
        device
    }

    /// Writes the module's settings: those of every test, and `more`.
    pub fn set(&self, more: &str) {
        let (engine, units) = (self.engine.directory(), self.client.device().join("units"));
        let common = format!(
            "engine = [{:?}, {:?}]\nsystemctl = [{:?}, {:?}, {units:?}]\nunits_dir = {units:?}\nstable_seconds = 0\n\
             health_seconds = 1\n{more}",
            mocks().join("fake-podman"),
            engine,
            mocks().join("fake-systemctl"),
            engine,
        );
        self.client.set("container", &common).unwrap();
    }

    /// Lets each later call of systemctl make the file `begun`, and wait for the file `end`, for up to 60 s.
    pub fn hold_systemctl(&self, begun: &Path, end: &Path) {
        self.before_systemctl(&format!(
            ": > '{}'\nfor poll in $(seq 600); do test -e '{}' && break; sleep 0.1; done",
            begun.display(),
            end.display()
        ));
    }

    /// Lets systemctl run the shell commands `script` first, in calls of later downloads and boots.
    pub fn before_systemctl(&self, script: &str) {
        self.replace_program("systemctl", &format!("{script}\nexec \"$mock\" \"$@\""));
    }

    /// Sets the shell commands `script` as `program`, podman or systemctl, of later downloads and boots. The mock is
    /// `$mock` there.
    pub fn replace_program(&self, program: &str, script: &str) {
        let (settings, all) = (self.client.settings().join("container.toml"), self.client.device().join(program));
        let mock = mocks().join(format!("fake-{program}")).display().to_string();
        executable(&all, &format!("#!/bin/sh\nmock='{mock}'\n{script}\n"));
        let text = fs::read_to_string(&settings).unwrap();
        assert!(text.contains(&mock), "{text}");
        fs::write(&settings, text.replace(&mock, all.to_str().unwrap())).unwrap();
    }

    pub fn engine_state(&self) -> EngineState {
        let images = self.engine.images().unwrap();
        (self.engine.running().unwrap(), self.engine.tags().unwrap(), images)
    }

    pub fn download(&mut self, meta_data: &Value, files: &[(&str, &[u8])]) -> Outcome {
        self.client.set_meta_data(meta_data.to_string());
        let payload: Vec<_> = files.iter().map(|(name, content)| (OsStr::new(*name), *content)).collect();
        self.client.download(&payload).unwrap()
    }

    /// Starts a download of the project shop, and kills module and engine as soon as `begun`.
    pub fn interrupt_download(&mut self, reference: &str, archive: &Archive, begun: impl Fn() -> bool) {
        self.client.set_meta_data(one("shop", reference, &archive.id).to_string());
        self.client.interrupt_download_when(&[(OsStr::new("app.tar"), &archive.content)], begun).unwrap();
    }

    /// Downloads an artifact of `project` with one service and one image.
    pub fn download_one(&mut self, project: &str, reference: &str, archive: &Archive) -> Outcome {
        self.download(&one(project, reference, &archive.id), &[("app.tar", &archive.content)])
    }

    pub fn ok(&self, state: &str) {
        let outcome = self.client.call(state).unwrap();
        assert!(outcome.success(), "{state}: {outcome:?}");
        assert_eq!(outcome.stdout, "", "{state} is not a query");
    }

    pub fn all(&self, states: &[&str]) {
        states.iter().for_each(|state| self.ok(state));
    }

    /// Updates `project` with a commit, and returns the new image.
    pub fn update(&mut self, project: &str, reference: &str, version: &str) -> Archive {
        let archive = archive(reference, version, Mode::Healthy);
        let outcome = self.download_one(project, reference, &archive);
        assert!(outcome.success(), "{outcome:?}");
        self.all(&["ArtifactInstall", "ArtifactCommit", "Cleanup"]);
        archive
    }

    pub fn running(&self, container: &str) -> Option<String> {
        self.engine.running().unwrap().into_iter().find(|(name, _)| name == container).map(|(_, id)| id)
    }

    pub fn has_image(&self, archive: &Archive) -> bool {
        self.engine.images().unwrap().iter().any(|(id, _)| *id == archive.id)
    }

    pub fn is_clean(&self) -> bool {
        let directory = self.state_directory();
        !directory.join("journal.json").exists() && !directory.join("staging").exists()
    }

    /// The module's state directory.
    pub fn state_directory(&self) -> PathBuf {
        self.client.datastore().join("update-modules/container")
    }

    /// Simulates a power loss, and the boot after it.
    pub fn boot(&self) {
        self.engine.lose_power(&self.client.device().join("units")).unwrap();
        self.ok("--recover");
    }
}

/// The meta-data of a project with one service.
pub fn one(project: &str, reference: &str, id: &str) -> Value {
    json!({
        "project": project,
        "images": [{"file": "app.tar", "id": format!("sha256:{id}"), "ref": reference}],
        "run": {"web": {"image": reference, "ports": ["8080:8080"], "volumes": ["data:/data"],
            "env": {"A": "50% \"$x\""}}},
    })
}

pub fn refused(outcome: &Outcome, expected: &str) {
    assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains(expected), "{expected:?} is missing in {}", outcome.stderr);
}
