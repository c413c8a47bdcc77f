//! Takes screenshots of the report of the tests' sample run, or of another report, in headless Chromium: light and
//! dark, on a desktop computer and on a phone, the whole page and the first scenario with a timeline.

use std::env;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

#[path = "../tests/browser/chromium.rs"]
#[expect(dead_code, reason = "the rest is for the tests")]
mod chromium;
#[path = "../tests/sample/mod.rs"]
mod sample;

/// Opens the first case with a timeline and scrolls to it.
const OPEN: &str = "location.hash = document.querySelector('.timeline').closest('li').id";

fn main() -> Result<()> {
    let mut arguments = env::args_os().skip(1).map(PathBuf::from);
    let directory = arguments.next().context("usage: screenshots DIRECTORY [DIRECTORY-OF-A-REPORT]")?;
    fs::create_dir_all(&directory).with_context(|| format!("creating {} failed", directory.display()))?;
    let report = match arguments.next() {
        Some(report) => report,
        None => {
            let report = directory.join("sample");
            test_report::write(&report, &sample::run())?;
            report
        }
    };
    let index = report.join("index.html");
    let index = fs::canonicalize(&index).with_context(|| format!("no report: {}", index.display()))?;
    for (device, width, height) in [("desktop", 1280, 900), ("phone", 360, 740)] {
        let mut page = chromium::Page::open(&index)?;
        page.resize(width, height)?;
        for scheme in ["light", "dark"] {
            page.prefer(scheme)?;
            page.screenshot(&directory.join(format!("{device}-{scheme}.png")), true)?;
        }
        page.value(OPEN)?;
        page.wait("document.querySelector('.timeline').checkVisibility()")?;
        for scheme in ["light", "dark"] {
            page.prefer(scheme)?;
            page.screenshot(&directory.join(format!("{device}-{scheme}-scenario.png")), false)?;
        }
    }
    Ok(())
}
