//! Opens a report in headless Chromium: clicks, keys, color schemes, and the width of a phone.
//!
//! Needs [`test_report::BROWSER_PACKAGES`]. `cargo test --package test-report --test browser` runs it.

use anyhow::{Result, ensure};
use tempfile::TempDir;

use crate::chromium::Page;

mod chromium;
#[path = "../sample/mod.rs"]
mod sample;

/// The line of the scenario with a timeline, which opens it.
const SUMMARY: &str = "document.querySelector('#case-4-0 summary')";
/// The suite of the scenarios.
const SUITE: &str = "document.querySelector('#suite-4 > summary')";

fn open() -> Result<(TempDir, Page)> {
    let directory = TempDir::new()?;
    test_report::write(directory.path(), &sample::run())?;
    let mut page = Page::open(&directory.path().join("index.html"))?;
    page.resize(1280, 900)?;
    Ok((directory, page))
}

/// The visible rows of the timeline, each with its text and the place of its bar on the track.
const ROWS: &str = "[...document.querySelectorAll('#case-4-0 .event')].filter((row) => row.checkVisibility()) \
    .map((row) => { \
        const track = row.querySelector('.track').getBoundingClientRect(); \
        const bar = row.querySelector('.bar').getBoundingClientRect(); \
        const percent = (x) => Math.round(100 * (x - track.left) / track.width); \
        const text = row.innerText.trim().split(/\\s+/).join(' '); \
        return `${text}, bar from ${percent(bar.left)} to ${percent(bar.right)} %`; \
    }).join('; ')";

/// An expression: whether the first element that matches `selector` is visible.
fn visible(selector: &str) -> String {
    format!("document.querySelector(`{selector}`).checkVisibility()")
}

/// Opens everything that can be opened.
fn open_all(page: &mut Page) -> Result<()> {
    page.value("document.querySelectorAll('details').forEach((element) => element.open = true)").map(drop)
}

fn has_no_errors(page: &mut Page) -> Result<()> {
    let errors = page.errors()?;
    ensure!(errors.is_empty(), "errors of the page: {errors:#?}");
    Ok(())
}

#[test]
fn a_click_shows_the_timeline_with_console_and_journal() -> Result<()> {
    let (_directory, mut page) = open()?;
    assert!(!page.is(&visible("#case-4-0 .timeline"))?);
    page.click(SUITE)?;
    page.click(SUMMARY)?;
    page.wait(&visible("#case-4-0 .timeline"))?;
    let rows = page.text(ROWS)?;
    for row in [
        "boot resume the snapshot 8.2 s, bar from 0 to 11 %",
        "state Download (web-file) 3.5 s, bar from 15 to 20 %",
        "state ArtifactInstall (web-file) 7.0 s, bar from 21 to 31 %",
        "power loss, bar from 31 to 31 %",
        "command </pre></script>",
    ] {
        assert!(rows.contains(row), "{row:?} is missing: {rows}");
    }
    assert!(page.is(&visible("#case-4-0 pre.console"))?);
    let console = page.text("document.querySelector('#case-4-0 pre.console').innerText")?;
    assert_eq!(console.trim_end(), format!("  OK   Reached target\n{}\nLast line of the console", sample::NASTY));
    let journal = page.text("document.querySelector('#case-4-0 pre.journal').innerText")?;
    assert!(journal.trim_end().ends_with("started unit 8999 of the device"));
    assert!(page.is("document.querySelector('#case-4-0 .logs').getBoundingClientRect().left \
         > document.querySelector('#case-4-0 .event').getBoundingClientRect().right")?);
    has_no_errors(&mut page)
}

#[test]
fn the_keyboard_opens_a_scenario() -> Result<()> {
    let (_directory, mut page) = open()?;
    for (element, shown) in [(SUITE, "#case-4-0 summary"), (SUMMARY, "#case-4-0 pre.console")] {
        assert!(!page.is(&visible(shown))?);
        page.value(&format!("{element}.focus()"))?;
        page.press_enter()?;
        page.wait(&visible(shown))?;
    }
    has_no_errors(&mut page)
}

#[test]
fn failed_suites_and_cases_are_open_and_show_their_error() -> Result<()> {
    let (_directory, mut page) = open()?;
    assert_eq!(page.text("document.title")?, "Test report: 2 failed");
    assert!(page.is(&visible("#suite-2 pre.error"))?);
    let error = page.text("document.querySelector('#case-2-1 pre.error').innerText")?;
    assert_eq!(error.trim_end(), format!("point 17: inconsistent: {}\n{}", sample::NASTY, sample::LONG));
    assert!(!page.is(&visible("#case-1-0"))?);
    has_no_errors(&mut page)
}

#[test]
fn the_filter_shows_the_matching_cases_only() -> Result<()> {
    let (_directory, mut page) = open()?;
    let shown = "[...document.querySelectorAll('li.case')].filter((item) => item.checkVisibility()).length";
    page.value("document.getElementById('filter-text').focus()")?;
    page.insert("Journal_1")?;
    page.wait(&format!("{shown} === 11"))?;
    assert_eq!(page.text("document.getElementById('filter-count').textContent")?, "11 cases");
    page.value("document.getElementById('filter-text').select()")?;
    page.insert(" ")?;
    page.click("document.getElementById('filter-failed')")?;
    page.wait(&format!("{shown} === 1"))?;
    page.click("document.getElementById('filter-failed')")?;
    page.wait(&format!("{shown} === 2"))?; // those of the failed suite, which was open
    has_no_errors(&mut page)
}

#[test]
fn a_link_opens_a_closed_scenario() -> Result<()> {
    let (_directory, mut page) = open()?;
    page.value("location.hash = '#case-4-0'")?;
    page.wait(&visible("#case-4-0 .timeline"))?;
    has_no_errors(&mut page)
}

/// Texts with a contrast below the 4.5 that WCAG 2 asks for, as a list.
const LOW_CONTRAST: &str = r"(() => {
    const color = (text) => text.match(/[\d.]+/g).map(Number);
    const channel = (value) => value <= 10.31475 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4;
    const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
    const background = (element) => {
        for (; element; element = element.parentElement) {
            const own = color(getComputedStyle(element).backgroundColor);
            if (own.length < 4 || own[3] > 0) return own;
        }
        return [255, 255, 255];
    };
    const found = [];
    for (const element of document.querySelectorAll('body *')) {
        const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (!own || !element.checkVisibility() || element.tagName === 'SCRIPT') continue;
        const style = getComputedStyle(element);
        const text = luminance(color(element instanceof SVGElement ? style.fill : style.color));
        const behind = luminance(background(element));
        const ratio = (Math.max(text, behind) + 0.05) / (Math.min(text, behind) + 0.05);
        if (!(ratio >= 4.5)) found.push(`${ratio.toFixed(2)} ${element.outerHTML.slice(0, 80)}`);
    }
    return found.join('\n');
})()";

#[test]
fn both_color_schemes_have_enough_contrast() -> Result<()> {
    let (_directory, mut page) = open()?;
    open_all(&mut page)?;
    let mut backgrounds = Vec::new();
    for scheme in ["light", "dark"] {
        page.prefer(scheme)?;
        backgrounds.push(page.text("getComputedStyle(document.body).backgroundColor")?);
        assert_eq!(page.text(LOW_CONTRAST)?, "", "{scheme}");
    }
    assert_ne!(backgrounds[0], backgrounds[1]);
    page.value("document.body.style.color = '#999', document.body.style.backgroundColor = '#aaa'")?;
    assert_ne!(page.text(LOW_CONTRAST)?, "", "the check finds a low contrast");
    Ok(())
}

#[test]
fn a_phone_needs_no_horizontal_scrolling() -> Result<()> {
    let (_directory, mut page) = open()?;
    page.resize(360, 740)?;
    let widest = "(() => { const width = document.documentElement.scrollWidth; \
        return width <= 360 ? '' : width + ': ' + [...document.querySelectorAll('body *')] \
        .filter((element) => element.getBoundingClientRect().right > 361) \
        .map((element) => element.outerHTML.slice(0, 80)).join('\\n'); })()";
    assert_eq!(page.text(widest)?, "");
    open_all(&mut page)?;
    assert_eq!(page.text(widest)?, "");
    assert!(page.is("document.querySelector('#case-4-0 .logs').getBoundingClientRect().top \
         > document.querySelector('#case-4-0 .event').getBoundingClientRect().bottom")?);
    has_no_errors(&mut page)
}
