//! The page: one file without external resources. Without JavaScript it lacks the filter only.

mod axis;
mod chart;
mod overview;
mod suite;
mod timeline;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use crate::model::{Case, Run, Verdict};
use crate::text;

const STYLE: &str = include_str!("html/page.css");
const SCRIPT: &str = include_str!("html/page.js");

/// The page of `run`.
pub fn page(run: &Run) -> String {
    // Only this script and this style apply, whatever a log contains.
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {}; base-uri 'none'; form-action 'none'",
        checksum(SCRIPT),
        checksum(STYLE)
    );
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title(run)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (axis::patterns())
                (header(run))
                main {
                    (overview::section(run))
                    (suite::section(run))
                    (chart::section(&run.charts, &run.source_of_charts))
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page.into_string()
}

fn checksum(text: &str) -> String {
    format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(text)))
}

fn title(run: &Run) -> String {
    let failed = count(run.suites.iter().map(|suite| &suite.verdict))[1].1;
    if failed == 0 { "Test report: passed".to_owned() } else { format!("Test report: {failed} failed") }
}

fn header(run: &Run) -> Markup {
    let cases = || run.suites.iter().flat_map(|suite| &suite.cases);
    html! {
        header {
            h1 { "Test report" }
            p.counts {
                "Suites: " (counts(run.suites.iter().map(|suite| &suite.verdict)))
                @if cases().next().is_some() {
                    br;
                    "Cases: " (counts(cases().map(|Case { verdict, .. }| verdict)))
                }
            }
            dl.facts {
                dt { "Command" } dd { code { (run.command) } }
                dt { "Commit" } dd { code { (run.commit) } }
                dt { "Date" } dd { (text::date(run.start)) }
                dt { "Duration" } dd { (text::duration(run.duration)) }
                dt { "Host" } dd { (run.host) }
            }
            nav aria-label="Sections" {
                a href="#overview" { "Overview" }
                a href="#suites" { "Suites" }
                @if !run.charts.is_empty() { a href="#comparison" { "Comparison" } }
            }
        }
    }
}

/// The number of verdicts of each kind.
fn count<'a>(verdicts: impl Iterator<Item = &'a Verdict>) -> [(&'static str, usize); 3] {
    let mut counts = [("passed", 0), ("failed", 0), ("skipped", 0)];
    for verdict in verdicts {
        counts.iter_mut().filter(|(name, _)| *name == class(verdict)).for_each(|(_, count)| *count += 1);
    }
    counts
}

/// The numbers of verdicts, each as a badge, without those that are 0 except "failed".
fn counts<'a>(verdicts: impl Iterator<Item = &'a Verdict>) -> Markup {
    let counts = count(verdicts);
    html! {
        @for (name, number) in counts.iter().filter(|(name, number)| *number > 0 || *name == "failed") {
            span class={ "badge " (if *number > 0 { name } else { "none" }) } { (number) " " (name) } " "
        }
    }
}

/// The class of a verdict in the style sheet, which is also its text.
fn class(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Passed(_) => "passed",
        Verdict::Failed(_) => "failed",
        Verdict::Skipped(_) => "skipped",
    }
}

/// The message of a verdict.
fn message(verdict: &Verdict) -> &str {
    let (Verdict::Passed(message) | Verdict::Failed(message) | Verdict::Skipped(message)) = verdict;
    message
}

/// A verdict as a badge. The symbols differ, so that nobody needs to see the colours.
fn badge(verdict: &Verdict) -> Markup {
    let symbol = match verdict {
        Verdict::Passed(_) => "✓",
        Verdict::Failed(_) => "✗",
        Verdict::Skipped(_) => "–",
    };
    html! {
        span class={ "badge " (class(verdict)) } { span aria-hidden="true" { (symbol) " " } (class(verdict)) }
    }
}
