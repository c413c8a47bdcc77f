//! The overview: when each suite ran. Suites run in parallel.

use maud::{Markup, html};

use super::axis::Axis;
use super::{badge, class};
use crate::model::{Run, Suite, Verdict};
use crate::text;

/// The section with a bar for each suite that ran.
pub fn section(run: &Run) -> Markup {
    let ran = || run.suites.iter().enumerate().filter(|(_, suite)| !matches!(suite.verdict, Verdict::Skipped(_)));
    let end = ran().map(|(_, suite)| suite.start + suite.duration).chain([run.duration]).max().unwrap_or_default();
    let axis = Axis::to(end);
    html! {
        section #overview aria-labelledby="overview-title" {
            h2 #overview-title { "Overview" }
            div.rows {
                div.row.head aria-hidden="true" { span {} (axis.scale()) span {} }
                ol { @for (index, suite) in ran() { (row(&axis, index, suite)) } }
            }
        }
    }
}

fn row(axis: &Axis, index: usize, suite: &Suite) -> Markup {
    html! {
        li.row title={ (suite.name) ": from " (text::duration(suite.start)) " for " (text::duration(suite.duration)) } {
            span.label { (badge(&suite.verdict)) " " a href={ "#suite-" (index) } { (suite.name) } }
            (axis.track(class(&suite.verdict), suite.start, suite.start + suite.duration))
            span.time { (text::duration(suite.duration)) }
        }
    }
}
