//! The serial console: written to a file, kept in memory for error messages, and searched for errors.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::limit::Wait;

/// The number of lines that are kept in memory.
const KEPT_LINES: usize = 500;

/// Texts that a healthy machine does not print. A line with one of them fails the operation that is running.
const ERRORS: &[&str] = &[
    "Kernel panic",
    "Internal error",
    "Unable to handle kernel",
    "Oops",
    "BUG:",
    "soft lockup",
    "rcu: INFO: rcu_sched detected stalls",
    "blocked for more than",
    "EXT4-fs error",
    "EXT4-fs warning",
    "I/O error",
    "Out of memory",
    "oom-kill",
    "emergency mode",
    "Emergency Shell",
    "systemd[1]: Freezing execution",
];

/// Whether `line` reports an error of the kernel or of systemd.
fn is_error(line: &str) -> bool {
    ERRORS.iter().any(|pattern| line.contains(pattern))
}

/// Whether `line` is a step of systemd's progress display.
fn is_progress(line: &str) -> bool {
    (line.contains(" Job ") && line.contains(" running (")) || line.contains(" job is running for ")
}

/// The result of waiting for a line.
pub(crate) enum Waited {
    /// The line was printed.
    Seen,
    /// This line, an error, was printed.
    Error(String),
    /// QEMU ended.
    Closed,
    /// The time of the wait is over.
    Expired,
}

#[derive(Default)]
struct Received {
    /// The last [`KEPT_LINES`] lines without systemd's progress display, which would replace all others.
    lines: VecDeque<String>,
    /// The newest line, also of the progress display.
    newest: Option<String>,
    /// The number of all lines, so that a wait searches only new ones.
    count: usize,
    /// The first line that is an error.
    error: Option<String>,
    closed: bool,
}

/// A console that a thread reads until the stream ends.
#[derive(Clone, Default)]
pub(crate) struct Console {
    shared: Arc<(Mutex<Received>, Condvar)>,
}

impl Console {
    /// Reads `stream` and writes it to `log` unchanged.
    pub(crate) fn follow(stream: impl Read + Send + 'static, log: File) -> Self {
        let console = Self::default();
        let writer = console.clone();
        thread::spawn(move || {
            // The stream ends when QEMU does, with or without an error.
            let _ = writer.read(stream, log);
            writer.received().closed = true;
            writer.shared.1.notify_all();
        });
        console
    }

    fn read(&self, stream: impl Read, mut log: File) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line)? > 0 {
            // If the log cannot be written, as on a full disk, the machine still runs.
            let _ = log.write_all(&line);
            self.add(String::from_utf8_lossy(&line).trim_end());
            line.clear();
        }
        Ok(())
    }

    fn add(&self, line: &str) {
        let mut received = self.received();
        if received.error.is_none() && is_error(line) {
            received.error = Some(line.to_owned());
        }
        received.newest = Some(line.to_owned());
        if !is_progress(line) {
            received.lines.push_back(line.to_owned());
            received.count += 1;
            if received.lines.len() > KEPT_LINES {
                received.lines.pop_front();
            }
        }
        drop(received);
        self.shared.1.notify_all();
    }

    /// Waits until a line contains `text`, an error is printed, or the time of `wait` is over. `shown` gets the newest
    /// line, for the progress display.
    pub(crate) fn wait_for(&self, text: &str, wait: Wait, shown: impl Fn(&str)) -> Waited {
        let mut received = self.received();
        let mut seen = 0;
        loop {
            let new = (received.count - seen).min(received.lines.len());
            if received.lines.iter().rev().take(new).any(|line| line.contains(text)) {
                return Waited::Seen;
            }
            seen = received.count;
            if let Some(line) = &received.error {
                return Waited::Error(line.clone());
            }
            if received.closed {
                return Waited::Closed;
            }
            let Some(left) = wait.left() else {
                return Waited::Expired;
            };
            if let Some(line) = &received.newest {
                shown(line);
            }
            received = self.shared.1.wait_timeout(received, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The first line that is an error.
    pub(crate) fn error(&self) -> Option<String> {
        self.received().error.clone()
    }

    /// The last `count` lines, at most [`KEPT_LINES`].
    pub(crate) fn tail(&self, count: usize) -> String {
        let received = self.received();
        let skipped = received.lines.len().saturating_sub(count);
        received.lines.iter().skip(skipped).map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    fn received(&self) -> MutexGuard<'_, Received> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{Limit, with_deadline};

    fn console(text: &'static str) -> Console {
        Console::follow(text.as_bytes(), tempfile::tempfile().unwrap())
    }

    const SOON: Limit = Limit::new("SOON", 60);

    #[test]
    fn errors_are_recognized() {
        for line in [
            "[    1.0] Kernel panic - not syncing: VFS",
            "[    2.0] EXT4-fs error (device mmcblk0p1): ext4_lookup",
            "[    3.0] Internal error: Oops: 96000004 [#1] SMP",
            "[    4.0] blk_update_request: I/O error, dev mmcblk0",
            "You are in emergency mode. After logging in",
            "[    5.0] Out of memory: Killed process 300 (mender)",
        ] {
            assert!(is_error(line), "{line}");
        }
        for line in [
            "[    4.6] pwrseq_simple wifi-pwrseq: error -EIO: reset GPIOs not ready",
            "[    5.0] EXT4-fs (mmcblk0p1): recovery complete",
            "systemd[1]: Started debug-shell.service",
        ] {
            assert!(!is_error(line), "{line}");
        }
    }

    #[test]
    fn a_wait_ends_with_the_line_an_error_or_the_stream() {
        assert!(matches!(console("one\npi: ready\n").wait_for("ready", SOON.start(), |_| ()), Waited::Seen));
        let console_with_panic = console("one\nKernel panic - x\n");
        assert!(matches!(console_with_panic.wait_for("ready", SOON.start(), |_| ()), Waited::Error(_)));
        assert!(matches!(console("one\n").wait_for("ready", SOON.start(), |_| ()), Waited::Closed));
    }

    #[test]
    fn a_wait_ends_at_the_deadline() {
        // A stream that does not end before the writer is dropped.
        let (stream, _writer) = std::os::unix::net::UnixStream::pair().unwrap();
        let console = Console::follow(stream, tempfile::tempfile().unwrap());
        let past = Limit::new("PAST", 0);
        assert!(matches!(with_deadline(past, || console.wait_for("ready", SOON.start(), |_| ())), Waited::Expired));
    }

    #[test]
    fn the_tail_has_the_last_lines() {
        let console = console("1\n2\n3\n");
        console.wait_for("never", SOON.start(), |_| ());
        assert_eq!(console.tail(2), "2\n3");
    }

    #[test]
    fn a_long_progress_display_replaces_no_lines() {
        let progress = "[***] (1 of 3) Job tmpfiles.service/start running (2min / 15min)\n".repeat(KEPT_LINES);
        let text = format!("[  OK  ] Mounted data.mount\n{progress}");
        let console = Console::follow(io::Cursor::new(text), tempfile::tempfile().unwrap());
        console.wait_for("never", SOON.start(), |_| ());
        assert_eq!(console.tail(1), "[  OK  ] Mounted data.mount");
    }

    #[test]
    fn the_tail_has_no_progress_display() {
        let console = console(
            "[  OK  ] Mounted data.mount\r\n\
             \x1bM\r\x1b[K[   \x1b[0;31m*\x1b[0m] Job tmpfiles.service/start running (2min 51s / no limit)\r\n\
             \x1bM\r\x1b[K[   \x1b[0;31m*\x1b[0m] (1 of 3) Job tmpfiles.service/start running (2min 51s / 15min)\r\n\
             \x1bM\r\x1b[K[  \x1b[0;31m*\x1b[0m ] A start job is running for tmpfiles (2min 52s / no limit)\r\n\
             \x1bM\r\x1b[K[  \x1b[0;31m*\x1b[0m] (2 of 3) A stop job is running for tmpfiles (2s / 15min)\r\n\
             \x1bM\r\x1b[K[  OK  ] Finished tmpfiles.service\r\n",
        );
        console.wait_for("never", SOON.start(), |_| ());
        assert_eq!(console.tail(3), "[  OK  ] Mounted data.mount\n\x1bM\r\x1b[K[  OK  ] Finished tmpfiles.service");
    }
}
