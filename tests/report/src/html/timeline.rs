//! The timeline of a scenario: a bar for each event, with console and journal beside them.

use std::time::Duration;

use maud::{Markup, html};

use super::axis::Axis;
use crate::model::{Case, Event, Kind, Timeline};
use crate::text;

/// The timeline of `case`, whose element is `id`.
pub fn figure(id: &str, case: &Case, timeline: &Timeline) -> Markup {
    let mut events: Vec<_> = timeline.events.iter().collect();
    events.sort_by_key(|event| event.start);
    let last = events.iter().map(|event| event.end).max().unwrap_or_default();
    let axis = Axis::to(last.max(case.duration.unwrap_or(Duration::ZERO)));
    html! {
        div.timeline {
            section aria-labelledby={ (id) "-events" } {
                h4 #{ (id) "-events" } { "Timeline" }
                @if events.is_empty() {
                    p.message { "no events were recorded" }
                } @else {
                    div.rows {
                        div.row.head aria-hidden="true" { span {} (axis.scale()) span {} }
                        ol { @for event in events { (row(&axis, event)) } }
                    }
                }
            }
            div.logs {
                (log(id, "console", "Console", &timeline.console))
                (log(id, "journal", "Journal of the last boot", &timeline.journal))
            }
        }
    }
}

fn row(axis: &Axis, event: &Event) -> Markup {
    let (class, kind) = match event.kind {
        Kind::Boot => ("boot", "boot"),
        Kind::PowerLoss => ("power-loss", "power loss"),
        Kind::Command => ("command", "command"),
        Kind::State => ("state", "state"),
    };
    let duration = text::duration(event.end.saturating_sub(event.start));
    html! {
        li.row.event data-kind=(class)
            title={ (kind) ": " (event.name) ": from " (text::duration(event.start)) " for " (duration) } {
            span.label {
                span class={ "kind " (class) } { (kind) }
                @if event.name != kind { " " span.event-name { (event.name) } }
            }
            (axis.track(class, event.start, event.end))
            span.time { @if event.kind != Kind::PowerLoss { (duration) } }
        }
    }
}

fn log(id: &str, name: &str, title: &str, log: &str) -> Markup {
    let (tail, left_out) = text::tail(log);
    html! {
        section.log aria-labelledby={ (id) "-" (name) } {
            h4 #{ (id) "-" (name) } { (title) }
            @if left_out > 0 {
                p.message { "The first " (left_out >> 10) " KiB of it are left out." }
            }
            @if tail.trim().is_empty() {
                p.message { "empty" }
            } @else {
                pre class=(name) tabindex="0" role="region" aria-labelledby={ (id) "-" (name) } { (tail) }
            }
        }
    }
}
