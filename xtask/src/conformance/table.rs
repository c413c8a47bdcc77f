//! The table: a row for each case, a column for each module, and the failures below.

use std::fmt;

use anyhow::Result;
use mender_update_module_test::conformance::{self, Verdict};
use test_report::Case;

use crate::record::{self, Record};

/// The results of all modules.
pub struct Table<'a> {
    /// The rows.
    pub cases: &'a [&'static conformance::Case],
    /// The columns.
    pub columns: Vec<Column>,
}

/// The results of one module.
pub struct Column {
    /// "ours" or "upstream", and the name.
    pub title: String,
    /// Whether its failures count.
    pub ours: bool,
    /// In the order of the cases.
    pub verdicts: Vec<Result<Verdict>>,
}

impl Table<'_> {
    /// How many cases were run on our modules, and how many failed.
    pub fn of_ours(&self) -> (usize, usize) {
        let verdicts = || self.columns.iter().filter(|column| column.ours).flat_map(|column| &column.verdicts);
        let tried = verdicts().filter(|verdict| !matches!(verdict, Ok(Verdict::NotApplicable)));
        (tried.count(), verdicts().filter(|verdict| verdict.is_err()).count())
    }

    /// Adds the cases of our modules to `record`.
    pub fn record(&self, record: &Record) {
        for column in self.columns.iter().filter(|column| column.ours) {
            for (case, verdict) in self.cases.iter().zip(&column.verdicts) {
                let verdict = match verdict {
                    Ok(Verdict::NotApplicable) => test_report::Verdict::Passed("not applicable".to_owned()),
                    other => test_report::Verdict::from(other),
                };
                let description = case.rule.to_owned();
                record.add(Case { description, ..record::case(&column.title, case.name, verdict) });
            }
        }
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.cases.iter().map(|case| case.name.len()).max().unwrap_or_default();
        write!(formatter, "{:first$}", "")?;
        for Column { title, .. } in &self.columns {
            write!(formatter, "  {title}")?;
        }
        for (row, case) in self.cases.iter().enumerate() {
            write!(formatter, "\n{:first$}", case.name)?;
            for column in &self.columns {
                write!(formatter, "  {:<width$}", word(&column.verdicts[row]), width = column.title.len())?;
            }
            write!(formatter, "  {}", case.rule)?;
        }
        for column in &self.columns {
            for (case, verdict) in self.cases.iter().zip(&column.verdicts) {
                if let Err(error) = verdict {
                    write!(formatter, "\nFAIL {}, {}: {error:#}", column.title, case.name)?;
                }
            }
        }
        Ok(())
    }
}

fn word(verdict: &Result<Verdict>) -> &'static str {
    match verdict {
        Ok(Verdict::Passed) => "ok",
        Ok(Verdict::NotApplicable) => "n/a",
        Err(_) => "FAIL",
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;
    use mender_update_module_test::conformance::CASES;

    use super::*;

    #[test]
    fn failures_of_upstream_are_shown_and_do_not_count() {
        let cases: Vec<_> = CASES.iter().take(2).collect();
        let column = |title: &str, ours, verdicts| Column { title: title.into(), ours, verdicts };
        let columns = vec![
            column("ours: x", true, vec![Ok(Verdict::Passed), Ok(Verdict::NotApplicable)]),
            column("upstream: x", false, vec![Err(anyhow!("a reason").context("Cleanup")), Ok(Verdict::Passed)]),
        ];
        let table = Table { cases: &cases, columns };
        let text = table.to_string();
        assert!(text.contains("  ours: x  upstream: x\n"), "{text}");
        assert!(text.contains("unknown-state     ok       FAIL         an unknown"), "{text}");
        assert!(text.ends_with("\nFAIL upstream: x, unknown-state: Cleanup: a reason"), "{text}");
        assert_eq!(table.of_ours(), (1, 0));
    }
}
