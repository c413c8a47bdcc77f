//! The payload's way in: `stream-next` and `streams/*`, FIFOs that the client writes and a module reads.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fs::{CWD, FileType, Mode, OFlags, fcntl_getfl, fcntl_setfl, mknodat};
use rustix::io::Errno;

use crate::PayloadFile;

/// How often a FIFO that has no reader yet is looked at again.
const POLL: Duration = Duration::from_millis(1);

/// A thread that plays the client's side of a download.
pub struct Feeder {
    thread: JoinHandle<()>,
    gone: Arc<AtomicBool>,
    asked: Arc<AtomicBool>,
}

impl Feeder {
    /// Makes the FIFOs in `tree` and feeds them.
    pub fn start(tree: &Path, payload: &[PayloadFile], sizes: bool) -> Result<Self> {
        let next = tree.join("stream-next");
        fifo(&next)?;
        let mut steps = Vec::new();
        for (name, content) in payload {
            let stream = tree.join("streams").join(name);
            fifo(&stream)?;
            steps.push((next.clone(), announcement(name, sizes.then_some(content.len()))));
            steps.push((stream, content.to_vec()));
        }
        steps.push((next, Vec::new())); // a read of length zero ends the download
        let (gone, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let thread = thread::spawn({
            let (gone, asked) = (gone.clone(), asked.clone());
            move || feed(steps, &gone, &asked)
        });
        Ok(Self { thread, gone, asked })
    }

    /// Ends the feeding once the module has exited, and tells whether it never asked for the payload.
    pub fn stop(self) -> bool {
        self.gone.store(true, Ordering::SeqCst);
        // A feeder that panicked has fed less than a module needs, and that shows in the outcome.
        let _ = self.thread.join();
        !self.asked.load(Ordering::SeqCst)
    }
}

fn announcement(name: &OsStr, size: Option<usize>) -> Vec<u8> {
    let mut line = b"streams/".to_vec();
    line.extend(name.as_bytes());
    line.extend(size.map(|size| format!(" {size}")).unwrap_or_default().bytes());
    line.push(b'\n');
    line
}

fn feed(steps: Vec<(PathBuf, Vec<u8>)>, gone: &AtomicBool, asked: &AtomicBool) {
    for (fifo, content) in steps {
        let Some(mut fifo) = open_when_read(&fifo, gone) else { return };
        asked.store(true, Ordering::SeqCst);
        if fifo.write_all(&content).is_err() {
            return; // the module has gone away in the middle of it
        }
    }
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
