//! A reader of the destination that never pauses while it is whole, and notes for how long it was missing or mixed.

use std::fs::File;
use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::content::{NEW, OLD, mark};

/// The longest pause between two looks at a destination that is broken.
const PAUSE: Duration = Duration::from_millis(1);

/// What the reader has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How long it was neither the old nor the new.
    pub broken: Duration,
    /// How often it was looked at.
    pub looks: usize,
}

/// Looks at the destination's two `marks` while `work` runs.
pub fn while_watched<T>(
    destination: &Path,
    marks: &[(PathBuf, SeekFrom); 2],
    work: impl FnOnce() -> T,
) -> (T, Seen) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(destination, marks, &over));
        let result = work();
        over.store(true, Ordering::SeqCst);
        (result, watcher.join().unwrap_or_default())
    })
}

/// From the first look that finds it broken to the next that finds it whole, all such times together.
fn watch(destination: &Path, marks: &[(PathBuf, SeekFrom); 2], over: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut broken_since: Option<Instant> = None;
    loop {
        let last = over.load(Ordering::SeqCst);
        let looked = Instant::now();
        seen.looks += 1;
        match (is_whole(destination, marks), broken_since) {
            (false, None) => broken_since = Some(looked),
            (true, Some(since)) => {
                seen.broken += looked - since;
                broken_since = None;
            }
            _ => {}
        }
        if let Some(since) = broken_since {
            // A reader that never pauses slows down the writer, and what it measures: here one part in twenty will do.
            thread::sleep((looked - since).div_f32(20.0).min(PAUSE));
        }
        if last {
            seen.broken += broken_since.map(|since| since.elapsed()).unwrap_or_default();
            return seen;
        }
    }
}

/// Whether both marks are the old or both the new, read through one handle of the directory.
fn is_whole(destination: &Path, marks: &[(PathBuf, SeekFrom); 2]) -> bool {
    let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(directory) = openat(CWD, destination, directory, Mode::empty()) else { return false };
    let open = |path: &Path| {
        openat(&directory, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map(File::from).ok()
    };
    let [(first, at_first), (second, at_second)] = marks;
    let Some(file) = open(first) else { return false };
    let other = if first == second { file.try_clone().ok() } else { open(second) };
    let both = [mark(file, *at_first), other.and_then(|other| mark(other, *at_second))];
    both == [Some(OLD); 2] || both == [Some(NEW); 2]
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::content::{Size, marks, write};

    #[test]
    fn a_missing_directory_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let size = Size { files: 2, bytes: 10 };
        let (here, away) = (directory.path().join("here"), directory.path().join("away"));
        write(&here, size, true, OLD).unwrap();
        let pause = Duration::from_millis(20);
        let (_, seen) = while_watched(&here, &marks(size, true), || thread::sleep(pause));
        assert_eq!(seen.broken, Duration::ZERO);
        let (_, seen) = while_watched(&here, &marks(size, true), || {
            fs::rename(&here, &away).unwrap();
            thread::sleep(pause);
            fs::rename(&away, &here).unwrap();
        });
        assert!(seen.broken >= pause / 2, "{seen:?}");
        let (_, seen) = while_watched(&here, &marks(size, true), || {
            write(&here, Size { files: 1, bytes: 10 }, true, NEW).unwrap(); // one is new, the other old
            thread::sleep(pause);
        });
        assert!(seen.broken >= pause / 2, "{seen:?}");
    }
}
