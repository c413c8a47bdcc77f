//! The progress display on standard error, for steps that may take more than two seconds.
//!
//! On a terminal each running step is a line with its duration and the newest line of output. Otherwise, as in CI, a
//! step is one line at its start and one at its end.

use std::fmt::Display;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

static TERMINAL: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// A running step, started by [`step`].
pub struct Step {
    bar: ProgressBar,
}

impl Step {
    /// Shows `detail` beside the step's name. It replaces the previous detail.
    pub fn detail(&self, detail: impl Display) {
        self.bar.set_message(detail.to_string());
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
    if bar.is_hidden() {
        line(format!("      {name} …"));
    }
    let result = work(&Step { bar: bar.clone() });
    bar.finish_and_clear();
    let outcome = if result.is_ok() { "ok" } else { "FAIL" };
    line(format!("{outcome:>5} {name} ({:.1} s)", start.elapsed().as_secs_f32()));
    result
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
