//! The suites, each with its cases. Failed ones come first and are open.

use maud::{Markup, html};

use super::{badge, class, counts, message, timeline};
use crate::model::{Case, Run, Suite, Verdict};
use crate::text;

/// The section with all suites, and the filter of their cases.
pub fn section(run: &Run) -> Markup {
    let mut suites: Vec<_> = run.suites.iter().enumerate().collect();
    suites.sort_by_key(|(_, suite)| rank(&suite.verdict));
    html! {
        section #suites aria-labelledby="suites-title" {
            h2 #suites-title { "Suites" }
            // The script shows it.
            form #filter role="search" hidden {
                label { "Filter " input #filter-text type="search" placeholder="name of a suite or case"; }
                label { input #filter-failed type="checkbox"; " only failed" }
                output #filter-count for="filter-text filter-failed" {}
            }
            @for (index, suite) in suites { (details(index, suite)) }
        }
    }
}

/// Failed before passed before skipped.
fn rank(verdict: &Verdict) -> u8 {
    match verdict {
        Verdict::Failed(_) => 0,
        Verdict::Passed(_) => 1,
        Verdict::Skipped(_) => 2,
    }
}

fn details(index: usize, suite: &Suite) -> Markup {
    let failed = matches!(suite.verdict, Verdict::Failed(_));
    let skipped = matches!(suite.verdict, Verdict::Skipped(_));
    let mut cases: Vec<_> = suite.cases.iter().enumerate().collect();
    cases.sort_by_key(|(_, case)| !matches!(case.verdict, Verdict::Failed(_)));
    html! {
        details.suite #{ "suite-" (index) } data-verdict=(class(&suite.verdict)) open[failed] {
            summary {
                span.line {
                    (badge(&suite.verdict))
                    h3 { (suite.name) }
                    span.time { @if !skipped { (text::duration(suite.duration)) } }
                }
            }
            @if !cases.is_empty() { p.counts { (counts(suite.cases.iter().map(|case| &case.verdict))) } }
            (result(&suite.verdict))
            @if !cases.is_empty() {
                ul.cases { @for (number, case) in cases { (item(&format!("case-{index}-{number}"), case)) } }
            }
        }
    }
}

/// The message of a verdict, if it has one.
fn result(verdict: &Verdict) -> Markup {
    html! {
        @match verdict {
            _ if message(verdict).is_empty() => {}
            Verdict::Failed(error) => {
                pre.error tabindex="0" role="region" aria-label="Error" { (text::tail(error).0) }
            }
            Verdict::Passed(text) | Verdict::Skipped(text) => { p.message { (text) } }
        }
    }
}

/// A case. It can be opened if it has more than a line.
fn item(id: &str, case: &Case) -> Markup {
    let has_more = !case.description.is_empty() || !message(&case.verdict).is_empty() || case.timeline.is_some();
    html! {
        li.case #(id) data-verdict=(class(&case.verdict)) {
            @if has_more {
                details open[matches!(case.verdict, Verdict::Failed(_))] {
                    summary { (line(case)) }
                    @if !case.description.is_empty() { p.description { (case.description) } }
                    (result(&case.verdict))
                    @if let Some(timeline) = &case.timeline { (timeline::figure(id, case, timeline)) }
                }
            } @else {
                (line(case))
            }
        }
    }
}

fn line(case: &Case) -> Markup {
    html! {
        span.line {
            (badge(&case.verdict))
            span.name { span.group { (case.group) } " " (case.name) }
            span.time { @if let Some(duration) = case.duration { (text::duration(duration)) } }
        }
    }
}
