//! Progress of what takes longer than two seconds, on standard error.

use std::io::{IsTerminal, Write, stderr};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::summary::bytes;

/// The time after which a step is shown.
const QUIET: Duration = Duration::from_secs(2);

/// The time between two lines: on a terminal, where a line replaces the one before, and in a log.
const ON_TERMINAL: Duration = Duration::from_millis(500);
const IN_LOG: Duration = Duration::from_secs(10);

/// Runs `work`, and shows `what` with its time if it takes long; with `file`, also the size of that file.
pub fn step<T>(what: &str, file: Option<&Path>, work: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        // The end of the work drops the sender.
        let (ended, end) = channel::<()>();
        scope.spawn(move || {
            let (started, terminal) = (Instant::now(), stderr().is_terminal());
            let interval = if terminal { ON_TERMINAL } else { IN_LOG };
            let mut wait = QUIET;
            while let Err(RecvTimeoutError::Timeout) = end.recv_timeout(wait) {
                wait = interval;
                let size = file.and_then(|file| file.metadata().ok()).map(|found| bytes(found.len()));
                let size = size.map(|size| format!(", {size}")).unwrap_or_default();
                let line = format!("{what} … {} s{size}", started.elapsed().as_secs());
                let _ = if terminal { write!(stderr(), "\r\x1b[K{line}") } else { writeln!(stderr(), "{line}") };
            }
            if terminal && wait == interval {
                let _ = write!(stderr(), "\r\x1b[K");
            }
        });
        let result = work();
        drop(ended);
        result
    })
}
