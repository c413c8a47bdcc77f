//! Time axes and bars. They are SVG with lengths in percent: the text keeps its size at any width of the page.

use std::time::Duration;

use maud::{Markup, html};

/// The distances between two ticks, in seconds.
const STEPS: &[u64] = &[1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400];
/// The largest number of ticks after 0 that a narrow screen has room for. The label of the last one is on its left.
const TICKS: u64 = 3;

/// The length in percent below which a bar is a line.
const SHORTEST_BAR: f64 = 0.25;

/// A time axis from 0 to an end.
pub struct Axis {
    end: Duration,
}

impl Axis {
    /// The axis to `end`, or to one second if that is more.
    pub fn to(end: Duration) -> Self {
        Self { end: end.max(Duration::from_secs(1)) }
    }

    /// The position of `time` on the axis, in percent.
    fn at(&self, time: Duration) -> f64 {
        (100.0 * time.as_secs_f64() / self.end.as_secs_f64()).clamp(0.0, 100.0)
    }

    fn ticks(&self) -> impl Iterator<Item = u64> {
        let end = self.end.as_secs();
        let step = STEPS.iter().copied().find(|step| end / step <= TICKS).unwrap_or(end.max(1));
        (0..=end).step_by(usize::try_from(step).unwrap_or(usize::MAX))
    }

    /// The ticks with their times. Each track below has lines at the same places.
    pub fn scale(&self) -> Markup {
        html! {
            svg.scale width="100%" height="18" aria-hidden="true" {
                @for tick in self.ticks() {
                    @let position = self.at(Duration::from_secs(tick));
                    @let anchor = if tick == 0 { "start" } else if position > 90.0 { "end" } else { "middle" };
                    text x=(percent(position)) y="13" text-anchor=(anchor) { (label(tick)) }
                }
            }
        }
    }

    /// A track with one bar from `start` to `end`. `class` selects its colour and pattern.
    pub fn track(&self, class: &str, start: Duration, end: Duration) -> Markup {
        let (start, end) = (self.at(start), self.at(end));
        html! {
            svg.track width="100%" height="20" aria-hidden="true" {
                @for tick in self.ticks() {
                    @let position = percent(self.at(Duration::from_secs(tick)));
                    line.grid x1=(position) x2=(position) y1="0" y2="20" {}
                }
                @if end - start >= SHORTEST_BAR {
                    rect class={ "bar " (class) } x=(percent(start)) width=(percent(end - start)) y="3" height="14" {}
                } @else {
                    // A rectangle without width would not be drawn.
                    line class={ "bar moment " (class) } x1=(percent(start)) x2=(percent(start)) y1="1" y2="19" {}
                }
            }
        }
    }
}

/// A length in SVG.
pub fn percent(length: f64) -> String {
    format!("{length:.3}%")
}

fn label(seconds: u64) -> String {
    match seconds {
        0 => "0".to_owned(),
        _ if seconds % 3600 == 0 => format!("{} h", seconds / 3600),
        _ if seconds % 60 == 0 => format!("{} min", seconds / 60),
        _ => format!("{seconds} s"),
    }
}

/// The patterns of the bars, for readers who do not see the colours. The style sheet refers to them.
pub fn patterns() -> Markup {
    let patterns = [
        ("hatch-failed", "M0 8L8 0M-2 2L2 -2M6 10L10 6"),
        ("hatch-state", "M0 0L8 8M-2 6L2 10M6 -2L10 2"),
        ("hatch-skipped", "M0 4H8"),
        ("hatch-boot", "M4 0V8"),
        ("hatch-other", "M0 8L8 0M-2 2L2 -2M6 10L10 6"),
    ];
    html! {
        svg.patterns width="0" height="0" aria-hidden="true" focusable="false" {
            defs {
                @for (id, path) in patterns {
                    pattern #(id) width="8" height="8" patternUnits="userSpaceOnUse" {
                        rect width="8" height="8" {}
                        path d=(path) {}
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_has_few_ticks() {
        for (end, ticks) in [(0, vec![0, 1]), (12, vec![0, 5, 10]), (300, vec![0, 120, 240])] {
            assert_eq!(Axis::to(Duration::from_secs(end)).ticks().collect::<Vec<_>>(), ticks, "{end}");
        }
        assert!(Axis::to(Duration::from_secs(10_000_000)).ticks().count() <= 4);
    }

    #[test]
    fn labels_have_the_largest_unit() {
        assert_eq!([0, 45, 120, 5400, 7200].map(label), ["0", "45 s", "2 min", "90 min", "2 h"]);
    }

    #[test]
    fn bars_stay_on_the_axis() {
        let axis = Axis::to(Duration::from_secs(10));
        let track = axis.track("state", Duration::from_secs(5), Duration::from_secs(20)).into_string();
        assert!(track.contains(r#"x="50.000%" width="50.000%""#), "{track}");
        let track = axis.track("state", Duration::from_secs(5), Duration::from_secs(5)).into_string();
        assert!(track.contains(r#"x1="50.000%" x2="50.000%" y1="1""#), "{track}");
    }
}
