//! Records the effect of a call after it has returned, from the file system rather than from the arguments.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::fault_injection::image::{Inode, Kind, Time, attribute};
use crate::fault_injection::operation::{Call, NameChange, Operation};
use anyhow::{Context, Result, bail};

use super::call::{Action, Offset};
use super::place::{Name, Target};
use super::tracee::Tracee;

/// The record of `action`, whose call has returned `result`, with paths relative to `directory`.
pub fn record(tracee: Tracee, action: &Action, result: i64, directory: &Path) -> Result<Call> {
    let done = result >= 0;
    let operation = if done {
        operation(tracee, action, result).with_context(|| format!("recording failed: {action}"))?
    } else {
        None
    };
    Ok(Call { shown: shown(action, directory), done, is_sync: action.is_sync(), time: now()?, operation })
}

/// The record of `action`, whose call was made to fail.
pub fn record_failed(action: &Action, directory: &Path) -> Result<Call> {
    let operation = match action {
        Action::Sync(target) => Some(Operation::Sync { inode: target.metadata()?.ino() }),
        Action::SyncFileSystem(target) => Some(Operation::SyncFileSystem { inode: target.metadata()?.ino() }),
        _ => None,
    };
    let operation = operation.map(|sync| Operation::FailedSync(Box::new(sync)));
    Ok(Call { shown: shown(action, directory), done: false, is_sync: action.is_sync(), time: now()?, operation })
}

/// As [`record`], without the effect: for a list of calls, which is not replayed.
pub fn list(action: &Action, result: i64, directory: &Path) -> Result<Call> {
    Ok(Call {
        shown: shown(action, directory),
        done: result >= 0,
        is_sync: action.is_sync(),
        time: now()?,
        operation: None,
    })
}

fn shown(action: &Action, directory: &Path) -> String {
    action.to_string().replace(&format!("{}/", directory.display()), "")
}

fn operation(tracee: Tracee, action: &Action, result: i64) -> Result<Option<Operation>> {
    Ok(Some(match action {
        Action::Open(name) | Action::Make(name) => return made(name),
        Action::Remove(name) => Operation::Names(vec![change(name, None)?]),
        Action::Rename { from, to, exchange } => {
            if !exchange && from.before == to.before {
                return Ok(None); // two names of one file: rename(2) does nothing
            }
            let left = if *exchange { to.before } else { None };
            Operation::Names(vec![change(from, left)?, change(to, from.before)?])
        }
        Action::Link { from, to } => Operation::Names(vec![change(to, Some(from.metadata()?.ino()))?]),
        Action::Write { file, fd, at } => return written(tracee, file, *fd, *at, result as u64),
        Action::Resize(file) => {
            let meta = file.metadata()?;
            Operation::Resize { inode: meta.ino(), length: meta.len() }
        }
        Action::Mode(target) => {
            let meta = target.metadata()?;
            Operation::Mode { inode: meta.ino(), mode: meta.mode() }
        }
        Action::Owner(target) => {
            let meta = target.metadata()?;
            Operation::Owner { inode: meta.ino(), owner: (meta.uid(), meta.gid()), mode: meta.mode() }
        }
        Action::Times(target) => {
            let meta = target.metadata()?;
            Operation::Modified { inode: meta.ino(), modified: (meta.mtime(), meta.mtime_nsec()) }
        }
        Action::Attribute(target, name) => {
            let path = if target.path.starts_with("/proc") { &target.shown } else { &target.path };
            let (value, meta) = (attribute(path, name)?, target.metadata()?);
            let mode = name.starts_with("system.posix_acl").then_some(meta.mode());
            Operation::Attribute { inode: meta.ino(), name: name.clone(), value, mode }
        }
        Action::Sync(target) => Operation::Sync { inode: target.metadata()?.ino() },
        Action::SyncFileSystem(target) => Operation::SyncFileSystem { inode: target.metadata()?.ino() },
        Action::SyncAll => Operation::SyncAll,
        Action::Read(_) => return Ok(None),
    }))
}

/// The effect of opening or making `name`. A file that existed was truncated, or only opened.
fn made(name: &Name) -> Result<Option<Operation>> {
    let path = name.path();
    if let Some(inode) = name.before {
        let length = fs::metadata(&path)?.len();
        return Ok((length == 0).then_some(Operation::Resize { inode, length }));
    }
    // FIFOs and devices are not part of an image; an unnamed file cannot be looked up.
    let Some(mut made) = Inode::read(&path).context("files without a name (O_TMPFILE) are not supported")? else {
        return Ok(None);
    };
    if let Kind::File(content) = &mut made.kind {
        content.clear();
    }
    let inode = made.number;
    Ok(Some(Operation::Make { inode, made, at: change(name, Some(inode))? }))
}

fn written(tracee: Tracee, file: &Target, fd: i32, at: Offset, length: u64) -> Result<Option<Operation>> {
    let length = if matches!(at, Offset::Whole) { file.metadata()?.len() } else { length };
    if length == 0 {
        return Ok(None);
    }
    let offset = match at {
        Offset::At(offset) if offset == u64::MAX => tracee.position(fd)?.checked_sub(length),
        Offset::At(offset) => Some(offset),
        Offset::Whole => Some(0),
        Offset::Position => tracee.position(fd)?.checked_sub(length),
        Offset::Pointer(address) => tracee.number(address)?.checked_sub(length),
    };
    let Some(offset) = offset else { bail!("the position of the file is before the data that was written") };
    let mut data = vec![0; length as usize];
    // Read from the file, not from the process: the result is the same for every kind of call.
    File::open(&file.path)?.read_exact_at(&mut data, offset)?;
    Ok(Some(Operation::Write { inode: file.metadata()?.ino(), offset, data }))
}

fn change(name: &Name, to: Option<u64>) -> Result<NameChange> {
    let directory = inode(&name.directory)?;
    Ok(NameChange { directory, name: name.name.clone(), from: name.before, to })
}

fn inode(path: &Path) -> Result<u64> {
    Ok(fs::symlink_metadata(path)?.ino())
}

fn now() -> Result<Time> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the system time is before 1970")?;
    Ok((now.as_secs() as i64, i64::from(now.subsec_nanos())))
}
