//! The deployment log: the Mender server shows the standard error of a module for the deployment.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The largest line in one write, in bytes: writes of up to `PIPE_BUF` bytes to a pipe are atomic.
pub(crate) const LINE_MAX: usize = 4096;

/// How long a line waits if the log is not read. Then it is dropped, and later lines do not wait.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// Whether a line was dropped.
static UNREAD: AtomicBool = AtomicBool::new(false);

/// Writes one line to the deployment log, with the arguments of [`format!`]. It is one write: client 5 shows each
/// write as one message. Control characters are escaped, so that a file name cannot forge a line. A log that is not
/// read is not an error.
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

/// The implementation of [`log!`](crate::log).
#[doc(hidden)]
pub fn write_log(line: fmt::Arguments) {
    write_line(escaped(&line.to_string()).as_bytes());
}

/// Writes `line` and a newline in one write. A line longer than [`LINE_MAX`] is split.
pub(crate) fn write_line(line: &[u8]) {
    let mut rest = line;
    loop {
        let (part, after) = rest.split_at(rest.len().min(LINE_MAX - 1));
        let limit = if UNREAD.load(Ordering::Relaxed) { Duration::ZERO } else { WRITE_LIMIT };
        UNREAD.store(!write(&[part, b"\n"].concat(), limit), Ordering::Relaxed);
        rest = after;
        if rest.is_empty() {
            return;
        }
    }
}

/// As [`log!`](crate::log), without waiting, for a process that is about to end.
pub(crate) fn log_at_once(line: &str) {
    write(format!("{line}\n").as_bytes(), Duration::ZERO);
}

/// Writes `line` to standard error in one write, if that is possible within `limit`. A pipe that is writable for
/// poll(2) accepts [`LINE_MAX`] bytes. The lock of standard error is not used: its holder may block for ever.
fn write(line: &[u8], limit: Duration) -> bool {
    let log = io::stderr();
    let limit = Timespec { tv_sec: limit.as_secs() as _, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::new(&log, PollFlags::OUT)], Some(&limit));
    if !matches!(ready, Ok(1..)) {
        return false;
    }
    let _ = rustix::io::write(&log, line);
    true
}

/// `text` with control characters escaped, except tabs and newlines.
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

/// The first error of independent steps. The others are logged.
///
/// # Errors
/// When one of the steps has failed.
pub fn first_error(results: impl IntoIterator<Item = Result<()>>) -> Result<()> {
    let mut errors = results.into_iter().filter_map(Result::err);
    let first = errors.next();
    errors.for_each(|error| log!("{error:#}"));
    first.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use anyhow::anyhow;
    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;
    use crate::processes;
    use crate::test_support::{command, is_own_process, log_of};

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(escaped("a\tb\nc \u{e4}"), "a\tb\nc \u{e4}");
        assert_eq!(escaped("a\rb\u{1b}[2Jc\0"), "a\\rb\\u{1b}[2Jc\\u{0}");
    }

    #[test]
    fn a_line_is_written_and_a_long_one_is_split() {
        let long = "x".repeat(LINE_MAX);
        let Some(log) = log_of(
            "deployment_log::tests::a_line_is_written_and_a_long_one_is_split",
            |_| {},
            || {
                crate::log!("one\r{}", 1);
                write_log(format_args!("{long}"));
                log_at_once("at once");
                assert!(!UNREAD.load(Ordering::Relaxed));
            },
        ) else {
            return;
        };
        let expected = ["one\\r1", &long[..LINE_MAX - 1], "x", "at once"];
        assert_eq!(log.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn after_a_line_that_was_dropped_no_line_waits() {
        const NAME: &str = "deployment_log::tests::after_a_line_that_was_dropped_no_line_waits";
        if is_own_process() {
            UNREAD.store(true, Ordering::Relaxed);
            assert!(!write(b"unread\n", Duration::ZERO));
            write_line(b"unread");
            assert!(UNREAD.load(Ordering::Relaxed));
            return;
        }
        // A log that is full.
        let (_reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        while rustix::io::write(&writer, &[0; LINE_MAX]).is_ok() {}
        let mut child = processes::spawn(command(NAME).stdout(Stdio::null()).stderr(writer)).unwrap();
        let status = child.wait().unwrap();
        processes::ended(child.id());
        assert!(status.success(), "{status}");
    }

    #[test]
    fn the_first_error_is_returned_and_the_others_are_logged() {
        let Some(log) = log_of(
            "deployment_log::tests::the_first_error_is_returned_and_the_others_are_logged",
            |_| {},
            || {
                first_error([Ok(()), Ok(())]).unwrap();
                let results = [Ok(()), Err(anyhow!("one")), Err(anyhow!("two")), Err(anyhow!("three"))];
                assert_eq!(first_error(results).unwrap_err().to_string(), "one");
            },
        ) else {
            return;
        };
        assert_eq!(log, "two\nthree\n");
    }
}
