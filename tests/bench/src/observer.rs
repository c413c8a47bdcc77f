//! A thread that polls the destination, and measures for how long the destination is missing or mixed.
//!
//! It does not pause while the destination is complete, so that it misses as little as possible.

use std::fs::File;
use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::content::{NEW, PREVIOUS, mark};

/// The longest pause between two polls of a broken destination.
const PAUSE: Duration = Duration::from_millis(1);

/// The result of observing a destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The time in which the destination was neither the previous nor the new version.
    pub broken: Duration,
    /// The number of polls.
    pub polls: usize,
}

/// Runs `work`, and polls the two `marks` of `destination` meanwhile.
pub fn observe<T>(destination: &Path, marks: &[(PathBuf, SeekFrom); 2], work: impl FnOnce() -> T) -> (T, Observed) {
    let finished = AtomicBool::new(false);
    thread::scope(|scope| {
        let observer = scope.spawn(|| poll(destination, marks, &finished));
        let result = work();
        finished.store(true, Ordering::SeqCst);
        (result, observer.join().unwrap_or_default())
    })
}

/// Polls until `finished`. A broken period lasts from the first poll that finds the destination broken to the next poll
/// that finds it complete.
fn poll(destination: &Path, marks: &[(PathBuf, SeekFrom); 2], finished: &AtomicBool) -> Observed {
    let mut periods = Periods::default();
    loop {
        let last = finished.load(Ordering::SeqCst);
        let now = Instant::now();
        periods.add(now, is_complete(destination, marks));
        if last {
            return periods.close(Instant::now());
        }
        if let Some(since) = periods.broken_since {
            // Polling without a pause slows down the module, and so distorts the measurement. Here a precision of one
            // part in twenty is enough.
            thread::sleep((now - since).div_f32(20.0).min(PAUSE));
        }
    }
}

/// The broken periods up to now.
#[derive(Default)]
struct Periods {
    observed: Observed,
    broken_since: Option<Instant>,
}

impl Periods {
    /// Adds a poll that was made `now`.
    fn add(&mut self, now: Instant, is_complete: bool) {
        self.observed.polls += 1;
        match (is_complete, self.broken_since) {
            (false, None) => self.broken_since = Some(now),
            (true, Some(since)) => {
                self.observed.broken += now - since;
                self.broken_since = None;
            }
            _ => {}
        }
    }

    /// Ends the current broken period `now`, if there is one.
    fn close(mut self, now: Instant) -> Observed {
        self.observed.broken += self.broken_since.map(|since| now - since).unwrap_or_default();
        self.observed
    }
}

/// Whether both marks are of the previous version, or both of the new one. One open directory serves for both.
fn is_complete(destination: &Path, marks: &[(PathBuf, SeekFrom); 2]) -> bool {
    let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(directory) = openat(CWD, destination, directory, Mode::empty()) else { return false };
    let open =
        |path: &Path| openat(&directory, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map(File::from).ok();
    let [(first, at_first), (second, at_second)] = marks;
    let Some(file) = open(first) else { return false };
    let other = if first == second { file.try_clone().ok() } else { open(second) };
    let both = [mark(file, *at_first), other.and_then(|other| mark(other, *at_second))];
    both == [Some(PREVIOUS); 2] || both == [Some(NEW); 2]
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::content::{Size, marks, write};

    #[test]
    fn a_missing_or_mixed_directory_is_broken() {
        let directory = tempfile::tempdir().unwrap();
        let size = Size { files: 2, bytes: 10 };
        let marks = marks(size, true);
        let (present, aside) = (directory.path().join("present"), directory.path().join("aside"));
        write(&present, size, true, PREVIOUS).unwrap();
        assert!(is_complete(&present, &marks));
        fs::rename(&present, &aside).unwrap();
        assert!(!is_complete(&present, &marks), "the directory is missing");
        fs::rename(&aside, &present).unwrap();
        write(&present, Size { files: 1, bytes: 10 }, true, NEW).unwrap();
        assert!(!is_complete(&present, &marks), "one file is new, the other previous");
        write(&present, size, true, NEW).unwrap();
        assert!(is_complete(&present, &marks));
    }

    #[test]
    fn broken_periods_are_added() {
        // The times are given, not measured: the test does not depend on the load of the machine.
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let observed = |polls: &[(u64, bool)], end| {
            let mut periods = Periods::default();
            polls.iter().for_each(|(time, is_complete)| periods.add(at(*time), *is_complete));
            periods.close(at(end))
        };
        assert_eq!(observed(&[(0, true), (5, true)], 9).broken, Duration::ZERO);
        let twice = [(0, true), (1, false), (3, false), (4, true), (5, false), (6, true)];
        assert_eq!(observed(&twice, 9), Observed { broken: Duration::from_millis(4), polls: 6 });
        assert_eq!(observed(&[(0, true), (2, false)], 9).broken, Duration::from_millis(7));
    }

    #[test]
    fn the_observer_polls_while_work_runs_and_once_after_it() {
        let directory = tempfile::tempdir().unwrap();
        let size = Size { files: 2, bytes: 10 };
        let (present, aside) = (directory.path().join("present"), directory.path().join("aside"));
        write(&present, size, true, PREVIOUS).unwrap();
        let (result, observed) = observe(&present, &marks(size, true), || 7);
        assert_eq!((result, observed.broken), (7, Duration::ZERO));
        assert!(observed.polls > 0, "{observed:?}");
        // The last poll comes after the work: it finds the directory missing however slow the machine is.
        let work = || fs::rename(&present, &aside).unwrap();
        let ((), observed) = observe(&present, &marks(size, true), work);
        assert!(observed.broken > Duration::ZERO, "{observed:?}");
    }
}
