//! The payload's way in: `stream-next` and `streams/*`, FIFOs that the client writes and a module reads.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

use crate::PayloadFile;

/// How often a feeder that waits for a reader in vain is called back.
const POLL: Duration = Duration::from_millis(1);

/// One FIFO and what is written to it.
type Feed<'a> = (PathBuf, Cow<'a, [u8]>);

/// How far the feeding has come, told between the threads of client and module.
#[derive(Default)]
pub struct Progress {
    gone: AtomicBool,
    asked: AtomicBool,
    stalled: AtomicBool,
    /// The number of the FIFO that is fed, or waits for a reader.
    current: AtomicUsize,
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
            let feeder = scope.spawn(|| self.write(&progress));
            let result = call(&progress);
            progress.gone.store(true, Ordering::SeqCst);
            while !feeder.is_finished() {
                self.call_back(&progress);
                thread::sleep(POLL);
            }
            // A thread that panicked has fed less than a module needs, and that shows in the outcome.
            let _ = feeder.join();
            result
        });
        (result, progress)
    }

    fn write(&self, progress: &Progress) {
        for (number, (fifo, content)) in self.writes.iter().enumerate() {
            progress.current.store(number, Ordering::SeqCst);
            // This waits for a reader: the module, or call_back once the module has gone without.
            let Ok(mut fifo) = OpenOptions::new().write(true).open(fifo) else { return };
            if progress.gone.load(Ordering::SeqCst) {
                return;
            }
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

    /// Wakes a feeder that waits for a reader: is one, for a moment.
    fn call_back(&self, progress: &Progress) {
        if let Some((fifo, _)) = self.writes.get(progress.current.load(Ordering::SeqCst)) {
            let nonblocking = OFlags::NONBLOCK.bits() as i32;
            // That it cannot be opened means that nobody waits at it.
            let _ = OpenOptions::new().read(true).custom_flags(nonblocking).open(fifo);
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
