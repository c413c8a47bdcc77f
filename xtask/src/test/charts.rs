//! The charts of the report: the cost of an update with our modules and with upstream's, from
//! `docs/evidence/bench.md`.

use std::fs;
use std::path::Path;

use test_report::Chart;

/// The page of `cargo xtask bench --write`.
const PAGE: &str = "docs/evidence/bench.md";

/// The charts of the page, and what it says about its origin; none if it has not been written.
pub fn of(root: &Path) -> (Vec<Chart>, String) {
    let text = fs::read_to_string(root.join(PAGE)).unwrap_or_default();
    let tables = tables(&text);
    let origin = text.lines().find(|line| line.starts_with("Made by ")).unwrap_or_default();
    let charts = [
        chart(&tables, "Bytes written for each byte of payload", "", "written per payload byte", |cell| cell),
        chart(&tables, "Time of an update", "× the lower bound", "total (Download)", |cell| {
            cell.rsplit(", ").next().unwrap_or(cell)
        }),
    ]
    .into_iter()
    .flatten()
    .collect();
    (charts, format!("Not measured by this run, but read from {PAGE}. {}", origin.replace('`', "")))
}

/// A table of the page, with the title of its section. The first row has the headings.
struct Table<'a> {
    title: &'a str,
    rows: Vec<Vec<&'a str>>,
}

fn tables(text: &str) -> Vec<Table<'_>> {
    let sections = text.split("\n## ").skip(1);
    let tables = sections.map(|section| {
        let (title, body) = section.split_once('\n').unwrap_or((section, ""));
        let lines = body.lines().filter_map(|line| line.trim().strip_prefix('|')?.strip_suffix('|'));
        let is_rule = |line: &&str| line.chars().all(|character| "-:| ".contains(character));
        let rows = lines.filter(|line| !is_rule(line)).map(|line| line.split('|').map(str::trim).collect());
        Table { title: title.trim(), rows: rows.collect() }
    });
    tables.filter(|table| !table.rows.is_empty()).collect()
}

/// The chart of one column: a group for each table, a bar for each row whose part of the cell begins with a number.
fn chart(tables: &[Table], title: &str, unit: &str, heading: &str, part: fn(&str) -> &str) -> Option<Chart> {
    let group = |table: &Table| {
        let column = table.rows[0].iter().position(|cell| *cell == heading)?;
        let bar = |row: &Vec<&str>| {
            let name = row.first()?;
            let is_candidate = ["ours", "upstream", "lower bound"].iter().any(|kind| name.starts_with(kind));
            let value = part(row.get(column)?).split(' ').next()?.parse().ok()?;
            is_candidate.then(|| ((*name).to_owned(), value))
        };
        let bars: Vec<_> = table.rows.iter().skip(1).filter_map(bar).collect();
        (!bars.is_empty()).then(|| (table.title.to_owned(), bars))
    };
    let groups: Vec<_> = tables.iter().filter_map(group).collect();
    (!groups.is_empty()).then(|| Chart { title: title.to_owned(), unit: unit.to_owned(), groups })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# The cost of an update\n\nMade by `cargo xtask bench`, from commit abc.\n\n## One file of 500 MB\n\nThe lower bound writes 300 MB/s here.\n\n\
        |                       | written per payload byte | total (Download)        |\n\
        |-----------------------|--------------------------|-------------------------|\n\
        | ours: web-file        | 1.00                     | 1.90 s (1.80 s), 1.15 × |\n\
        | upstream: single-file | 3.01                     | 5.00 s (4.00 s), 3.03 × |\n\
        | goal of ours          | met                      | met                     |\n\n\
        ## Another\n\nno table\n";

    #[test]
    fn bars_are_read_from_the_tables() {
        let tables = tables(TEXT);
        let written = chart(&tables, "x", "", "written per payload byte", |cell| cell).unwrap();
        let bars = vec![("ours: web-file".to_owned(), 1.0), ("upstream: single-file".to_owned(), 3.01)];
        assert_eq!(written.groups, [("One file of 500 MB".to_owned(), bars)]);
        assert!(chart(&tables, "x", "", "no such column", |cell| cell).is_none());
    }

    #[test]
    fn a_page_that_was_not_written_gives_no_chart() {
        assert!(of(tempfile::tempdir().unwrap().path()).0.is_empty());
        let directory = tempfile::tempdir().unwrap();
        host::directory::write(&directory.path().join(PAGE), TEXT).unwrap();
        let (charts, source) = of(directory.path());
        assert!(
            source.ends_with("read from docs/evidence/bench.md. Made by cargo xtask bench, from commit abc."),
            "{source}"
        );
        assert_eq!(charts.len(), 2);
        assert_eq!(charts[1].groups[0].1[1], ("upstream: single-file".to_owned(), 3.03));
    }
}
