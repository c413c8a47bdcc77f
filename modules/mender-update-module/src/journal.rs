//! The journal: durable records of the phase of an update.

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

/// The record of the pending update.
const CURRENT: &str = "journal.json";

/// The prefix of records of updates whose previous version could not be restored.
pub const UNRESTORED: &str = "unrestored";

/// The largest size of a record, in bytes: enough for a hundred thousand file names.
const RECORD_MAX: u64 = 32 << 20;

/// How long a call waits for another call of the same module. A call whose client was killed ends at once.
const LOCK_WAIT: Duration = Duration::from_secs(90);

/// How often the lock is polled.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// JSON files in a directory outside the work tree, written durably. The directory, and all directories above it,
/// have to belong to root.
pub struct Journal {
    directory: PathBuf,
}

/// The text of a record.
pub struct Text {
    /// The file.
    pub path: PathBuf,
    /// The content of the file.
    pub content: Vec<u8>,
}

/// The lock for calls of a module. It is released when it is dropped, or when the process ends.
pub struct Lock {
    _directory: Dir,
}

impl Journal {
    /// The journal in `directory`, which may not exist yet.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// The current record, if there is one.
    ///
    /// # Errors
    /// When it cannot be read, or others may write to it.
    pub fn read(&self) -> Result<Option<Text>> {
        self.read_record(&name(CURRENT)?)
    }

    /// Replaces the current record, durably.
    ///
    /// # Errors
    /// When the record cannot be written. The journal then still has the one before; or this one, which a power loss
    /// may take away, if only the last sync failed.
    pub fn write<R: Serialize>(&self, record: &R) -> Result<()> {
        let text = serde_json::to_vec(record).context("writing the journal failed: serialization")?;
        // An update whose record cannot be read again must not begin.
        ensure!(
            text.len() as u64 <= RECORD_MAX,
            "update refused: its journal would have {} bytes, and the limit is {RECORD_MAX}: reduce the number of files in \
             the destination or the artifact",
            text.len()
        );
        self.made()?.write_file(&name(CURRENT)?, &text)
    }

    /// The record `record`, if it exists.
    pub fn read_record(&self, record: &FileName) -> Result<Option<Text>> {
        let Some(directory) = self.open()? else { return Ok(None) };
        let path = directory.path().join(record);
        match directory.kind(record)? {
            None => return Ok(None),
            Some(Kind::File) => {}
            Some(_) => bail!("reading the journal {} failed: not a regular file: remove it", path.display()),
        }
        durable::require_trusted(&path)?;
        let text = read_bounded(&directory.open_for_reading(record)?)
            .with_context(|| format!("reading the journal {} failed", path.display()))?;
        Ok(Some(Text { path, content: text }))
    }

    /// Removes the record `record`, durably.
    pub fn remove_record(&self, record: &FileName) -> Result<()> {
        let Some(directory) = self.open()? else { return Ok(()) };
        directory.remove(record)?;
        directory.sync()
    }

    /// Renames the current record to `to`, durably, which needs no space.
    pub fn retire(&self, to: &FileName) -> Result<()> {
        self.rename(&name(CURRENT)?, to)
    }

    /// Renames `record`, or the current record, to the first free `PREFIX-N.json`, and returns its path.
    pub fn set_aside(&self, record: Option<&FileName>, prefix: &str) -> Result<PathBuf> {
        let current = name(CURRENT)?;
        let record = record.unwrap_or(&current);
        let existing = self.set_aside_before(prefix)?;
        let free = (1..=existing.len() + 1).map(|number| name(&format!("{prefix}-{number}.json")));
        let free = free.collect::<Result<Vec<_>>>()?.into_iter().find(|name| !existing.contains(name));
        let free = free.context("renaming a journal failed: no free name")?;
        self.rename(record, &free)?;
        Ok(self.directory.join(free))
    }

    /// The records with the prefix `prefix`.
    pub fn set_aside_before(&self, prefix: &str) -> Result<Vec<FileName>> {
        let Some(directory) = self.open()? else { return Ok(Vec::new()) };
        let of_prefix = |name: &FileName| {
            let name = name.as_ref().to_string_lossy();
            name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('-') && rest.ends_with(".json"))
        };
        Ok(directory.names()?.into_iter().filter(of_prefix).collect())
    }

    /// The record of an update that has not ended, or whose previous version could not be restored.
    pub fn not_ended(&self) -> Result<Option<PathBuf>> {
        let Some(directory) = self.open()? else { return Ok(None) };
        let current = name(CURRENT)?;
        let record = if directory.kind(&current)?.is_some() {
            Some(current)
        } else {
            self.set_aside_before(UNRESTORED)?.into_iter().next()
        };
        Ok(record.map(|record| directory.path().join(record)))
    }

    /// The path of the current record.
    pub fn current(&self) -> PathBuf {
        self.directory.join(CURRENT)
    }

    /// The records of updates whose previous version could not be restored.
    pub fn unrestored(&self) -> Result<Vec<PathBuf>> {
        Ok(self.set_aside_before(UNRESTORED)?.iter().map(|record| self.path_of(record)).collect())
    }

    /// The path of the record `record`.
    pub fn path_of(&self, record: &FileName) -> PathBuf {
        self.directory.join(record)
    }

    /// Locks the journal for this call, after other calls of the same module have ended. `None` if the directory does
    /// not exist and `make` is `false`.
    ///
    /// # Errors
    /// When another call does not end within 90 s, or the directory cannot be made or does not belong to root.
    pub fn lock(&self, make: bool) -> Result<Option<Lock>> {
        self.lock_within(LOCK_WAIT, make)
    }

    fn lock_within(&self, limit: Duration, make: bool) -> Result<Option<Lock>> {
        let directory = if make { Some(self.made()?) } else { self.open()? };
        let Some(directory) = directory else { return Ok(None) };
        let begun = Instant::now();
        loop {
            match flock(directory.as_fd(), FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(Lock { _directory: directory })),
                Err(Errno::WOULDBLOCK | Errno::INTR) => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("locking {} failed", directory.path().display()));
                }
            }
            ensure!(
                begun.elapsed() < limit,
                "locking {} failed: another call of this module has not ended within {} s: find its process with 'fuser -v', \
                 and end it",
                directory.path().display(),
                limit.as_secs()
            );
            thread::sleep(LOCK_POLL);
        }
    }

    fn rename(&self, from: &FileName, to: &FileName) -> Result<()> {
        let directory = self.open()?.context("no journal directory")?;
        directory.rename(from, &directory, to)?;
        directory.sync()
    }

    /// The directory, if it exists; refused if others may replace it.
    fn open(&self) -> Result<Option<Dir>> {
        let path = durable::require_trusted(&self.directory).context("opening the journal failed")?;
        if durable::exists(&path)? { Dir::open_exact(&path).map(Some) } else { Ok(None) }
    }

    /// The directory, made if it does not exist.
    fn made(&self) -> Result<Dir> {
        if let Some(directory) = self.open()? {
            return Ok(directory);
        }
        durable::make_dirs(&durable::require_trusted(&self.directory).context("opening the journal failed")?)?;
        self.open()?.context("no journal directory")
    }
}

fn name(name: &str) -> Result<FileName> {
    FileName::new(name)
}

fn read_bounded(file: &File) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    file.take(RECORD_MAX + 1).read_to_end(&mut text)?;
    ensure!(text.len() as u64 <= RECORD_MAX, "larger than {RECORD_MAX} bytes");
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
        journal.write(&3).unwrap();
        assert_eq!(journal.set_aside(None, "left").unwrap(), directory.path().join("a/b/left-1.json"));
        let content = |record: &FileName| journal.read_record(record).unwrap().unwrap().content;
        assert_eq!(journal.set_aside_before("left").unwrap().iter().map(content).collect::<Vec<_>>(), [b"3", b"2"]);
    }

    #[test]
    fn a_record_that_others_may_write_is_refused() {
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
    fn a_record_that_is_too_large_is_not_written() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::new(directory.path());
        journal.write(&"before").unwrap();
        let error = format!("{:#}", journal.write(&"x".repeat(RECORD_MAX as usize)).unwrap_err());
        assert!(error.contains("its journal would have"), "{error}");
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

    #[test]
    fn a_call_does_not_wait_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::new(directory.path());
        let _first = journal.lock(true).unwrap();
        let error = format!("{:#}", journal.lock_within(Duration::ZERO, true).err().unwrap());
        assert!(error.contains("another call of this module has not ended"), "{error}");
    }

    #[test]
    fn only_names_of_records_are_records() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::new(&directory.path().join("module"));
        assert_eq!(journal.set_aside_before("left").unwrap(), []);
        journal.write(&1).unwrap();
        for other in ["left-1.json.new", "leftover-1.json", "left1.json", "late-1.json"] {
            fs::write(directory.path().join("module").join(other), "").unwrap();
        }
        assert_eq!(journal.set_aside_before("left").unwrap(), []);
        journal.retire(&name("left-7.json").unwrap()).unwrap();
        assert_eq!(journal.set_aside_before("left").unwrap(), [name("left-7.json").unwrap()]);
        assert!(journal.read().unwrap().is_none());
    }

    #[test]
    fn an_update_that_has_not_ended_has_a_path() {
        let directory = tempfile::tempdir().unwrap();
        let module = directory.path().canonicalize().unwrap().join("module");
        let path = |record: &str| module.join(record);
        let journal = Journal::new(&module);
        assert_eq!((journal.not_ended().unwrap(), journal.unrestored().unwrap()), (None, Vec::new()));
        journal.write(&1).unwrap();
        assert_eq!(journal.current(), path("journal.json"));
        assert_eq!(journal.not_ended().unwrap(), Some(path("journal.json")));
        journal.set_aside(None, UNRESTORED).unwrap();
        assert_eq!(journal.not_ended().unwrap(), Some(path("unrestored-1.json")));
        assert_eq!(journal.unrestored().unwrap(), [path("unrestored-1.json")]);
        let record = name("unrestored-1.json").unwrap();
        assert_eq!(journal.path_of(&record), path("unrestored-1.json"));
        journal.set_aside(Some(&record), "left").unwrap();
        assert_eq!((journal.not_ended().unwrap(), journal.unrestored().unwrap()), (None, Vec::new()));
    }

    #[test]
    fn a_record_that_is_too_large_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::new(directory.path());
        journal.write(&1).unwrap();
        let file = File::options().write(true).open(journal.current()).unwrap();
        for (length, is_read) in [(RECORD_MAX, true), (RECORD_MAX + 1, false)] {
            file.set_len(length).unwrap();
            match journal.read() {
                Ok(text) => assert!(is_read && text.unwrap().content.len() as u64 == length),
                Err(error) => assert!(!is_read && format!("{error:#}").contains("larger than"), "{error:#}"),
            }
        }
    }
}
