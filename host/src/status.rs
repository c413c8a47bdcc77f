//! The progress display on standard error, for steps that may take more than two seconds.
//!
//! On a terminal each running step is a line with its duration and the newest line of output. Otherwise, as in CI, a
//! step is one line at its start and one at its end. Between them, its newest progress is a line every ten seconds if
//! it has changed, and every minute otherwise.

use std::fmt::Display;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

static TERMINAL: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// A running step, started by [`step`].
pub struct Step {
    bar: ProgressBar,
    /// The newest progress, for the lines without a terminal.
    progress: Arc<Mutex<String>>,
}

/// The time between two lines of progress where there is no terminal.
const INTERVAL: Duration = Duration::from_secs(10);

/// After so many intervals, progress that has not changed is printed again: the step is still running.
const UNCHANGED: u32 = 6;

impl Step {
    /// Shows `detail` beside the step's name. It replaces the previous detail.
    pub fn detail(&self, detail: impl Display) {
        self.bar.set_message(detail.to_string());
    }

    /// Shows `progress`, such as "3 of 7 crates compiled", also where there is no terminal: there the newest one is
    /// printed every ten seconds if it has changed.
    pub fn progress(&self, progress: String) {
        self.detail(&progress);
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }

    /// Prints `note` in a line of its own.
    pub fn note(&self, note: impl Display) {
        line(format!("      {}: {note}", self.bar.prefix()));
    }
}

/// Runs `work` as a step called `name`, and prints its result and duration.
pub fn step<T, E>(name: impl Display, work: impl FnOnce(&Step) -> Result<T, E>) -> Result<T, E> {
    let start = Instant::now();
    let name = name.to_string();
    let bar = TERMINAL.add(ProgressBar::new_spinner().with_prefix(name.clone()).with_style(style()));
    bar.enable_steady_tick(Duration::from_millis(120));
    let progress = Arc::new(Mutex::new(String::new()));
    let (running, ended) = mpsc::channel::<()>();
    if bar.is_hidden() {
        line(format!("      {name} …"));
        let (name, progress) = (name.clone(), Arc::clone(&progress));
        thread::spawn(move || {
            repeat(INTERVAL, &ended, &progress, |progress| line(format!("      {name}: {progress}")))
        });
    }
    let result = work(&Step { bar: bar.clone(), progress });
    drop(running);
    bar.finish_and_clear();
    let outcome = if result.is_ok() { "ok" } else { "FAIL" };
    line(format!("{outcome:>5} {name} ({:.1} s)", start.elapsed().as_secs_f32()));
    result
}

/// Calls `print` with `progress` after every `interval` in which it has changed, and after [`UNCHANGED`] intervals
/// otherwise, until the other side of `ended` is dropped.
fn repeat(interval: Duration, ended: &Receiver<()>, progress: &Mutex<String>, print: impl Fn(&str)) {
    let (mut printed, mut unchanged) = (String::new(), 0);
    while ended.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
        let progress = progress.lock().unwrap_or_else(PoisonError::into_inner).clone();
        unchanged += 1;
        if progress != printed || unchanged == UNCHANGED && !progress.is_empty() {
            print(&progress);
            (printed, unchanged) = (progress, 0);
        }
    }
}

/// Prints a line above the running steps.
fn line(text: String) {
    TERMINAL.suspend(|| eprintln!("{text}"));
}

fn style() -> ProgressStyle {
    // The template is valid. If indicatif's grammar changes, the default style is used.
    ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg:.dim}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_printed_when_it_changes_and_repeated_until_the_end() {
        let (running, ended) = mpsc::channel::<()>();
        let (printed, lines) = mpsc::channel();
        let progress = Arc::new(Mutex::new("1 of 2".to_owned()));
        let shared = Arc::clone(&progress);
        let interval = Duration::from_millis(1);
        let repeating = thread::spawn(move || {
            let print = |line: &str| printed.send((line.to_owned(), Instant::now())).unwrap_or_default();
            repeat(interval, &ended, &shared, print);
        });
        let (first, at) = lines.recv().unwrap();
        let (second, later) = lines.recv().unwrap();
        assert_eq!((first.as_str(), second.as_str()), ("1 of 2", "1 of 2"));
        assert!(later - at >= interval * UNCHANGED, "an unchanged line was printed after {:?}", later - at);
        *progress.lock().unwrap() = "2 of 2".to_owned();
        assert!(lines.iter().any(|(line, _)| line == "2 of 2"));
        drop(running);
        repeating.join().unwrap();
    }
}
