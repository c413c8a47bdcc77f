//! The payload's way in: `stream-next` and `streams/*`, FIFOs that the client writes and a module reads.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::{CWD, FileType, Mode, OFlags, fcntl_getfl, fcntl_setfl, mknodat};
use rustix::io::Errno;

use crate::PayloadFile;

/// How often a FIFO that has no reader yet is looked at again.
const POLL: Duration = Duration::from_millis(1);

/// One FIFO and what is written to it.
type Feed<'a> = (PathBuf, Cow<'a, [u8]>);

/// How far the feeding has come, told between the threads of client and module.
#[derive(Default)]
pub struct Progress {
    gone: AtomicBool,
    asked: AtomicBool,
    stalled: AtomicBool,
}

impl Progress {
    /// Whether the module has asked for the payload.
    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Whether a payload that stops half-way has come to that point.
    pub fn stalled(&self) -> bool {
        self.stalled.load(Ordering::SeqCst)
    }
}

/// What the client writes in the course of a download.
pub struct Course<'a> {
    writes: Vec<Feed<'a>>,
    stalls: bool,
}

impl<'a> Course<'a> {
    /// Makes the FIFOs in `tree`, to be fed with all of `payload`.
    pub fn whole(tree: &Path, payload: &[PayloadFile<'a>], sizes: bool) -> Result<Self> {
        let next = tree.join("stream-next");
        fifo(&next)?;
        let mut writes = Vec::new();
        for (name, content) in payload {
            let stream = tree.join("streams").join(name);
            fifo(&stream)?;
            writes.push((next.clone(), announcement(name, sizes.then_some(content.len())).into()));
            writes.push((stream, Cow::Borrowed(*content)));
        }
        writes.push((next, Cow::default())); // a read of length zero ends the download
        Ok(Self { writes, stalls: false })
    }

    /// The same, but half of the first file is the last that ever comes.
    pub fn half(tree: &Path, payload: &[PayloadFile<'a>], sizes: bool) -> Result<Self> {
        let Self { mut writes, .. } = Self::whole(tree, payload, sizes)?;
        writes.truncate(2);
        if let [_, (_, content)] = &mut writes[..] {
            *content = content[..content.len() / 2].to_vec().into();
        }
        Ok(Self { writes, stalls: true })
    }

    /// Feeds while `call` runs the module.
    pub fn feed<T>(self, call: impl FnOnce(&Progress) -> T) -> (T, Progress) {
        let progress = Progress::default();
        let result = thread::scope(|scope| {
            // A thread that panicked has fed less than a module needs, and that shows in the outcome.
            scope.spawn(|| self.write(&progress));
            let result = call(&progress);
            progress.gone.store(true, Ordering::SeqCst);
            result
        });
        (result, progress)
    }

    fn write(&self, progress: &Progress) {
        for (number, (fifo, content)) in self.writes.iter().enumerate() {
            let Some(mut fifo) = open_when_read(fifo, &progress.gone) else { return };
            progress.asked.store(true, Ordering::SeqCst);
            if fifo.write_all(content).is_err() {
                return; // the module has gone away in the middle of it
            }
            if self.stalls && number + 1 == self.writes.len() {
                progress.stalled.store(true, Ordering::SeqCst);
                while !progress.gone.load(Ordering::SeqCst) {
                    thread::sleep(POLL); // the FIFO stays open: the module is to wait for the rest
                }
            }
        }
    }
}

fn announcement(name: &OsStr, size: Option<usize>) -> Vec<u8> {
    let mut line = b"streams/".to_vec();
    line.extend(name.as_bytes());
    line.extend(size.map(|size| format!(" {size}")).unwrap_or_default().bytes());
    line.push(b'\n');
    line
}

/// Opens `fifo` for writing as soon as somebody reads it; `None` when the module has gone without.
fn open_when_read(fifo: &Path, gone: &AtomicBool) -> Option<File> {
    loop {
        let nonblocking = OFlags::NONBLOCK.bits() as i32;
        match OpenOptions::new().write(true).custom_flags(nonblocking).open(fifo) {
            Ok(file) => {
                let flags = fcntl_getfl(&file).ok()?;
                fcntl_setfl(&file, flags - OFlags::NONBLOCK).ok()?;
                return Some(file);
            }
            Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => {
                if gone.load(Ordering::SeqCst) {
                    return None;
                }
                thread::sleep(POLL);
            }
            Err(_) => return None,
        }
    }
}

fn fifo(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).context("removing an old FIFO");
        }
        _ => {}
    }
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .with_context(|| format!("making the FIFO {}", path.display()))
}
