//! Bar charts, each with a table of the same values.

use maud::{Markup, html};

use super::axis::percent;
use crate::model::Chart;
use crate::text;

/// The height of a bar with its text, in pixels.
const ROW: usize = 42;

/// The section with all charts.
pub fn section(charts: &[Chart], source: &str) -> Markup {
    html! {
        @if !charts.is_empty() {
            section #comparison aria-labelledby="comparison-title" {
                h2 #comparison-title { "Comparison with the modules that Mender ships" }
                p { (source) }
                div.charts { @for chart in charts { (figure(chart)) } }
            }
        }
    }
}

fn figure(chart: &Chart) -> Markup {
    let values = || chart.groups.iter().flat_map(|(_, bars)| bars).map(|(_, value)| *value);
    let largest = values().filter(|value| value.is_finite()).fold(f64::MIN_POSITIVE, f64::max);
    let series = series(chart);
    html! {
        figure.chart {
            figcaption { (chart.title) @if !chart.unit.is_empty() { span.unit { " (" (chart.unit) ")" } } }
            @for (group, bars) in &chart.groups {
                h4 { (group) }
                svg width="100%" height=(bars.len() * ROW) role="img" aria-label={ (chart.title) ": " (group) } {
                    @for (number, (name, value)) in bars.iter().enumerate() {
                        @let color = series.iter().position(|other| *other == kind(name)).unwrap_or_default().min(3);
                        @let top = number * ROW;
                        text x="0" y=(top + 14) { (name) ": " (text::number(*value)) " " (chart.unit) }
                        rect class={ "series-" (color) } x="0" y=(top + 20) height="14" rx="2"
                            width=(percent(width(*value, largest))) {}
                    }
                }
            }
            details { summary { "Table" } (table(chart, &series)) }
        }
    }
}

/// The length of the bar of `value`, in percent.
fn width(value: f64, largest: f64) -> f64 {
    if value.is_finite() { (100.0 * value / largest).clamp(0.0, 100.0) } else { 0.0 }
}

/// The kinds of bars in all groups. Bars of one kind have one colour or pattern.
fn series(chart: &Chart) -> Vec<&str> {
    let mut kinds = Vec::new();
    for (name, _) in chart.groups.iter().flat_map(|(_, bars)| bars) {
        if !kinds.contains(&kind(name)) {
            kinds.push(kind(name));
        }
    }
    kinds
}

/// What the bar `name` has in common with bars of other groups: the part before a colon.
fn kind(name: &str) -> &str {
    name.split(':').next().unwrap_or(name)
}

fn table(chart: &Chart, series: &[&str]) -> Markup {
    let value = |bars: &[(String, f64)], name: &str| {
        bars.iter()
            .find(|(other, _)| kind(other) == name)
            .map_or_else(|| "–".to_owned(), |(_, value)| text::number(*value))
    };
    html! {
        div.scroll tabindex="0" role="region" aria-label={ "Table: " (chart.title) } {
            table {
                thead { tr { th scope="col" { (chart.unit) } @for name in series { th scope="col" { (name) } } } }
                tbody {
                    @for (group, bars) in &chart.groups {
                        tr { th scope="row" { (group) } @for name in series { td { (value(bars, name)) } } }
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
    fn bars_of_one_kind_have_one_colour_in_all_groups() {
        let bars = |module: &str| ["ours", "upstream"].map(|kind| (format!("{kind}: {module}"), 1.0)).to_vec();
        let groups = vec![("a".to_owned(), bars("web-file")), ("b".to_owned(), bars("directory"))];
        let page = figure(&Chart { title: "t".to_owned(), unit: String::new(), groups }).into_string();
        for (class, count) in [("series-0", 2), ("series-1", 2), ("series-2", 0)] {
            assert_eq!(page.matches(class).count(), count, "{class}: {page}");
        }
        assert_eq!(page.matches("<th scope=\"col\">ours</th>").count(), 1, "{page}");
    }
}
