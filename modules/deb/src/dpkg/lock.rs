//! The locks of dpkg and apt: record locks (fcntl) on files that are never removed.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mender_update_module::log;
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;

/// The frontend lock: a program that runs dpkg takes it first.
pub const FRONTEND: &str = "/var/lib/dpkg/lock-frontend";

/// The database lock: dpkg holds it while it writes its database.
pub const DATABASE: &str = "/var/lib/dpkg/lock";

/// apt's locks of downloaded packages and of package lists.
const APT: [&str; 2] = ["/var/cache/apt/archives/lock", "/var/lib/apt/lists/lock"];

/// The interval between two attempts to take a lock.
const POLL: Duration = Duration::from_millis(500);

/// A lock that this process holds until it is dropped.
pub struct Lock {
    /// The kernel releases the lock when this process closes any file descriptor of this file: open it only
    /// here.
    _file: File,
}

/// Takes the frontend lock, and waits until no package manager holds another lock, at most `seconds` for each.
///
/// # Errors
/// When a lock is still held: the lock, and the process that holds it.
pub fn take_frontend(seconds: u64) -> Result<Lock> {
    let frontend = take(FRONTEND, seconds)?;
    let present = APT.into_iter().filter(|path| Path::new(path).exists());
    [DATABASE].into_iter().chain(present).try_for_each(|path| take(path, seconds).map(drop))?;
    Ok(frontend)
}

/// Takes the lock `path`, waiting at most `seconds` for it.
///
/// # Errors
/// When the lock is still held: the lock, and the process that holds it.
pub fn take(path: &str, seconds: u64) -> Result<Lock> {
    let locking = || format!("locking {path}");
    // dpkg creates the file where it is missing, too.
    let file = File::options().write(true).create(true).truncate(false).open(path).with_context(locking)?;
    let (start, limit) = (Instant::now(), Duration::from_secs(seconds));
    let mut is_logged = false;
    loop {
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Lock { _file: file }),
            Err(Errno::AGAIN | Errno::ACCESS) if start.elapsed() < limit => {}
            Err(Errno::AGAIN | Errno::ACCESS) => bail!(
                "locking {path} failed: {} holds the lock for more than {seconds} s: wait until it ends, or \
                 raise lock_seconds",
                holder(&file)
            ),
            Err(error) => return Err(io::Error::from(error)).with_context(locking),
        }
        if !is_logged {
            log!("waiting for the lock {path}: {} holds it", holder(&file));
            is_logged = true;
        }
        thread::sleep(POLL);
    }
}

/// The process that holds the lock on `file`, as far as the kernel tells.
fn holder(file: &File) -> String {
    let found = || {
        let (own, table) = (file.metadata().ok()?, fs::read_to_string("/proc/locks").ok()?);
        let process = processes_with_lock(&table, own.ino()).find(|process| has_open(process, &own))?;
        let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
        Some(format!("process {process} ({})", name.trim_end()))
    };
    found().unwrap_or_else(|| "another program".to_owned())
}

/// The other processes that hold a lock on a file with the number `inode`, on any file system: `1: POSIX ADVISORY
/// WRITE 4711 fe:00:1234 0 EOF`. The device number there is not always the one of stat(2).
fn processes_with_lock(table: &str, inode: u64) -> impl Iterator<Item = &str> {
    let (ending, own) = (format!(":{inode}"), process::id().to_string());
    table.lines().filter_map(move |line| {
        let mut words = line.split_whitespace().skip(4);
        let (process, file) = (words.next()?, words.next()?);
        (file.ends_with(&ending) && process != own).then_some(process)
    })
}

/// Whether `process` has the file with the metadata `own` open.
fn has_open(process: &str, own: &Metadata) -> bool {
    let entries = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let files = entries.filter_map(|entry| fs::metadata(entry.path()).ok());
    files.into_iter().any(|file| (file.dev(), file.ino()) == (own.dev(), own.ino()))
}

#[cfg(test)]
mod tests {
    use std::process::{ChildStdin, Command, Stdio};
    use std::sync::mpsc;

    use super::*;
    use crate::test_device::{error, on_device};

    #[test]
    fn the_kernels_table_names_the_holder() {
        let table = "1: FLOCK  ADVISORY  WRITE 12 fe:00:34 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 4711 fe:00:1234 0 EOF\n\
                     3: POSIX  ADVISORY  WRITE 13 00:2a:1234 0 EOF\n";
        assert_eq!(processes_with_lock(table, 1234).collect::<Vec<_>>(), ["4711", "13"]);
        assert_eq!(processes_with_lock(table, 4).count(), 0);
        assert_eq!(processes_with_lock("", 4).count(), 0);
        let own = format!("1: POSIX  ADVISORY  WRITE {} 00:2b:1234 0 EOF", process::id());
        assert_eq!(processes_with_lock(&own, 1234).count(), 0, "its own lock is on another file system");
    }

    /// Runs `test` while dpkg holds the database lock. `test` gets its process, and what releases the lock.
    fn while_dpkg_holds_the_lock(test: impl FnOnce(u32, ChildStdin)) {
        let mut dpkg = Command::new("dpkg");
        // As below apt: with this variable, it takes no frontend lock.
        dpkg.arg("--set-selections").env("DPKG_FRONTEND_LOCKED", "1");
        let mut dpkg = dpkg.stdin(Stdio::piped()).spawn().unwrap();
        let process = dpkg.id().to_string();
        let is_held = || {
            let table = fs::read_to_string("/proc/locks").unwrap();
            let inode = fs::metadata(DATABASE).map_or(0, |found| found.ino());
            let words = |line: &str| line.split_whitespace().skip(4).map(str::to_owned).collect::<Vec<_>>();
            table.lines().map(words).any(|words| words[0] == process && words[1].ends_with(&format!(":{inode}")))
        };
        while !is_held() {
            assert_eq!(dpkg.try_wait().unwrap(), None, "dpkg has ended");
            thread::yield_now();
        }
        test(dpkg.id(), dpkg.stdin.take().unwrap());
        assert!(dpkg.wait().unwrap().success());
    }

    #[test]
    fn a_lock_that_is_held_for_too_long_is_an_error_with_its_holder() {
        on_device(|| {
            while_dpkg_holds_the_lock(|process, release| {
                // Without its limit, the attempt would succeed when dpkg ends.
                let (failed, is_failed) = mpsc::channel::<()>();
                let releasing = thread::spawn(move || {
                    let _ = is_failed.recv_timeout(Duration::from_secs(60));
                    drop(release);
                });
                let error = error(take_frontend(0));
                drop(failed);
                releasing.join().unwrap();
                let expected = format!("locking {DATABASE} failed: process {process} (dpkg) holds");
                assert!(error.starts_with(&expected), "{error}");
            });
        });
    }

    #[test]
    fn a_lock_is_taken_when_its_holder_ends() {
        on_device(|| {
            while_dpkg_holds_the_lock(|_, release| {
                let releasing = thread::spawn(move || {
                    thread::sleep(POLL / 2);
                    drop(release);
                });
                take(DATABASE, 600).unwrap();
                releasing.join().unwrap();
            });
        });
    }

    #[test]
    fn a_process_has_the_files_open_that_it_has_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let file = File::create(&path).unwrap();
        let found = file.metadata().unwrap();
        let own = process::id().to_string();
        assert!(has_open(&own, &found));
        assert!(!has_open("0", &found));
        drop(file);
        assert!(!has_open(&own, &found));
    }
}
