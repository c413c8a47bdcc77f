//! The deployment log: what a module writes to stderr is what the Mender server shows for the deployment.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The longest line that is written whole: Linux keeps writes of up to `PIPE_BUF` bytes to a pipe together.
pub(crate) const LINE_MAX: usize = 4096;

/// How long a line waits for a log that is not read. After that it is dropped, and the next ones are not waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether the log was not read for that long.
static UNREAD: AtomicBool = AtomicBool::new(false);

/// Writes one line to the deployment log, with the arguments of [`format!`], in one write: client 5 shows the parts of a line
/// that came in several writes as messages of their own. Control characters are escaped, so that no name can forge a line. A
/// log that nobody reads is no reason to fail.
///
/// ```
/// mender_update_module::log!("activated: {} files in {}", 3, "/var/www");
/// ```
#[macro_export]
macro_rules! log {
    ($($arguments:tt)*) => {
        $crate::write_log(::std::format_args!($($arguments)*))
    };
}

/// What [`log!`](crate::log) calls.
#[doc(hidden)]
pub fn write_log(line: fmt::Arguments) {
    write_line(escaped(&line.to_string()).as_bytes());
}

/// Writes `line`, without its newline, in one write; what is longer than [`LINE_MAX`] in several lines.
pub(crate) fn write_line(line: &[u8]) {
    let mut rest = line;
    loop {
        let (part, after) = rest.split_at(rest.len().min(LINE_MAX - 1));
        let patience = if UNREAD.load(Ordering::Relaxed) { Duration::ZERO } else { PATIENCE };
        UNREAD.store(!write(&[part, b"\n"].concat(), patience), Ordering::Relaxed);
        rest = after;
        if rest.is_empty() {
            return;
        }
    }
}

/// Writes `line` as [`log!`](crate::log) does, but waits for nothing: for a process that is about to end.
pub(crate) fn log_at_once(line: &str) {
    write(format!("{line}\n").as_bytes(), Duration::ZERO);
}

/// Writes `line` to standard error in one write, if that can be done within `patience`. A pipe that poll(2) calls writable
/// takes [`LINE_MAX`] bytes at once. Standard error's lock is not taken: who holds it may wait for ever.
fn write(line: &[u8], patience: Duration) -> bool {
    let log = io::stderr();
    let limit = Timespec { tv_sec: patience.as_secs() as _, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::new(&log, PollFlags::OUT)], Some(&limit));
    if !matches!(ready, Ok(1..)) {
        return false;
    }
    let _ = rustix::io::write(&log, line);
    true
}

/// `text` without control characters other than tabs and newlines.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && !matches!(character, '\t' | '\n') {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(escaped("a\tb\nc \u{e4}"), "a\tb\nc \u{e4}");
        assert_eq!(escaped("a\rb\u{1b}[2Jc\0"), "a\\rb\\u{1b}[2Jc\\u{0}");
    }
}
