//! The payload streams: `stream-next` and `streams/*`, FIFOs that the client writes and a module reads.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::PayloadFile;

/// How often a feeder without a reader is woken.
const POLL: Duration = Duration::from_millis(1);

/// How long a module that has closed a stream before its end may take to exit. The real clients end it at once, and the
/// download fails. One that exits by itself, in milliseconds, shows its own message, also on a machine that is busy.
const EXITS_WITHIN: Duration = Duration::from_secs(20);

/// The FIFO that announces each file.
const NEXT: &str = "stream-next";

/// The directory of the FIFOs with the content of each file.
const STREAMS: &str = "streams";

/// One FIFO and what is written to it.
struct FifoWrite<'a> {
    fifo: PathBuf,
    /// The name of the file whose content this is; `None` for an announcement, and for the end of the download.
    file: Option<&'a OsStr>,
    content: Cow<'a, [u8]>,
}

/// How far the feed has come; shared by the threads of client and module.
#[derive(Default)]
pub struct Progress {
    /// The module has ended.
    ended: AtomicBool,
    asked: AtomicBool,
    stalled: AtomicBool,
    killed: AtomicBool,
    /// The index of the FIFO that is written, or waits for a reader.
    current: AtomicUsize,
}

impl Progress {
    /// Whether the module has asked for the payload.
    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Whether a feed that stops half-way has stopped.
    pub fn stalled(&self) -> bool {
        self.stalled.load(Ordering::SeqCst)
    }

    /// Whether the module was killed, because it did not exit after it had closed a stream before its end.
    pub fn killed(&self) -> bool {
        self.killed.load(Ordering::SeqCst)
    }
}

/// What the client writes during a download.
pub struct Feed<'a> {
    writes: Vec<FifoWrite<'a>>,
    stalls: bool,
    before: &'a (dyn Fn(&OsStr) + Sync),
    /// The process group of the module, and how long it may take to exit after it has closed a stream before its end.
    module: Option<(Pid, Duration)>,
}

impl<'a> Feed<'a> {
    /// Makes the FIFOs in `tree`, for all of `payload`.
    pub fn whole(tree: &Path, payload: &[PayloadFile<'a>], sizes: bool) -> Result<Self> {
        let next = tree.join(NEXT);
        fifo(&next)?;
        let mut writes = Vec::new();
        for (name, content) in payload {
            let stream = tree.join(STREAMS).join(name);
            fifo(&stream)?;
            let announcement = announcement(name, sizes.then_some(content.len())).into();
            writes.push(FifoWrite { fifo: next.clone(), file: None, content: announcement });
            writes.push(FifoWrite { fifo: stream, file: Some(name), content: Cow::Borrowed(content) });
        }
        // A read of zero bytes ends the download.
        writes.push(FifoWrite { fifo: next, file: None, content: Cow::default() });
        Ok(Self { writes, stalls: false, before: &|_| (), module: None })
    }

    /// As [`whole`](Self::whole), but stops after half of the first file.
    pub fn half(tree: &Path, payload: &[PayloadFile<'a>], sizes: bool) -> Result<Self> {
        let mut half = Self { stalls: true, ..Self::whole(tree, payload, sizes)? };
        half.writes.truncate(2);
        if let [_, FifoWrite { content, .. }] = &mut half.writes[..] {
            *content = content[..content.len() / 2].to_vec().into();
        }
        Ok(half)
    }

    /// Calls `before` with the name of each file, when its stream has a reader.
    pub fn with(self, before: &'a (dyn Fn(&OsStr) + Sync)) -> Self {
        Self { before, ..self }
    }

    /// Kills `module`, which leads a process group of its own, if it closes a stream before its end and does not exit:
    /// it would wait for a stream that nobody opens.
    pub fn to(self, module: &Child) -> Self {
        Self { module: Pid::from_raw(module.id() as i32).map(|group| (group, EXITS_WITHIN)), ..self }
    }

    /// Writes while `call` runs the module.
    pub fn run<T>(self, call: impl FnOnce(&Progress) -> T) -> (T, Progress) {
        let progress = Progress::default();
        let result = thread::scope(|scope| {
            let feeder = scope.spawn(|| self.write(&progress));
            let result = call(&progress);
            progress.ended.store(true, Ordering::SeqCst);
            while !feeder.is_finished() {
                self.wake(&progress);
                thread::sleep(POLL);
            }
            // A feeder that panicked has written less than the module needs: the outcome shows that.
            let _ = feeder.join();
            result
        });
        (result, progress)
    }

    fn write(&self, progress: &Progress) {
        for (number, FifoWrite { fifo, file, content }) in self.writes.iter().enumerate() {
            progress.current.store(number, Ordering::SeqCst);
            // Blocks until there is a reader: the module, or `wake` once the module has ended.
            let Ok(mut fifo) = OpenOptions::new().write(true).open(fifo) else { return };
            if progress.ended.load(Ordering::SeqCst) {
                return;
            }
            progress.asked.store(true, Ordering::SeqCst);
            if let Some(name) = file {
                (self.before)(name);
            }
            if fifo.write_all(content).is_err() {
                return self.wait_for_exit(progress);
            }
            if self.stalls && number + 1 == self.writes.len() {
                progress.stalled.store(true, Ordering::SeqCst);
                while !progress.ended.load(Ordering::SeqCst) {
                    thread::sleep(POLL); // the FIFO stays open, so that the module waits for the rest
                }
            }
        }
    }

    /// Waits until the module, which has closed a stream before its end, has exited, or kills it.
    fn wait_for_exit(&self, progress: &Progress) {
        let Some((group, limit)) = self.module else { return };
        let begun = Instant::now();
        while !progress.ended.load(Ordering::SeqCst) {
            if begun.elapsed() > limit {
                // If it has just exited, there is nothing to kill.
                let killed = kill_process_group(group, Signal::KILL).is_ok();
                return progress.killed.store(killed, Ordering::SeqCst);
            }
            thread::sleep(POLL);
        }
    }

    /// Wakes a feeder that waits for a reader, by opening the FIFO for reading.
    fn wake(&self, progress: &Progress) {
        if let Some(FifoWrite { fifo, .. }) = self.writes.get(progress.current.load(Ordering::SeqCst)) {
            let nonblocking = OFlags::NONBLOCK.bits() as i32;
            // If the FIFO cannot be opened, no feeder waits for it.
            let _ = OpenOptions::new().read(true).custom_flags(nonblocking).open(fifo);
        }
    }
}

fn announcement(name: &OsStr, size: Option<usize>) -> Vec<u8> {
    let mut line = format!("{STREAMS}/").into_bytes();
    line.extend(name.as_bytes());
    line.extend(size.map(|size| format!(" {size}")).unwrap_or_default().bytes());
    line.push(b'\n');
    line
}

fn fifo(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).context("removing a FIFO failed");
        }
        _ => {}
    }
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .with_context(|| format!("making the FIFO {} failed", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::Command;

    use super::*;

    #[test]
    fn a_module_that_closes_a_stream_early_exits_by_itself_or_is_killed() {
        let content = vec![0; 1 << 20]; // more than a FIFO holds
        for (then, signal) in [("exit 1", None), ("cat stream-next", Some(9))] {
            let tree = tempfile::tempdir().unwrap();
            fs::create_dir(tree.path().join(STREAMS)).unwrap();
            let feed = Feed::whole(tree.path(), &[(OsStr::new("a"), &content)], false).unwrap();
            let script = format!("read line <stream-next; true <\"$line\"; {then}");
            let mut module = Command::new("sh");
            let mut module = module.args(["-c", &script]).current_dir(tree.path()).process_group(0).spawn().unwrap();
            let mut feed = feed.to(&module);
            let wait = if signal.is_some() { Duration::ZERO } else { EXITS_WITHIN };
            feed.module.as_mut().unwrap().1 = wait;
            let (status, progress) = feed.run(|_| module.wait().unwrap());
            assert_eq!((status.signal(), progress.killed()), (signal, signal.is_some()), "{then}");
        }
    }
}
