//! The serial console: kept as a file, remembered for errors, and watched for trouble.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use crate::limit::Limit;

/// Lines that [`Console::tail`] can give at most.
const REMEMBERED: usize = 500;

/// What no healthy machine says. A line with one of these fails whatever is running.
const TROUBLE: &[&str] = &[
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

/// The line of [`TROUBLE`] that `line` matches, if any.
pub(crate) fn trouble(line: &str) -> Option<&'static str> {
    TROUBLE.iter().copied().find(|pattern| line.contains(pattern))
}

/// How waiting for a line ended.
pub(crate) enum Waited {
    /// The line came.
    Seen,
    /// A line of trouble came: this one.
    Trouble(String),
    /// QEMU closed the console: it has ended.
    Closed,
    /// The limit expired.
    Expired,
}

#[derive(Default)]
struct State {
    lines: VecDeque<String>,
    /// Lines that have come in all, so that a wait may look at new ones only.
    count: usize,
    trouble: Option<String>,
    closed: bool,
}

/// A console under observation, by a thread that ends with the stream.
#[derive(Clone, Default)]
pub(crate) struct Console {
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Console {
    /// Follows `stream` and writes it to `log` as it is.
    pub(crate) fn follow(stream: impl Read + Send + 'static, log: File) -> Self {
        let console = Self::default();
        let writer = console.clone();
        thread::spawn(move || {
            // A log that cannot be written must not stop the watch: the disk may be full, the machine still runs.
            let _ = writer.read(stream, log);
            writer.state().closed = true;
            writer.shared.1.notify_all();
        });
        console
    }

    fn read(&self, stream: impl Read, mut log: File) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line)? > 0 {
            let _ = log.write_all(&line);
            self.take(String::from_utf8_lossy(&line).trim_end());
            line.clear();
        }
        Ok(())
    }

    fn take(&self, line: &str) {
        let mut state = self.state();
        if state.trouble.is_none() && trouble(line).is_some() {
            state.trouble = Some(line.to_owned());
        }
        state.lines.push_back(line.to_owned());
        state.count += 1;
        if state.lines.len() > REMEMBERED {
            state.lines.pop_front();
        }
        drop(state);
        self.shared.1.notify_all();
    }

    /// Waits until a line after the first `seen` ones contains `text`, trouble comes, or `limit` expires.
    /// `shown` gets the newest line, for the live status.
    pub(crate) fn wait_for(&self, text: &str, limit: Limit, shown: impl Fn(&str)) -> Waited {
        let deadline = Instant::now() + limit.duration();
        let mut state = self.state();
        let mut seen = 0;
        loop {
            let new = (state.count - seen).min(state.lines.len());
            if state.lines.iter().rev().take(new).any(|line| line.contains(text)) {
                return Waited::Seen;
            }
            seen = state.count;
            if let Some(line) = &state.trouble {
                return Waited::Trouble(line.clone());
            }
            if state.closed {
                return Waited::Closed;
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return Waited::Expired;
            };
            if let Some(line) = state.lines.back() {
                shown(line);
            }
            state = self.shared.1.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The first line of trouble, if there was one.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.state().trouble.clone()
    }

    /// The last `count` lines.
    pub(crate) fn tail(&self, count: usize) -> String {
        let state = self.state();
        let skipped = state.lines.len().saturating_sub(count);
        state.lines.iter().skip(skipped).map(String::as_str).collect::<Vec<_>>().join("\n")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console(text: &'static str) -> Console {
        Console::follow(text.as_bytes(), tempfile::tempfile().unwrap())
    }

    const SOON: Limit = Limit::new("SOON", 5);

    #[test]
    fn trouble_is_told_from_ordinary_lines() {
        for line in [
            "[    1.0] Kernel panic - not syncing: VFS",
            "[    2.0] EXT4-fs error (device mmcblk0p1): ext4_lookup",
            "[    3.0] Internal error: Oops: 96000004 [#1] SMP",
            "[    4.0] blk_update_request: I/O error, dev mmcblk0",
            "You are in emergency mode. After logging in",
            "[    5.0] Out of memory: Killed process 300 (mender)",
        ] {
            assert!(trouble(line).is_some(), "{line}");
        }
        for line in [
            "[    4.6] pwrseq_simple wifi-pwrseq: error -EIO: reset GPIOs not ready",
            "[    5.0] EXT4-fs (mmcblk0p1): recovery complete",
            "systemd[1]: Started debug-shell.service",
        ] {
            assert!(trouble(line).is_none(), "{line}");
        }
    }

    #[test]
    fn a_line_is_found_and_trouble_beats_waiting() {
        assert!(matches!(console("one\npi: ready\n").wait_for("ready", SOON, |_| ()), Waited::Seen));
        let console_with_panic = console("one\nKernel panic - x\n");
        assert!(matches!(console_with_panic.wait_for("ready", SOON, |_| ()), Waited::Trouble(_)));
        assert!(matches!(console("one\n").wait_for("ready", SOON, |_| ()), Waited::Closed));
    }

    #[test]
    fn the_tail_is_the_end() {
        let console = console("1\n2\n3\n");
        console.wait_for("never", SOON, |_| ());
        assert_eq!(console.tail(2), "2\n3");
    }
}
