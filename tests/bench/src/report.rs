//! The figures as a table, with the goals, and whether ours meet them.

use std::time::Duration;

use crate::rounds::{Comparison, Figures, Plan};

/// The most that may be written for a byte of payload.
const WRITTEN: f64 = 1.05;
/// The longest that an update may take, as a multiple of the floor.
const TOTAL: f64 = 1.15;
/// What still counts as the same time for payloads whose sizes are far apart: a few milliseconds vary as much.
const SAME: f64 = 2.0;
/// The most memory that a module may have, in KiB.
const MEMORY: u64 = 8 << 10;

/// One column: what it shows of a row, and by how much that misses the goal.
struct Column {
    head: &'static str,
    goal: String,
    cell: fn(&Figures, &Scale) -> Option<String>,
    /// None where the goal is met, or where there is nothing to judge.
    missed: fn(&Figures, &Scale) -> Option<String>,
}

/// What a row is measured by.
struct Scale {
    payload: u64,
    floor: Duration,
}

/// `comparison` in Markdown that can be read as it is.
pub fn render(title: &str, comparison: &Comparison) -> String {
    let Comparison { plan, rows } = comparison;
    let floor = rows.last().map(|(_, floor)| floor.total).unwrap_or_default();
    let scale = Scale { payload: plan.large.total(), floor };
    let columns = columns(plan);
    let mut table = vec![["".to_owned()].into_iter().chain(heads(&columns)).collect::<Vec<_>>()];
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
    let speed = scale.payload as f64 / 1e6 / floor.as_secs_f64().max(f64::EPSILON);
    format!("## {title}\n\nThe floor writes {speed:.0} MB/s here.\n\n{}", aligned(&table))
}

fn heads(columns: &[Column]) -> impl Iterator<Item = String> {
    columns.iter().map(|column| column.head.to_owned())
}

fn verdict(column: &Column, figures: &Figures, scale: &Scale) -> String {
    match ((column.missed)(figures, scale), (column.cell)(figures, scale)) {
        _ if column.goal.is_empty() => String::new(),
        (Some(missed), _) => format!("NOT met: {missed}"),
        (None, Some(cell)) if cell != UNCOUNTED => "met".to_owned(),
        _ => "not known".to_owned(),
    }
}

/// Where the medium has no counters.
const UNCOUNTED: &str = "no counters";

fn columns(plan: &Plan) -> Vec<Column> {
    let constant = format!("≤ {SAME} × at 1/{} of the size", plan.large.total() / plan.small.total().max(1));
    vec![
        Column {
            head: "written per payload byte",
            goal: format!("≤ {WRITTEN}"),
            cell: |row, scale| {
                let written = |ratio| format!("{ratio:.2}");
                Some(per_byte(row, scale).map_or(UNCOUNTED.to_owned(), written))
            },
            missed: |row, scale| over(per_byte(row, scale)?, WRITTEN),
        },
        Column {
            head: "missing or mixed",
            goal: "0".into(),
            cell: |row, _| {
                let seen = row.seen?;
                let broken = if seen.broken.is_zero() { "0".to_owned() } else { time(seen.broken) };
                Some(format!("{broken} ({} looks)", seen.looks))
            },
            missed: |row, _| Some(row.seen?.broken).filter(|broken| !broken.is_zero()).map(time),
        },
        Column {
            head: "ArtifactInstall",
            goal: constant.clone(),
            cell: |row, _| row.install.map(both),
            missed: |row, _| growth(row.install?),
        },
        Column {
            head: "ArtifactRollback",
            goal: constant,
            cell: |row, _| row.rollback.map(both),
            missed: |row, _| growth(row.rollback?),
        },
        Column {
            head: "total (of it Download)",
            goal: format!("≤ {TOTAL} × the floor"),
            cell: |row, scale| {
                let ratio = ratio(row.total, scale.floor);
                let download = if row.download.is_zero() { "-".to_owned() } else { time(row.download) };
                Some(format!("{} ({download}), {ratio:.2} ×", time(row.total)))
            },
            missed: |row, scale| over(ratio(row.total, scale.floor), TOTAL),
        },
        Column {
            head: "peak memory",
            goal: format!("< {} MiB", MEMORY >> 10),
            cell: |row, _| row.memory.map(|memory| format!("{:.1} MiB", memory as f64 / 1024.0)),
            missed: |row, _| {
                let over = row.memory?.checked_sub(MEMORY)?;
                Some(format!("{:.1} MiB over", over as f64 / 1024.0))
            },
        },
        Column {
            head: "executable",
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
    format!("{}, {:.1} × the small one's", time(large), ratio(large, small))
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
        table
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
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
    use crate::{Seen, Size};

    #[test]
    fn goals_are_judged_for_ours() {
        let milliseconds = |number| Duration::from_millis(number);
        let ours = Figures {
            written: Some(1_200),
            total: milliseconds(1_100),
            download: milliseconds(1_000),
            install: Some([milliseconds(3), milliseconds(2)]),
            rollback: Some([milliseconds(30), milliseconds(2)]),
            seen: Some(Seen { broken: Duration::ZERO, looks: 7 }),
            memory: Some(9 << 10),
            executable: Some(1 << 20),
        };
        let floor = Figures { written: None, total: milliseconds(1_000), ..Figures::default() };
        let size = |bytes| Size { files: 1, bytes };
        let plan = Plan { large: size(1_000), small: size(10), rounds: 1, directory: "/".into() };
        let text =
            render("x", &Comparison { plan, rows: vec![("ours".into(), ours), ("floor".into(), floor)] });
        let judged: Vec<_> = text.lines().last().unwrap_or_default().split('|').map(str::trim).collect();
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
        assert_eq!(judged, expected, "{text}");
        assert!(text.contains(UNCOUNTED) && text.contains("≤ 2 × at 1/100 of the size"), "{text}");
    }
}
