//! The table of all points, from their records.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Result, ensure};
use serde_json::Value;

/// Whether a point is a defect, or failed.
pub fn is_bad(line: &Value) -> bool {
    matches!(line["verdict"].as_str(), Some("bad" | "error") | None)
}

/// The summary of a negative control.
///
/// # Errors
/// A point is bad in spite of the syncs, or none is bad without them.
pub fn negative_control(lines: &[Value]) -> Result<String> {
    let of = |synced: bool| lines.iter().filter(move |line| line["synced"] == synced);
    let bad = |synced| of(synced).filter(|line| is_bad(line)).count();
    let (with, without, count) = (bad(true), bad(false), of(false).count());
    ensure!(with == 0, "{with} of {count} points are bad with all syncs: a defect, or a point that did not end");
    ensure!(without > 0, "no point of {count} is bad without any sync: the points lose nothing");
    Ok(format!("negative control: {without} of {count} points are bad without any sync, and none with all of them"))
}

/// The columns of the table, as verdicts of the records.
const VERDICTS: [&str; 4] = ["previous", "new", "client", "bad"];

/// A page with a table by module, mode and the state in which the power was lost.
pub fn markdown(lines: &[Value]) -> String {
    // A point that was run again counts once, with its last record.
    let key = |line: &Value| ["machine", "module", "number"].map(|key| line[key].to_string());
    let last: BTreeMap<_, _> = lines.iter().map(|line| (key(line), line)).collect();
    let mut rows: BTreeMap<[&str; 4], [usize; 5]> = BTreeMap::new();
    for line in last.values() {
        let text = |key: &str| line[key].as_str().unwrap_or_default();
        // A point that failed may have no state.
        let state = line["state"].as_str().unwrap_or(text("moment"));
        let row = rows.entry([text("machine"), text("module"), text("mode"), state]).or_default();
        row[0] += 1;
        let verdict = if is_bad(line) { "bad" } else { text("verdict") };
        let column = VERDICTS.iter().position(|known| *known == verdict);
        column.into_iter().for_each(|column| row[column + 1] += 1);
    }
    let mut page = PREFACE.to_owned();
    page.push_str(HEADER);
    let mut total = [0; 5];
    for ([machine, module, mode, moment], counts) in &rows {
        let _ = writeln!(page, "| {machine} | {module} | {mode} | {moment} | {} |", joined(counts));
        total.iter_mut().zip(counts).for_each(|(total, count)| *total += count);
    }
    let _ = writeln!(page, "| all | | | | {} |", joined(&total));
    let seconds: Vec<_> = last.values().filter_map(|line| line["seconds"].as_u64()).collect();
    let twice = last.values().filter(|line| line["second_ms"].is_u64()).count();
    let average = seconds.iter().sum::<u64>() / u64::try_from(seconds.len().max(1)).unwrap_or(1);
    let _ = writeln!(page, "\nA point took {average} s on average. {twice} points interrupted the recovery as well.");
    page
}

fn joined(counts: &[usize; 5]) -> String {
    counts.map(|count| count.to_string()).join(" | ")
}

const PREFACE: &str = "# Power losses on the emulated Raspberry Pi

Client 3.4.0, as a daemon (managed) and called by a user (standalone). [Testing](../develop/testing.md) describes the
command. The record of every point is in [power-loss.jsonl](power-loss.jsonl), with the commit of its run. The command
above is that of the last run, which has added its points to those of earlier runs.

- **power loss in**: the last call of the module before the power loss, which may have ended. `health-check` is in
  ArtifactInstall, `shutdown` and `boot` are in the reboot that `deb` requests.
- **previous**, **new**: exactly that version is active, the file systems are clean, and the disk, `show-artifact`,
  `show-provides` and the status agree.
- **client**: what the state machine of client 3.4.0 makes inevitable. As a daemon it reports a failure after a power
  loss between the end of ArtifactCommit and the end of Cleanup: the new version is active. Without the daemon it has no
  record of an update until some time after ArtifactInstall: the new version is active until the next install, in which
  the module rolls it back. And it removes its work tree before its record: between the two, it cannot start the module,
  and `commit` and `rollback` fail; the disk has the version that they were for.
- **bad**: everything else, and points that did not end.

";

const HEADER: &str = "| machine | module | mode | power loss in | points | previous | new | client | bad |
|---|---|---|---|--:|--:|--:|--:|--:|
";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_point_counts_once_and_an_error_is_bad() {
        let line = |number: u32, verdict: &str| {
            json!({
                "number": number, "machine": "pi", "module": "deb", "mode": "managed", "moment": "Download",
                "state": (verdict != "error").then_some("SupportsRollback"),
                "verdict": verdict, "seconds": 10, "second_ms": (number == 1).then_some(5),
            })
        };
        let page = markdown(&[line(1, "bad"), line(1, "previous"), line(2, "error"), line(3, "new")]);
        assert!(page.contains("| pi | deb | managed | SupportsRollback | 2 | 1 | 1 | 0 | 0 |\n"), "{page}");
        assert!(page.contains("| pi | deb | managed | Download | 1 | 0 | 0 | 0 | 1 |\n"), "{page}");
        assert!(page.contains("| all | | | | 3 | 1 | 1 | 0 | 1 |\n"), "{page}");
        assert!(page.ends_with("10 s on average. 1 points interrupted the recovery as well.\n"), "{page}");
    }

    #[test]
    fn a_record_without_a_verdict_is_bad() {
        assert!(is_bad(&json!({})) && is_bad(&json!({"verdict": "bad"})));
        assert!(!is_bad(&json!({"verdict": "client"})));
    }

    #[test]
    fn only_the_missing_syncs_may_make_a_point_bad() {
        let line = |synced: bool, verdict: &str| json!({ "synced": synced, "verdict": verdict });
        let control = |with, without| negative_control(&[line(true, with), line(false, without)]);
        assert!(control("new", "bad").unwrap().contains("1 of 1"));
        assert!(control("bad", "bad").is_err() && control("new", "new").is_err());
    }
}
