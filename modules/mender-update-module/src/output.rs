//! The output of a program: written to the deployment log, or captured.

use std::io;
use std::os::fd::OwnedFd;
use std::panic::resume_unwind;
use std::process::ChildStdout;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::deployment_log::{LINE_MAX, write_line};

/// The largest output that is captured, in bytes.
const CAPTURE_MAX: usize = 8 << 20;

/// How long output is read after the end of the program: a background process may write for ever.
const DRAIN: Duration = Duration::from_secs(2);

/// How often an empty pipe is polled.
const POLL: Duration = Duration::from_millis(20);

/// A pipe that is read in a thread, until its end or the end of the program.
struct Reader<T> {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<T>>,
}

impl<T: Send + 'static> Reader<T> {
    fn new(read: impl FnOnce(Arc<AtomicBool>) -> T + Send + 'static) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let of_thread = Arc::clone(&ended);
        Self { ended, thread: Some(thread::spawn(move || read(of_thread))) }
    }

    /// The result, after the end of the program.
    fn join(&mut self) -> Option<T> {
        self.ended.store(true, Ordering::SeqCst);
        self.thread.take().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    }
}

/// Writes the output of a program to the deployment log, line by line, until this value is dropped.
pub(crate) struct Log(Reader<()>);

impl From<OwnedFd> for Log {
    fn from(pipe: OwnedFd) -> Self {
        Self(Reader::new(move |ended| {
            let mut lines = Lines::default();
            read(&pipe, &ended, |bytes| {
                lines.add(bytes);
                true
            });
            lines.end();
        }))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = self.0.join();
    }
}

/// The captured standard output of a program. It is read while the program runs, which would block on a full pipe.
pub(crate) struct Captured(Reader<io::Result<Vec<u8>>>);

impl From<ChildStdout> for Captured {
    fn from(stdout: ChildStdout) -> Self {
        Self(Reader::new(move |ended| {
            let mut output = Vec::new();
            let pipe = OwnedFd::from(stdout);
            let whole = read(&pipe, &ended, |bytes| {
                output.extend_from_slice(bytes);
                output.len() <= CAPTURE_MAX
            });
            if whole { Ok(output) } else { Err(io::Error::other(format!("more than {CAPTURE_MAX} bytes"))) }
        }))
    }
}

impl Captured {
    /// The whole output, after the end of the program.
    pub(crate) fn whole(mut self) -> io::Result<Vec<u8>> {
        self.0.join().unwrap_or_else(|| Ok(Vec::new()))
    }
}

/// Passes the data in `pipe` to `take`, until `take` returns `false`, which is then the result.
fn read(pipe: &OwnedFd, ended: &AtomicBool, mut take: impl FnMut(&[u8]) -> bool) -> bool {
    let mut buffer = [0; 8192];
    let mut since_end = None;
    loop {
        // Checked before the pipe, so that everything that the program wrote before its end is in the pipe.
        let over = ended.load(Ordering::SeqCst);
        if over && since_end.get_or_insert_with(Instant::now).elapsed() > DRAIN {
            return true;
        }
        let limit = Timespec { tv_sec: 0, tv_nsec: if over { 0 } else { i64::from(POLL.subsec_nanos()) } as _ };
        match poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&limit)) {
            Ok(0) if over => return true,
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(_) => return true,
        }
        match rustix::io::read(pipe, &mut buffer) {
            Ok(0) => return true,
            Ok(read) if take(&buffer[..read]) => {}
            Ok(_) => return false,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return true,
        }
    }
}

/// Splits output into lines.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' || self.0.len() + 1 >= LINE_MAX {
                self.flush();
            }
            if byte != b'\n' {
                self.0.push(byte);
            }
        }
    }

    fn flush(&mut self) {
        write_line(&self.0);
        self.0.clear();
    }

    fn end(&mut self) {
        if !self.0.is_empty() {
            self.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;
    use crate::test_support::log_of;
    use crate::{Program, log};

    const LIMIT: Duration = Duration::from_secs(60);

    fn shell(script: &str) -> Program {
        Program::new("sh", LIMIT).args(["-c", script])
    }

    /// A pipe with `text` in it.
    fn pipe(text: &str) -> (OwnedFd, OwnedFd) {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        rustix::io::write(&writer, text.as_bytes()).unwrap();
        (reader, writer)
    }

    #[test]
    fn each_line_is_logged_whole_and_a_long_one_is_split() {
        let long = "x".repeat(2 * LINE_MAX);
        let Some(log) = log_of(
            "output::tests::each_line_is_logged_whole_and_a_long_one_is_split",
            |_| {},
            || {
                shell("printf 'one\n\ntwo'").run().unwrap();
                shell(&format!("echo {long}; printf three >&2")).run().unwrap();
                shell("echo four").run().unwrap();
            },
        ) else {
            return;
        };
        assert_eq!(
            log,
            ["one", "", "two", &long[..LINE_MAX - 1], &long[..LINE_MAX - 1], "xx", "three", "four", ""].join("\n")
        );
    }

    #[test]
    fn the_log_of_a_program_is_complete_when_it_has_ended() {
        let Some(log) = log_of(
            "output::tests::the_log_of_a_program_is_complete_when_it_has_ended",
            |_| {},
            || {
                shell("seq 10000").run().unwrap();
                log!("after");
            },
        ) else {
            return;
        };
        let expected = (1..=10000).map(|number| number.to_string()).chain(["after".to_owned()]);
        assert!(log.lines().eq(expected), "{:?}", log.lines().last());
    }

    #[test]
    fn output_after_a_pause_is_captured() {
        assert_eq!(shell("echo early; sleep 0.2; echo late").output().unwrap(), b"early\nlate\n");
    }

    #[test]
    fn what_was_written_before_the_end_is_read_and_nothing_is_waited_for() {
        let (reader, _writer) = pipe("text");
        // The user and system time of this thread, in hundredths of seconds (proc_pid_stat(5)).
        let used = || -> u64 {
            let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
            let fields = stat.rsplit(')').next().unwrap().split_whitespace();
            fields.skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
        };
        let (mut taken, before) = (Vec::new(), used());
        let whole = read(&reader, &AtomicBool::new(true), |bytes| {
            taken.extend_from_slice(bytes);
            true
        });
        assert!(whole && taken == b"text");
        assert!(used() - before < 5, "it polled an empty pipe");
    }

    #[test]
    fn output_of_a_background_process_that_never_ends_is_not_read_for_ever() {
        let endless = OwnedFd::from(fs::File::open("/dev/zero").unwrap());
        let begun = Instant::now();
        let take = |_: &[u8]| {
            assert!(begun.elapsed() < LIMIT);
            true
        };
        assert!(read(&endless, &AtomicBool::new(true), take));
    }

    #[test]
    fn reading_ends_when_nothing_more_is_taken() {
        let (reader, writer) = pipe("text");
        assert!(!read(&reader, &AtomicBool::new(true), |_| false));
        drop(writer);
        assert!(read(&reader, &AtomicBool::new(false), |_| false), "the end of the pipe");
    }
}
