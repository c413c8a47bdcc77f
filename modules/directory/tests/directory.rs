//! What `directory` does, on real folders and archives of the real tar, with the client played.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use mock_client::{Generation, MockClient, Outcome, PayloadFile, Snapshot};
use rustix::fs::{XattrFlags, setxattr};

/// A device, the destination on it, and a folder beside it that archives are made of.
struct Device {
    client: MockClient,
    destination: PathBuf,
    source: PathBuf,
}

impl Device {
    fn new(generation: Generation) -> Self {
        let client = MockClient::new(env!("CARGO_BIN_EXE_directory"), generation).unwrap();
        let destination = client.device().join("srv/my app");
        let source = client.device().join("source");
        fs::create_dir_all(source.join("bin")).unwrap();
        fs::write(source.join("index.html"), "the new index").unwrap();
        fs::write(source.join("bin/run me"), "the new program").unwrap();
        fs::set_permissions(source.join("bin/run me"), fs::Permissions::from_mode(0o751)).unwrap();
        Self { client, destination, source }
    }

    /// One with an old tree in place.
    fn filled(generation: Generation) -> Self {
        let device = Self::new(generation);
        let old = &device.destination;
        fs::create_dir_all(old.join("uploads/deep")).unwrap();
        for (name, content) in [
            ("index.html", "the old index"),
            ("gone.html", "only in the old"),
            ("users.db", "Ada"),
            ("uploads/photo", "of me"),
            ("uploads/deep/letter", "to you"),
        ] {
            fs::write(old.join(name), content).unwrap();
        }
        setxattr(old.join("gone.html"), "user.origin", b"factory", XattrFlags::CREATE).unwrap();
        age(old);
        device
    }

    /// Runs tar in the source folder with more `options`.
    fn tar(&self, options: &[&str]) -> Vec<u8> {
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

    fn download_files(&self, files: &[(&str, &[u8])]) -> Outcome {
        let payload: Vec<PayloadFile> =
            files.iter().map(|(name, content)| (OsStr::new(*name), *content)).collect();
        self.client.download(&payload).unwrap()
    }

    /// The payload that Mender's generator makes.
    fn download(&self, archive: &[u8]) -> Outcome {
        let dest_dir = format!("{}\n", self.destination.to_str().unwrap());
        self.download_files(&[("dest_dir", dest_dir.as_bytes()), ("update.tar", archive)])
    }

    fn install(&self, archive: &[u8]) {
        let outcome = self.download(archive);
        assert!(outcome.success(), "{outcome:?}");
        self.ok("ArtifactInstall");
    }

    fn is_root(&self) -> bool {
        fs::metadata(self.client.device()).unwrap().uid() == 0
    }

    fn ok(&self, state: &str) {
        let outcome = self.client.call(state).unwrap();
        assert!(outcome.success(), "{state}: {outcome:?}");
        assert_eq!(outcome.stdout, "", "{state} is no query");
    }

    fn live(&self) -> Snapshot {
        Snapshot::of(&self.destination).unwrap().below(&self.destination)
    }

    fn expected(&self) -> Snapshot {
        Snapshot::of(&self.source).unwrap().below(&self.source)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.destination.join(name)).unwrap()
    }

    /// Neither staging place nor journal is left.
    fn is_clean(&self) -> bool {
        let hidden = |folder: &Path| {
            let names = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().file_name());
            names.filter(|name| name.to_string_lossy().starts_with('.')).count() > 0
        };
        !hidden(self.client.device())
            && !hidden(&self.client.device().join("srv"))
            && !self.client.datastore().join("update-modules/directory/journal.json").exists()
    }
}

/// Gives everything in `folder`, and itself, times that only a real restoration brings back.
fn age(folder: &Path) {
    for found in fs::read_dir(folder).unwrap() {
        let path = found.unwrap().path();
        if path.is_dir() { age(&path) } else { fs::File::open(path).unwrap().set_modified(then()).unwrap() }
    }
    fs::File::open(folder).unwrap().set_modified(then()).unwrap();
}

fn then() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 987_654_321)
}

fn refused(outcome: Outcome, words: &str) {
    assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains(words), "{words:?} is missing in {}", outcome.stderr);
}

#[test]
fn the_official_payload_replaces_the_tree_and_rolls_back_exactly() {
    for generation in [Generation::V3, Generation::V5] {
        for commit in [false, true] {
            let device = Device::filled(generation);
            let old = device.live();
            assert!(device.download(&device.tar(&["--format=posix"])).success());
            assert_eq!(device.live(), old, "nothing is live before ArtifactInstall");
            device.ok("ArtifactInstall");
            assert_eq!(device.live(), device.expected());
            if commit {
                device.ok("ArtifactCommit");
            }
            for _ in 0..2 {
                device.ok("ArtifactRollback");
                assert_eq!(device.live(), old);
            }
            device.ok("ArtifactFailure");
            device.ok("Cleanup");
            assert_eq!(device.live(), old);
            assert!(device.is_clean());
        }
    }
}

#[test]
fn install_commit_and_cleanup_leave_exactly_the_new() {
    let device = Device::filled(Generation::V5);
    device.install(&device.tar(&["--format=posix"]));
    for state in ["ArtifactInstall", "ArtifactCommit", "ArtifactCommit", "Cleanup", "Cleanup"] {
        device.ok(state);
    }
    assert_eq!(device.live(), device.expected());
    assert!(device.is_clean());
}

#[test]
fn meta_data_name_the_destination_and_the_tree_streams() {
    let mut device = Device::filled(Generation::V5);
    let old = device.live();
    let destination = device.destination.clone();
    device.client.set_meta_data(format!(r#"{{"dest_dir": {destination:?}, "keep": ["*.db"], "other": 1}}"#));
    let outcome = device.download_files(&[("tree.tar", &device.tar(&[]))]);
    assert!(outcome.success(), "{outcome:?}");
    device.ok("ArtifactInstall");
    assert_eq!(device.text("index.html"), "the new index");
    assert_eq!(device.text("users.db"), "Ada");
    device.ok("ArtifactRollback");
    assert_eq!(device.live(), old);
    refused(device.download_files(&[("a.tar", &device.tar(&[])), ("b.tar", &device.tar(&[]))]), "b.tar");
    refused(device.download_files(&[]), "no archive");
}

#[test]
fn an_archive_before_its_destination_is_put_aside() {
    let device = Device::filled(Generation::V3);
    let dest_dir = device.destination.to_str().unwrap().to_owned();
    let archive = device.tar(&["--format=posix"]);
    let outcome = device.download_files(&[("update.tar", &archive), ("dest_dir", dest_dir.as_bytes())]);
    assert!(outcome.success(), "{outcome:?}");
    device.ok("ArtifactInstall");
    assert_eq!(device.live(), device.expected());
}

#[test]
fn a_first_install_makes_its_parents_and_rolls_back_to_nothing() {
    for generation in [Generation::V3, Generation::V5] {
        let device = Device::new(generation);
        device.install(&device.tar(&["--format=posix"]));
        assert_eq!(device.live(), device.expected());
        device.ok("ArtifactRollback");
        assert!(!device.client.device().join("srv").exists());
        device.ok("Cleanup");
        assert!(device.is_clean());
    }
}

#[test]
fn everything_that_an_archive_says_is_kept() {
    for format in ["--format=gnu", "--format=posix"] {
        let device = Device::filled(Generation::V3);
        let source = &device.source;
        let long = "a rather long name, ".repeat(12);
        fs::create_dir_all(source.join(&long).join(&long)).unwrap();
        fs::write(source.join(&long).join(&long).join("deep file"), "deep").unwrap();
        symlink("/nowhere/absolute", source.join("absolute")).unwrap();
        symlink("bin/run me", source.join("link")).unwrap();
        fs::hard_link(source.join("index.html"), source.join("second name")).unwrap();
        fs::set_permissions(source.join("bin"), fs::Permissions::from_mode(0o2750)).unwrap();
        fs::write(source.join("empty"), "").unwrap();
        assert!(Command::new("mkfifo").arg(source.join("fifo")).status().unwrap().success());
        age_links_too(source);
        device.install(&device.tar(&[format]));
        let expected = device.expected();
        let live = device.live();
        // The old form of archive has whole seconds only.
        let exact = format == "--format=posix";
        let same = if exact {
            live == expected
        } else {
            live.clone().without_times() == expected.clone().without_times()
        };
        assert!(same, "{format}: {:?}", live.differences(&expected));
        let inode = |name: &str| fs::metadata(device.destination.join(name)).unwrap().ino();
        assert_eq!(inode("index.html"), inode("second name"));
    }
}

fn age_links_too(folder: &Path) {
    let mut find = Command::new("find");
    find.arg(folder).args(["-exec", "touch", "--no-dereference", "--date=@1234567890.987654321", "{}", "+"]);
    assert!(find.status().unwrap().success());
}

#[test]
fn attributes_acls_and_capabilities_are_kept() {
    let device = Device::filled(Generation::V3);
    let program = device.source.join("bin/run me");
    setxattr(&program, "user.with newline", b"a\nb", XattrFlags::CREATE).unwrap();
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in
        [(1u16, 7u16, u32::MAX), (2, 5, 4242), (4, 5, u32::MAX), (16, 5, u32::MAX), (32, 1, u32::MAX)]
    {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    setxattr(&program, "system.posix_acl_access", &acl, XattrFlags::empty()).unwrap();
    setxattr(device.source.join("bin"), "system.posix_acl_default", &acl, XattrFlags::empty()).unwrap();
    let mut options = vec!["--format=posix", "--acls", "--xattrs", "--xattrs-include=*"];
    if device.is_root() {
        // cap_net_bind_service=ep
        let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        setxattr(&program, "security.capability", &capability, XattrFlags::empty()).unwrap();
    } else {
        options.push("--xattrs-exclude=security.*");
    }
    device.install(&device.tar(&options));
    let (live, expected) = (device.live(), device.expected());
    assert_eq!(live, expected, "{:?}", live.differences(&expected));
}

#[test]
fn sparse_files_stay_sparse() {
    for format in ["--format=gnu", "--format=posix"] {
        let device = Device::filled(Generation::V5);
        let path = device.source.join("disk");
        let file = fs::File::create(&path).unwrap();
        use std::os::unix::fs::FileExt;
        // More parts than a header has room for, and a hole at the end.
        for part in 0..40 {
            file.write_all_at(&[part as u8 + 1; 4096], part * (1 << 20)).unwrap();
        }
        file.set_len(100 << 20).unwrap();
        let archive = device.tar(&[format, "--sparse"]);
        assert!(archive.len() < 4 << 20, "tar made no sparse archive");
        device.install(&archive);
        let live = device.destination.join("disk");
        let (found, expected) = (fs::read(&live).unwrap(), fs::read(&path).unwrap());
        let differs = found.iter().zip(&expected).position(|(found, expected)| found != expected);
        assert_eq!((differs, found.len()), (None, expected.len()), "{format}");
        assert!(fs::metadata(&live).unwrap().blocks() * 512 < 4 << 20, "{format}: the holes were filled");
    }
}

#[test]
fn users_data_are_carried_over_and_the_old_tree_stays_exact() {
    let device = Device::filled(Generation::V5);
    device.client.set("directory", "keep = [\"uploads/**\", \"*.db\", \"no such thing\"]\n").unwrap();
    // The artifact has these too: users' data win.
    fs::write(device.source.join("users.db"), "an example").unwrap();
    fs::create_dir(device.source.join("uploads")).unwrap();
    fs::write(device.source.join("uploads/README"), "of the artifact").unwrap();
    let old = device.live();
    let top = fs::metadata(&device.source).unwrap().modified().unwrap();
    device.install(&device.tar(&["--format=posix"]));
    assert_eq!(device.text("users.db"), "Ada");
    assert_eq!(device.text("uploads/deep/letter"), "to you");
    assert_eq!(device.text("uploads/README"), "of the artifact");
    assert!(!device.destination.join("gone.html").exists());
    let modified = |name: &str| fs::metadata(device.destination.join(name)).unwrap().modified().unwrap();
    assert_eq!(modified("uploads/deep"), then());
    assert_eq!(modified(""), top, "a folder that something is kept in has its own time");
    device.ok("ArtifactRollback");
    assert_eq!(device.live(), old);
}

#[test]
fn a_kept_path_that_is_a_folder_on_one_side_only_is_refused_and_nothing_changes() {
    let device = Device::filled(Generation::V5);
    device.client.set("directory", "keep = [\"users.db\"]\n").unwrap();
    fs::create_dir(device.source.join("users.db")).unwrap();
    let old = device.live();
    assert!(device.download(&device.tar(&[])).success());
    refused(device.client.call("ArtifactInstall").unwrap(), "users.db");
    assert_eq!(device.live(), old);
    device.ok("ArtifactRollback");
    device.ok("Cleanup");
    assert_eq!(device.live(), old);
    assert!(device.is_clean());
}

#[test]
fn an_archive_without_its_top_leaves_the_owner_and_mode_of_the_old() {
    let device = Device::filled(Generation::V3);
    fs::set_permissions(&device.destination, fs::Permissions::from_mode(0o2770)).unwrap();
    let output = Command::new("tar")
        .args(["--create", "--directory"])
        .arg(&device.source)
        .arg("index.html")
        .output()
        .unwrap();
    device.install(&output.stdout);
    assert_eq!(fs::metadata(&device.destination).unwrap().mode() & 0o7777, 0o2770);
    assert_eq!(device.text("index.html"), "the new index");
}

#[test]
fn entries_that_lead_out_of_the_tree_are_refused() {
    let device = Device::filled(Generation::V3);
    let old = device.live();
    let outside = device.client.device().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "untouched").unwrap();
    let before = Snapshot::of(&outside).unwrap();
    let absolute = outside.join("precious").to_str().unwrap().to_owned();
    for (archive, words) in [
        (archive(&[("../outside/precious", b'0', "")]), "leads out"),
        (archive(&[(&absolute, b'0', "")]), "absolute"),
        (archive(&[("door", b'2', outside.to_str().unwrap()), ("door/precious", b'0', "")]), "door"),
        (archive(&[("door", b'1', "../../outside/precious")]), "leads out"),
        (
            archive(&[("door", b'2', outside.to_str().unwrap()), ("name", b'1', "door/precious")]),
            "come before",
        ),
        (archive(&[("name", b'1', "later")]), "come before"),
        (archive(&[("a", b'Z', "")]), "kind"),
        (b"#!/bin/sh\n".repeat(100), "tar archive"),
        (device.tar(&[])[..2048].to_vec(), "ends"),
        (device.tar(&["--gzip"]), "compressed"),
        (vec![0; 10240], "empty"),
        (Vec::new(), "end mark"),
    ] {
        refused(device.download(&archive), words);
        device.ok("Cleanup");
        assert_eq!(device.live(), old);
        assert_eq!(Snapshot::of(&outside).unwrap(), before);
        assert!(device.is_clean());
    }
}

/// An archive of empty entries: path, kind, and what a link leads to. The crate's own builder refuses such paths.
fn archive(entries: &[(&str, u8, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (path, kind, link) in entries {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(tar::EntryType::new(*kind));
        header.set_mode(0o644);
        header.set_size(0);
        let me = fs::metadata("/proc/self").unwrap();
        header.set_uid(me.uid().into());
        header.set_gid(me.gid().into());
        header.set_mtime(0);
        header.set_cksum();
        bytes.extend(header.as_bytes());
    }
    bytes.extend([0; 1024]);
    bytes
}

#[test]
fn destinations_that_cannot_be_replaced_are_refused() {
    let device = Device::filled(Generation::V3);
    let old = device.live();
    let file = device.client.device().join("file");
    fs::write(&file, "").unwrap();
    let datastore = device.client.datastore();
    for (dest_dir, words) in [
        ("/", "root"),
        ("//", "root"),
        ("/.\n", "root"),
        ("/etc/..", "'..'"),
        ("", "absolute"),
        ("srv", "absolute"),
        ("/proc", "mount point"),
        ("/srv/\0x", "NUL"),
        (file.to_str().unwrap(), "not a folder"),
        (datastore.to_str().unwrap(), "client's own data"),
        (device.client.device().to_str().unwrap(), "client's own data"),
    ] {
        refused(
            device.download_files(&[("dest_dir", dest_dir.as_bytes()), ("update.tar", &device.tar(&[]))]),
            words,
        );
        device.ok("Cleanup");
        assert_eq!(device.live(), old);
    }
    refused(device.download_files(&[("update.tar", &device.tar(&[]))]), "no destination");
    refused(device.download_files(&[("destdir", b"/srv/x")]), "destdir");
    assert!(device.is_clean());
}

#[test]
fn a_destination_behind_a_symlink_is_replaced_where_it_is() {
    let device = Device::filled(Generation::V3);
    let real = device.client.device().join("real");
    fs::rename(&device.destination, &real).unwrap();
    symlink(&real, &device.destination).unwrap();
    let old = Snapshot::of(&real).unwrap();
    device.install(&device.tar(&["--format=posix"]));
    assert!(device.destination.is_symlink());
    assert_eq!(Snapshot::of(&real).unwrap().below(&real), device.expected());
    device.ok("ArtifactRollback");
    assert_eq!(Snapshot::of(&real).unwrap(), old);
}

#[test]
fn a_payload_that_does_not_fit_fails_early_with_the_figures() {
    let device = Device::filled(Generation::V5);
    device.client.set("directory", "reserve_mib = 1000000000\n").unwrap();
    let old = device.live();
    refused(device.download(&device.tar(&[])), "stay in reserve");
    device.ok("Cleanup");
    assert_eq!(device.live(), old);
    assert!(device.is_clean());
}

#[test]
fn somebody_elses_tree_in_the_destination_is_not_touched() {
    let device = Device::filled(Generation::V3);
    device.install(&device.tar(&[]));
    fs::rename(&device.destination, device.client.device().join("taken away")).unwrap();
    fs::create_dir(&device.destination).unwrap();
    fs::write(device.destination.join("mine"), "mine").unwrap();
    refused(device.client.call("ArtifactRollback").unwrap(), "somebody has replaced it");
    assert_eq!(device.text("mine"), "mine");
    fs::remove_dir_all(&device.destination).unwrap();
    device.ok("ArtifactRollback");
    assert_eq!(device.text("index.html"), "the old index");
}

#[test]
fn a_health_gate_that_does_not_open_brings_the_old_back() {
    let device = Device::filled(Generation::V5);
    let old = device.live();
    let check = device.destination.join("gone.html"); // only the old tree has it
    let settings =
        format!("[health]\ncommand = [\"test\", \"-e\", {check:?}]\nlimit_seconds = 1\nstable_seconds = 0\n");
    device.client.set("directory", &settings).unwrap();
    assert!(device.download(&device.tar(&[])).success());
    refused(device.client.call("ArtifactInstall").unwrap(), "health gate");
    assert_eq!(device.live(), old);
    let rollback = device.client.call("ArtifactRollback").unwrap();
    assert!(rollback.success() && rollback.stderr.contains("gate is open"), "{rollback:?}");
    device.ok("Cleanup");
    assert!(device.is_clean());
}

#[test]
fn a_health_gate_that_opens_lets_the_new_stay() {
    let mut device = Device::filled(Generation::V3);
    let destination = device.destination.clone();
    let new = destination.join("bin/run me");
    device.client.set_meta_data(format!(
        r#"{{"dest_dir": {destination:?}, "health": {{"command": ["test", "-e", {new:?}], "limit_seconds": 3, "stable_seconds": 0}}}}"#
    ));
    assert!(device.download_files(&[("new.tar", &device.tar(&[]))]).success());
    device.ok("ArtifactInstall");
    assert_eq!(device.text("index.html"), "the new index");
    // A gate that fails after the rollback is reported, and the rollback has succeeded all the same.
    let rollback = device.client.call("ArtifactRollback").unwrap();
    assert!(rollback.success() && rollback.stderr.contains("with the old in place"), "{rollback:?}");
}
