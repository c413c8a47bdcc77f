//! The figures as a table, with the goals, and whether our modules meet them.

use std::time::Duration;

use crate::rounds::{Comparison, Figures, Plan};

/// The limit of written bytes for each byte of payload.
const WRITTEN: f64 = 1.05;
/// The limit of the time of an update, as a multiple of the lower bound.
const TOTAL: f64 = 1.15;
/// The limit of the ratio of two times that count as equal, for payloads of very different sizes. Times of a few
/// milliseconds vary as much.
const SAME: f64 = 2.0;
/// The limit of a module's memory in KiB.
const MEMORY: u64 = 8 << 10;

/// One column of the table.
struct Column {
    heading: &'static str,
    goal: String,
    cell: fn(&Figures, &Scale) -> Option<String>,
    /// The amount by which a row misses the goal; `None` if the goal is met, or if nothing was measured.
    missed: fn(&Figures, &Scale) -> Option<String>,
}

/// The values that figures are compared with.
struct Scale {
    payload: u64,
    lower_bound: Duration,
}

/// Formats `comparison` as a Markdown table with aligned columns.
pub fn render(title: &str, comparison: &Comparison) -> String {
    let Comparison { plan, rows } = comparison;
    let lower_bound = rows.last().map(|(_, figures)| figures.total).unwrap_or_default();
    let scale = Scale { payload: plan.large.total(), lower_bound };
    let columns = columns(plan);
    let mut table = vec![["".to_owned()].into_iter().chain(headings(&columns)).collect::<Vec<_>>()];
    for (name, figures) in rows {
        let cells = columns.iter().map(|column| (column.cell)(figures, &scale).unwrap_or_default());
        table.push([name.clone()].into_iter().chain(cells).collect());
    }
    let goals = columns.iter().map(|column| column.goal.clone());
    table.push(["goal".to_owned()].into_iter().chain(goals).collect());
    for (name, figures) in rows.iter().filter(|(name, _)| name.starts_with("ours")) {
        let cells = columns.iter().map(|column| verdict(column, figures, &scale));
        table.push([format!("goal of {name}")].into_iter().chain(cells).collect());
    }
    let speed = scale.payload as f64 / 1e6 / lower_bound.as_secs_f64().max(f64::EPSILON);
    format!("## {title}\n\nThe lower bound writes {speed:.0} MB/s here.\n\n{}", aligned(&table))
}

fn headings(columns: &[Column]) -> impl Iterator<Item = String> {
    columns.iter().map(|column| column.heading.to_owned())
}

fn verdict(column: &Column, figures: &Figures, scale: &Scale) -> String {
    match ((column.missed)(figures, scale), (column.cell)(figures, scale)) {
        _ if column.goal.is_empty() => String::new(),
        (Some(missed), _) => format!("NOT met: {missed}"),
        (None, Some(cell)) if cell != UNCOUNTED => "met".to_owned(),
        _ => "unknown".to_owned(),
    }
}

/// The cell for storage without counters.
const UNCOUNTED: &str = "no counters";

fn columns(plan: &Plan) -> Vec<Column> {
    let constant = format!("≤ {SAME} × at 1/{} of the size", plan.large.total() / plan.small.total().max(1));
    vec![
        Column {
            heading: "written per payload byte",
            goal: format!("≤ {WRITTEN}"),
            cell: |row, scale| {
                let written = |ratio| format!("{ratio:.2}");
                Some(per_byte(row, scale).map_or(UNCOUNTED.to_owned(), written))
            },
            missed: |row, scale| over(per_byte(row, scale)?, WRITTEN),
        },
        Column {
            heading: "missing or mixed",
            goal: "0".into(),
            cell: |row, _| {
                let observed = row.observed?;
                let broken = if observed.broken.is_zero() { "0".to_owned() } else { time(observed.broken) };
                Some(format!("{broken} ({} polls)", observed.polls))
            },
            missed: |row, _| Some(row.observed?.broken).filter(|broken| !broken.is_zero()).map(time),
        },
        Column {
            heading: "ArtifactInstall",
            goal: constant.clone(),
            cell: |row, _| row.install.map(both),
            missed: |row, _| growth(row.install?),
        },
        Column {
            heading: "ArtifactRollback",
            goal: constant,
            cell: |row, _| row.rollback.map(both),
            missed: |row, _| growth(row.rollback?),
        },
        Column {
            heading: "total (Download)",
            goal: format!("≤ {TOTAL} × the lower bound"),
            cell: |row, scale| {
                let ratio = ratio(row.total, scale.lower_bound);
                let download = if row.download.is_zero() { "-".to_owned() } else { time(row.download) };
                Some(format!("{} ({download}), {ratio:.2} ×", time(row.total)))
            },
            missed: |row, scale| over(ratio(row.total, scale.lower_bound), TOTAL),
        },
        Column {
            heading: "peak memory",
            goal: format!("< {} MiB", MEMORY >> 10),
            cell: |row, _| row.memory.map(|memory| format!("{:.1} MiB", memory as f64 / 1024.0)),
            missed: |row, _| {
                let over = row.memory?.checked_sub(MEMORY)?;
                Some(format!("{:.1} MiB over", over as f64 / 1024.0))
            },
        },
        Column {
            heading: "executable",
            goal: String::new(),
            cell: |row, _| row.executable.map(|bytes| format!("{:.0} KiB", (bytes as f64 / 1024.0).ceil())),
            missed: |_, _| None,
        },
    ]
}

fn per_byte(row: &Figures, scale: &Scale) -> Option<f64> {
    Some(row.written? as f64 / scale.payload as f64)
}

fn over(ratio: f64, goal: f64) -> Option<String> {
    (ratio > goal).then(|| format!("{:.2} over", ratio - goal))
}

fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64().max(f64::EPSILON)
}

fn both([large, small]: [Duration; 2]) -> String {
    format!("{}, {:.1} × the small payload's", time(large), ratio(large, small))
}

fn growth([large, small]: [Duration; 2]) -> Option<String> {
    let ratio = ratio(large, small);
    (ratio > SAME).then(|| format!("{ratio:.1} ×"))
}

fn time(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        1.0.. => format!("{seconds:.2} s"),
        0.0001.. => format!("{:.1} ms", seconds * 1e3),
        _ => format!("{:.0} µs", seconds * 1e6),
    }
}

fn aligned(table: &[Vec<String>]) -> String {
    let columns = table.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        table.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, row) in table.iter().enumerate() {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!(" {cell:width$} "));
        text += &format!("|{}|\n", cells.collect::<Vec<_>>().join("|"));
        if number == 0 {
            let rules = widths.iter().map(|width| "-".repeat(width + 2));
            text += &format!("|{}|\n", rules.collect::<Vec<_>>().join("|"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Size;
    use crate::observer::Observed;

    #[test]
    fn our_rows_are_compared_with_the_goals() {
        let milliseconds = |number| Duration::from_millis(number);
        let ours = Figures {
            written: Some(1_200),
            total: milliseconds(1_100),
            download: milliseconds(1_000),
            install: Some([milliseconds(3), milliseconds(2)]),
            rollback: Some([milliseconds(30), milliseconds(2)]),
            observed: Some(Observed { broken: Duration::ZERO, polls: 7 }),
            memory: Some(9 << 10),
            executable: Some(1 << 20),
        };
        let lower_bound = Figures { written: None, total: milliseconds(1_000), ..Figures::default() };
        let size = |bytes| Size { files: 1, bytes };
        let plan = Plan { large: size(1_000), small: size(10), rounds: 1, directory: "/".into() };
        let text =
            render("x", &Comparison { plan, rows: vec![("ours".into(), ours), ("lower bound".into(), lower_bound)] });
        let verdicts: Vec<_> = text.lines().last().unwrap_or_default().split('|').map(str::trim).collect();
        let expected = [
            "",
            "goal of ours",
            "NOT met: 0.15 over",
            "met",
            "met",
            "NOT met: 15.0 ×",
            "met",
            "NOT met: 1.0 MiB over",
            "",
            "",
        ];
        assert_eq!(verdicts, expected, "{text}");
        assert!(text.contains(UNCOUNTED) && text.contains("≤ 2 × at 1/100 of the size"), "{text}");
    }
}
