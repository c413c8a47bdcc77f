//! The journal: durable records of how far a change has come.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::Serialize;

use crate::durable::{self, Dir, Kind};
use crate::name::FileName;

/// The record of the update under way.
const CURRENT: &str = "journal.json";

/// What the names of records begin with whose previous version could not be restored.
pub const UNRESTORED: &str = "unrestored";

/// The most that a record may have: a hundred thousand names of files.
const RECORD_MAX: u64 = 32 << 20;

/// How long a call waits for another one of the same module to end. One whose client has died ends within moments.
const LOCK_WAIT: Duration = Duration::from_secs(90);

/// How often the lock is tried meanwhile.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// JSON files in one directory that outlive the work tree and every power loss: `journal.json` holds the record written
/// last, whole. The directory, and all above it, have to be root's.
pub struct Journal {
    directory: PathBuf,
}

/// A record as it is in the journal.
pub struct Text {
    /// Its file.
    pub path: PathBuf,
    /// What the file holds.
    pub content: Vec<u8>,
}

/// The lock of a module's calls, until it is dropped or the process ends, however that ends.
pub struct Lock {
    _directory: Dir,
}

impl Journal {
    /// The journal in `directory`, which need not exist yet.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// The record written last, `None` where there is none.
    ///
    /// # Errors
    /// When it cannot be read, or others may write to it.
    pub fn read(&self) -> Result<Option<Text>> {
        self.read_record(&name(CURRENT)?)
    }

    /// Replaces the record; durable on return.
    ///
    /// # Errors
    /// When it cannot be written; the record before is still there then.
    pub fn write<R: Serialize>(&self, record: &R) -> Result<()> {
        let text = serde_json::to_vec(record).context("putting the journal's record into JSON")?;
        // What cannot be read again must not be begun.
        ensure!(
            text.len() as u64 <= RECORD_MAX,
            "the update cannot be recorded: its record has {} bytes, at most {RECORD_MAX} are read again: it has too many \
             files, or names that are too long: remove some from the destination or the artifact",
            text.len()
        );
        self.made()?.write_file(&name(CURRENT)?, &text)
    }

    /// The record `record`, `None` where there is none.
    pub fn read_record(&self, record: &FileName) -> Result<Option<Text>> {
        let Some(directory) = self.open()? else { return Ok(None) };
        let path = directory.path().join(record);
        match directory.kind(record)? {
            None => return Ok(None),
            Some(Kind::File) => {}
            Some(_) => bail!("reading the journal: {}: not a regular file: remove it", path.display()),
        }
        durable::require_trusted(&path)?;
        let text = read_bounded(&directory.open_for_reading(record)?)
            .with_context(|| format!("reading the journal {}", path.display()))?;
        Ok(Some(Text { path, content: text }))
    }

    /// Removes the record `record`; durable on return.
    pub fn remove_record(&self, record: &FileName) -> Result<()> {
        let Some(directory) = self.open()? else { return Ok(()) };
        directory.remove(record)?;
        directory.sync()
    }

    /// Makes the current record the record `to`; durable on return. That takes no space.
    pub fn retire(&self, to: &FileName) -> Result<()> {
        self.rename(&name(CURRENT)?, to)
    }

    /// Sets the record `record` aside as the first `PREFIX-N.json` that is free, and returns its path.
    pub fn set_aside(&self, record: Option<&FileName>, prefix: &str) -> Result<PathBuf> {
        let current = name(CURRENT)?;
        let record = record.unwrap_or(&current);
        let taken = self.set_aside_before(prefix)?;
        let free = (1..=taken.len() + 1).map(|number| name(&format!("{prefix}-{number}.json")));
        let free = free.collect::<Result<Vec<_>>>()?.into_iter().find(|name| !taken.contains(name));
        let free = free.context("a free name for a journal's record")?;
        self.rename(record, &free)?;
        Ok(self.directory.join(free))
    }

    /// The records that were set aside with `prefix`.
    pub fn set_aside_before(&self, prefix: &str) -> Result<Vec<FileName>> {
        let Some(directory) = self.open()? else { return Ok(Vec::new()) };
        let of_prefix = |name: &FileName| {
            let name = name.as_ref().to_string_lossy();
            name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('-') && rest.ends_with(".json"))
        };
        Ok(directory.names()?.into_iter().filter(of_prefix).collect())
    }

    /// The record of an update that has not ended, or whose previous version could not be restored.
    pub fn under_way(&self) -> Result<Option<PathBuf>> {
        let Some(directory) = self.open()? else { return Ok(None) };
        let current = name(CURRENT)?;
        let record = if directory.kind(&current)?.is_some() {
            Some(current)
        } else {
            self.set_aside_before(UNRESTORED)?.into_iter().next()
        };
        Ok(record.map(|record| directory.path().join(record)))
    }

    /// Where the record `record` is.
    pub fn path_of(&self, record: &FileName) -> PathBuf {
        self.directory.join(record)
    }

    /// Waits for other calls of the same module to end, and keeps others from beginning; `None` where no update has ever
    /// begun, unless `make`.
    ///
    /// # Errors
    /// When another call does not end, or the directory cannot be made or is not root's.
    pub fn lock(&self, make: bool) -> Result<Option<Lock>> {
        let directory = if make { Some(self.made()?) } else { self.open()? };
        let Some(directory) = directory else { return Ok(None) };
        let begun = Instant::now();
        loop {
            match flock(directory.as_fd(), FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(Lock { _directory: directory })),
                Err(Errno::WOULDBLOCK | Errno::INTR) => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("locking {}", directory.path().display()));
                }
            }
            ensure!(
                begun.elapsed() < LOCK_WAIT,
                "another call of this module is running, and has not ended within {} s: {}: see with 'fuser -v' which \
                 process has it open, and end that",
                LOCK_WAIT.as_secs(),
                directory.path().display()
            );
            thread::sleep(LOCK_POLL);
        }
    }

    fn rename(&self, from: &FileName, to: &FileName) -> Result<()> {
        let directory = self.open()?.context("the journal's directory is missing")?;
        directory.rename(from, &directory, to)?;
        directory.sync()
    }

    /// The directory, if it is there; refused where others may change what it is.
    fn open(&self) -> Result<Option<Dir>> {
        let path = durable::require_trusted(&self.directory).context("the module's own data")?;
        if durable::exists(&path)? { Dir::open_exact(&path).map(Some) } else { Ok(None) }
    }

    /// The directory, made where it is missing.
    fn made(&self) -> Result<Dir> {
        if let Some(directory) = self.open()? {
            return Ok(directory);
        }
        durable::make_dirs(&durable::require_trusted(&self.directory).context("the module's own data")?)?;
        self.open()?.context("the journal's directory is missing")
    }
}

fn name(name: &str) -> Result<FileName> {
    FileName::new(name)
}

fn read_bounded(file: &File) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    file.take(RECORD_MAX + 1).read_to_end(&mut text)?;
    ensure!(text.len() as u64 <= RECORD_MAX, "it has more than {RECORD_MAX} bytes");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn refused(journal: &Journal) -> String {
        format!("{:#}", journal.read().err().unwrap())
    }

    #[test]
    fn records_are_written_set_aside_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::new(&directory.path().join("a/b"));
        assert!(journal.read().unwrap().is_none());
        assert!(journal.lock(false).unwrap().is_none());
        for number in [1, 2] {
            journal.write(&number).unwrap();
            let path = journal.set_aside(None, "left").unwrap();
            assert_eq!(path, directory.path().join(format!("a/b/left-{number}.json")));
        }
        let aside = journal.set_aside_before("left").unwrap();
        assert_eq!(aside.len(), 2);
        assert_eq!(journal.read_record(&aside[0]).unwrap().unwrap().content, b"1");
        journal.remove_record(&aside[0]).unwrap();
        assert_eq!(journal.set_aside_before("left").unwrap(), aside[1..]);
    }

    #[test]
    fn a_record_that_somebody_else_may_have_written_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::new(&directory.path().join("module"));
        journal.write(&7).unwrap();
        let path = directory.path().join("module/journal.json");
        let open_to_others = |path: &Path, mode| {
            let before = fs::metadata(path).unwrap().permissions();
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            let refused = refused(&journal);
            fs::set_permissions(path, before).unwrap();
            refused
        };
        for (path, mode) in [(&*path, 0o666), (path.parent().unwrap(), 0o777)] {
            let refused = open_to_others(path, mode);
            assert!(refused.contains("not trusted") && refused.contains("chmod"), "{refused}");
        }
        fs::rename(&path, path.with_file_name("real")).unwrap();
        symlink("real", &path).unwrap();
        assert!(refused(&journal).contains("not a regular file"));
    }

    #[test]
    fn a_record_that_could_not_be_read_again_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::new(directory.path());
        journal.write(&"before").unwrap();
        let error = format!("{:#}", journal.write(&"x".repeat(RECORD_MAX as usize)).unwrap_err());
        assert!(error.contains("cannot be recorded"), "{error}");
        assert_eq!(journal.read().unwrap().unwrap().content, b"\"before\"");
    }

    #[test]
    fn a_second_call_waits_for_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::new(directory.path());
        let first = journal.lock(true).unwrap();
        let second = thread::scope(|scope| {
            let second = scope.spawn(|| journal.lock(true).map(|lock| (lock, Instant::now())));
            thread::sleep(Duration::from_millis(200));
            let released = Instant::now();
            drop(first);
            second.join().unwrap().unwrap().1 >= released
        });
        assert!(second, "both had the lock");
    }
}
