//! The report of a test run: JUnit XML for CI systems, and one self-contained HTML page for people.

mod html;
mod junit;
mod model;
mod text;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

pub use model::{Case, Cases, Chart, Event, Kind, Run, Suite, Timeline, Verdict};

/// The Debian packages that `tests/browser.rs`, the test of the page in a browser, needs.
pub const BROWSER_PACKAGES: &[&str] = &["chromium"];

/// Writes `junit.xml` and `index.html` to `directory`, which is created if it is missing. Each file is replaced as a
/// whole.
pub fn write(directory: &Path, run: &Run) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("creating {} failed", directory.display()))?;
    replace(directory, "junit.xml", &junit::report(run)?)?;
    replace(directory, "index.html", &html::page(run))
}

/// Replaces the file `name`, so that a reader sees the previous or the new content.
fn replace(directory: &Path, name: &str, content: &str) -> Result<()> {
    let path = directory.join(name);
    let new = directory.join(format!("{name}.new"));
    fs::write(&new, content).with_context(|| format!("writing {} failed", new.display()))?;
    fs::rename(&new, &path).with_context(|| format!("renaming {} to {} failed", new.display(), path.display()))
}
