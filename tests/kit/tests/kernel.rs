//! What fault injection says of Linux, tried with the kernel of this machine.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::Command;

use rustix::io::Errno;

/// The size of the storage, and that of the file system in it, in MiB.
const SIZES: (u64, u64) = (16, 64);

/// A file system in a file, for which its storage has too little space. Writes fail when they reach the storage.
struct FullStorage(tempfile::TempDir);

impl FullStorage {
    /// `None` where this process may not mount, or the kernel has no loop device.
    fn new() -> Option<Self> {
        let this = Self(tempfile::tempdir().unwrap());
        let (storage, image) = (this.0.path().join("storage"), this.0.path().join("storage/image"));
        fs::create_dir(&storage).unwrap();
        fs::create_dir(this.mounted()).unwrap();
        let size = format!("size={}m", SIZES.0);
        let made = run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs"], &storage)
            && File::create(&image).unwrap().set_len(SIZES.1 << 20).is_ok()
            && run("mkfs.ext4", &["-q", "-O", "^has_journal", "-E", "lazy_itable_init=1"], &image)
            && run("mount", &["-o", "loop", image.to_str().unwrap()], &this.mounted());
        made.then_some(this)
    }

    fn mounted(&self) -> std::path::PathBuf {
        self.0.path().join("mounted")
    }
}

impl Drop for FullStorage {
    fn drop(&mut self) {
        for name in ["mounted", "storage"] {
            run("umount", &["--quiet", "--lazy"], &self.0.path().join(name));
        }
    }
}

fn run(program: &str, arguments: &[&str], path: &Path) -> bool {
    let output = Command::new(program).args(arguments).arg(path).output();
    let failed = match &output {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    eprintln!("skipped: {program}: {failed}");
    false
}

/// The tracer lets a sync of the whole file system fail after that of a file; `deb` relies on it.
#[test]
fn a_write_that_was_lost_is_reported_once_to_each_sync_of_the_whole_file_system() {
    let Some(storage) = FullStorage::new() else { return };
    let directory = || File::open(storage.mounted()).unwrap();
    let before = directory();
    let mut file = File::create(storage.mounted().join("file")).unwrap();
    let megabyte = vec![1; 1 << 20];
    (0..2 * SIZES.0).try_for_each(|_| file.write_all(&megabyte)).unwrap();
    assert!(file.sync_all().is_err(), "the storage has space");
    let synced =
        |directory: &File| rustix::fs::syncfs(directory).map_err(|error| [Errno::NOSPC, Errno::IO].contains(&error));
    let after = directory();
    assert_eq!(synced(&after), Err(true), "opened later, and the error was not reported yet");
    assert_eq!(synced(&directory()), Ok(()), "opened when the error was reported");
    assert_eq!(synced(&before), Err(true), "opened before the write");
    assert_eq!(synced(&before), Ok(()));
}
