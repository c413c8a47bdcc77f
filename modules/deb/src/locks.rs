//! The locks by which package managers keep out of each other's way: record locks on files that are always there.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mender_update_module::log;
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;

/// The lock of whoever drives dpkg; the first one that everybody takes.
pub const FRONTEND: &str = "/var/lib/dpkg/lock-frontend";

/// dpkg's own, taken by dpkg itself for as long as it writes its database.
pub const DATABASE: &str = "/var/lib/dpkg/lock";

/// Those of apt's download of packages and of lists.
const APT: [&str; 2] = ["/var/cache/apt/archives/lock", "/var/lib/apt/lists/lock"];

/// How often a lock that is taken is tried again.
const POLL: Duration = Duration::from_millis(500);

/// A lock that this process holds until it is dropped.
pub struct Lock {
    /// The lock ends with the first file of this process on it that is closed: nobody else may open it meanwhile.
    _file: File,
}

/// Waits until no package manager is at work, at most `seconds`.
///
/// # Errors
/// When one still is: which lock, and who holds it.
pub fn wait_for_all(seconds: u64) -> Result<()> {
    let present = APT.into_iter().filter(|path| Path::new(path).exists());
    [FRONTEND, DATABASE].into_iter().chain(present).try_for_each(|path| take(path, seconds).map(drop))
}

/// Takes the lock `path`, waiting at most `seconds` for it.
///
/// # Errors
/// As [`wait_for_all`].
pub fn take(path: &str, seconds: u64) -> Result<Lock> {
    let locking = || format!("locking {path}");
    // dpkg makes it where it is missing, and so does this.
    let file = File::options().write(true).create(true).truncate(false).open(path).with_context(locking)?;
    let (begun, limit) = (Instant::now(), Duration::from_secs(seconds));
    let mut told = false;
    loop {
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Lock { _file: file }),
            Err(Errno::AGAIN | Errno::ACCESS) if begun.elapsed() < limit => {}
            Err(Errno::AGAIN | Errno::ACCESS) => bail!(
                "{path} is held by {}: it did not become free within {seconds} s. Let that end, or raise lock_seconds",
                holder(&file)
            ),
            Err(error) => return Err(io::Error::from(error)).with_context(locking),
        }
        if !told {
            log!("waiting for {}, which holds {path}", holder(&file));
            told = true;
        }
        thread::sleep(POLL);
    }
}

/// Who holds the lock on `file`, as far as the kernel tells.
fn holder(file: &File) -> String {
    let found = || {
        let (own, table) = (file.metadata().ok()?, fs::read_to_string("/proc/locks").ok()?);
        let process = processes_with_lock(&table, own.ino()).find(|process| has_open(process, &own))?;
        let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
        Some(format!("process {process} ({})", name.trim_end()))
    };
    found().unwrap_or_else(|| "another program".to_owned())
}

/// The processes that hold a lock on a file of number `inode`, on whatever file system: `1: POSIX ADVISORY WRITE 4711
/// fe:00:1234 0 EOF`. The device in it is not always the one that stat(2) tells.
fn processes_with_lock(table: &str, inode: u64) -> impl Iterator<Item = &str> {
    let ending = format!(":{inode}");
    table.lines().filter_map(move |line| {
        let mut words = line.split_whitespace().skip(4);
        let (process, file) = (words.next()?, words.next()?);
        file.ends_with(&ending).then_some(process)
    })
}

/// Whether `process` has the file that `own` is about open.
fn has_open(process: &str, own: &Metadata) -> bool {
    let entries = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let files = entries.filter_map(|entry| fs::metadata(entry.path()).ok());
    files.into_iter().any(|file| (file.dev(), file.ino()) == (own.dev(), own.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_names_the_holder() {
        let table = "1: FLOCK  ADVISORY  WRITE 12 fe:00:34 0 EOF\n2: POSIX  ADVISORY  WRITE 4711 fe:00:1234 0 EOF\n\
                     3: POSIX  ADVISORY  WRITE 13 00:2a:1234 0 EOF\n";
        assert_eq!(processes_with_lock(table, 1234).collect::<Vec<_>>(), ["4711", "13"]);
        assert_eq!(processes_with_lock(table, 4).count(), 0);
        assert_eq!(processes_with_lock("", 4).count(), 0);
    }
}
