//! A device with a tree.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use mender_update_module_test::{Generation, MockClient, Outcome, PayloadFile, Snapshot, read_text};
use rustix::fs::{XattrFlags, setxattr};

/// A device with a destination, and a source directory for archives.
pub struct Device {
    pub client: MockClient,
    pub destination: PathBuf,
    pub source: PathBuf,
}

impl Device {
    pub fn new(generation: Generation) -> Self {
        let client = MockClient::new(env!("CARGO_BIN_EXE_directory"), generation).unwrap();
        let destination = client.device().join("srv/my app");
        let source = client.device().join("source");
        fs::create_dir_all(source.join("bin")).unwrap();
        fs::write(source.join("index.html"), "the new index").unwrap();
        fs::write(source.join("bin/run me"), "the new program").unwrap();
        fs::set_permissions(source.join("bin/run me"), fs::Permissions::from_mode(0o751)).unwrap();
        Self { client, destination, source }
    }

    /// A device with a previous tree.
    pub fn filled(generation: Generation) -> Self {
        let device = Self::new(generation);
        let previous = &device.destination;
        fs::create_dir_all(previous.join("uploads/deep")).unwrap();
        for (name, content) in [
            ("index.html", "the previous index"),
            ("gone.html", "only in the previous version"),
            ("users.db", "Ada"),
            ("uploads/photo", "of me"),
            ("uploads/deep/letter", "to you"),
        ] {
            fs::write(previous.join(name), content).unwrap();
        }
        setxattr(previous.join("gone.html"), "user.origin", b"factory", XattrFlags::CREATE).unwrap();
        age(previous);
        device
    }

    /// The archive that tar makes of the source directory, with these `options`.
    pub fn tar(&self, options: &[&str]) -> Vec<u8> {
        let output = Command::new("tar")
            .args(["--create", "--file=-", "--directory"])
            .arg(&self.source)
            .args(options)
            .arg(".")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    }

    pub fn download_files(&self, files: &[(&str, &[u8])]) -> Outcome {
        let payload: Vec<PayloadFile> = files.iter().map(|(name, content)| (OsStr::new(*name), *content)).collect();
        self.client.download(&payload).unwrap()
    }

    /// Downloads the payload as Mender's artifact generator makes it.
    pub fn download(&self, archive: &[u8]) -> Outcome {
        let dest_dir = format!("{}\n", self.destination.to_str().unwrap());
        self.download_files(&[("dest_dir", dest_dir.as_bytes()), ("update.tar", archive)])
    }

    pub fn install(&self, archive: &[u8]) {
        let outcome = self.download(archive);
        assert!(outcome.success(), "{outcome:?}");
        self.ok("ArtifactInstall");
    }

    pub fn is_root(&self) -> bool {
        fs::metadata(self.client.device()).unwrap().uid() == 0
    }

    pub fn ok(&self, state: &str) {
        let outcome = self.client.call(state).unwrap();
        assert!(outcome.success(), "{state}: {outcome:?}");
        assert_eq!(outcome.stdout, "", "{state} is no query");
    }

    pub fn active(&self) -> Snapshot {
        Snapshot::of(&self.destination).unwrap().below(&self.destination)
    }

    pub fn expected(&self) -> Snapshot {
        Snapshot::of(&self.source).unwrap().below(&self.source)
    }

    pub fn text(&self, name: &str) -> String {
        read_text(&self.destination.join(name)).unwrap()
    }

    /// Whether neither a staging directory nor a journal is left.
    pub fn is_clean(&self) -> bool {
        let hidden = |directory: &Path| {
            let names = fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().file_name());
            names.filter(|name| name.to_string_lossy().starts_with('.')).count() > 0
        };
        !hidden(self.client.device())
            && !hidden(&self.client.device().join("srv"))
            && !self.client.datastore().join("update-modules/directory/journal.json").exists()
    }
}

/// Sets times in the past on `directory` and everything in it.
pub fn age(directory: &Path) {
    for found in fs::read_dir(directory).unwrap() {
        let path = found.unwrap().path();
        if path.is_dir() { age(&path) } else { fs::File::open(path).unwrap().set_modified(then()).unwrap() }
    }
    fs::File::open(directory).unwrap().set_modified(then()).unwrap();
}

pub fn then() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 987_654_321)
}

pub fn refused(outcome: Outcome, words: &str) {
    assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains(words), "{words:?} is missing in {}", outcome.stderr);
}
