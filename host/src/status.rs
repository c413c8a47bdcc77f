//! Live status on stderr, for everything that may take more than two seconds.
//!
//! On a terminal a spinner shows the step, its time and the newest line of output, and steps of several threads stand
//! below each other; elsewhere (CI, a pipe) a step is one line when it begins and one when it ends.

use std::fmt::Display;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

static TERMINAL: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// A step under way. Made by [`step`].
pub struct Step {
    bar: ProgressBar,
}

impl Step {
    /// Shows `detail` beside the step's name; the newest one replaces the one before.
    pub fn detail(&self, detail: impl Display) {
        self.bar.set_message(detail.to_string());
    }

    /// Says `note` in a line that stays.
    pub fn note(&self, note: impl Display) {
        line(format!("      {}: {note}", self.bar.prefix()));
    }
}

/// Runs `work` as a visible step called `name` and says how long it took, or that it failed.
pub fn step<T, E>(name: impl Display, work: impl FnOnce(&Step) -> Result<T, E>) -> Result<T, E> {
    let begun = Instant::now();
    let name = name.to_string();
    let bar = TERMINAL.add(ProgressBar::new_spinner().with_prefix(name.clone()).with_style(style()));
    bar.enable_steady_tick(Duration::from_millis(120));
    if bar.is_hidden() {
        line(format!("      {name} …"));
    }
    let result = work(&Step { bar: bar.clone() });
    bar.finish_and_clear();
    let outcome = if result.is_ok() { "ok" } else { "FAIL" };
    line(format!("{outcome:>5} {name} ({:.1} s)", begun.elapsed().as_secs_f32()));
    result
}

/// Writes a line above the steps under way.
fn line(text: String) {
    TERMINAL.suspend(|| eprintln!("{text}"));
}

fn style() -> ProgressStyle {
    // A constant template; indicatif's own tests cover its grammar, the default serves if it ever changes.
    ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg:.dim}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}
