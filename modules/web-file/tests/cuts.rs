//! Every cut of every state: the web root is exactly the old or exactly the new in the end.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use crash::{COURSES, Report, Subject};
use mock_client::{Generation, MockClient, PayloadFile, Snapshot};
use rustix::fs::{XattrFlags, setxattr};

/// A web root with files that an update replaces, removes and leaves alone, or none at all.
struct WebFile {
    first_install: bool,
}

impl Subject for WebFile {
    fn device(&self) -> Result<MockClient> {
        let device = MockClient::new(env!("CARGO_BIN_EXE_web-file"), Generation::V5)?;
        let (www, me) = (device.device().join("www"), fs::metadata(device.device())?);
        let (owner, group) = (me.uid(), me.gid());
        device.set("web-file", &format!("dest_dir = {www:?}\nowner = \"{owner}\"\ngroup = \"{group}\"\n"))?;
        if !self.first_install {
            fs::create_dir_all(www.join("uploads"))?;
            for name in ["index.html", "style sheet.css", "gone.html", "uploads/photo"] {
                fs::write(www.join(name), format!("the old {name}"))?;
            }
            fs::set_permissions(www.join("gone.html"), fs::Permissions::from_mode(0o640))?;
            setxattr(www.join("index.html"), "user.origin", b"factory", XattrFlags::CREATE)?;
            let then = SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 987_654_321);
            for name in ["index.html", "style sheet.css", "gone.html", "uploads/photo", "uploads", ""] {
                fs::File::open(www.join(name))?.set_modified(then)?;
            }
        }
        Ok(device)
    }

    fn live(&self, device: &MockClient) -> Result<Snapshot> {
        Snapshot::of(&device.device().join("www"))
    }

    fn payload(&self) -> Vec<PayloadFile<'_>> {
        [
            ("index.html", "the new index"),
            ("style sheet.css", "the new style"),
            ("added.js", "only in the new"),
        ]
        .map(|(name, content)| (OsStr::new(name), content.as_bytes()))
        .to_vec()
    }

    fn is_clean(&self, device: &MockClient) -> Result<()> {
        let staging = device.device().join(".www.web-file");
        let journal = device.datastore().join("update-modules/web-file/journal.json");
        ensure!(!staging.exists(), "the staging place is left");
        ensure!(!journal.exists(), "the journal is left");
        Ok(())
    }
}

/// Prints what came of each course, and fails when any attempt ended in anything else than it has to.
fn judge(reports: Vec<Report>) {
    for report in &reports {
        println!("{report}");
    }
    let tried: usize = reports.iter().map(Report::tried).sum();
    let other: Vec<_> = reports.iter().flat_map(Report::other).map(String::as_str).collect();
    println!("{tried} faults tried, {} OTHER", other.len());
    assert!(other.is_empty(), "{} of {tried}:\n{}", other.len(), other.join("\n"));
}

fn every_course(subject: &WebFile) {
    judge(COURSES.iter().map(|course| crash::run(subject, course).unwrap()).collect());
}

#[test]
fn an_update() {
    every_course(&WebFile { first_install: false });
}

#[test]
fn a_first_install() {
    every_course(&WebFile { first_install: true });
}

#[test]
fn a_rollback_cut_after_a_cut_install() {
    judge(vec![crash::run_twice_cut(&WebFile { first_install: false }).unwrap()]);
}

#[test]
fn a_rollback_cut_after_a_cut_first_install() {
    judge(vec![crash::run_twice_cut(&WebFile { first_install: true }).unwrap()]);
}
