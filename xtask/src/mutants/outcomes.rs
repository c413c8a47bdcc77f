//! The outcomes of mutants: what cargo-mutants writes, the records, and the table of both.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

const CAUGHT: &str = "caught";
const MISSED: &str = "missed";
const TIMEOUT: &str = "timeout";
const UNVIABLE: &str = "unviable";

/// The outcomes by the names of the mutants: file, position and change.
#[derive(Clone, Default)]
pub struct Outcomes(pub BTreeMap<String, String>);

impl Outcomes {
    /// Reads the lists that cargo-mutants has written to `directory`: a file for each outcome, with a name in each
    /// line.
    pub fn read(directory: &Path) -> Result<Self> {
        let mut all = BTreeMap::new();
        for outcome in [CAUGHT, MISSED, TIMEOUT, UNVIABLE] {
            let path = directory.join(outcome).with_extension("txt");
            let names = fs::read_to_string(&path).with_context(|| format!("reading {} failed", path.display()))?;
            all.extend(names.lines().map(|name| (name.to_owned(), outcome.to_owned())));
        }
        Ok(Self(all))
    }

    /// Checks that these are the outcomes of all mutants of the run that wrote to `directory`.
    ///
    /// # Errors
    /// When the run ended early.
    pub fn require_all(&self, directory: &Path) -> Result<()> {
        let path = directory.join("mutants.json");
        let text = fs::read(&path).with_context(|| format!("reading {} failed", path.display()))?;
        let chosen: Vec<Value> =
            serde_json::from_slice(&text).with_context(|| format!("invalid {}", path.display()))?;
        let (tried, all) = (self.0.len(), chosen.len());
        ensure!(tried == all, "cargo-mutants ended early: {tried} of {all} mutants were tried: run it again");
        Ok(())
    }

    /// The last outcome of each mutant in `records`.
    pub fn of_records(records: &[Value]) -> Self {
        let text = |record: &Value, key: &str| record[key].as_str().unwrap_or_default().to_owned();
        Self(records.iter().map(|record| (text(record, "mutant"), text(record, "outcome"))).collect())
    }

    /// The outcomes of those mutants that are among `names`: a record of code that has changed says nothing.
    pub fn of(mut self, names: &[String]) -> Self {
        self.0.retain(|name, _| names.contains(name));
        self
    }

    /// The outcomes of the mutants that a test has noticed, or that do not compile.
    pub fn without_missed(&self) -> Self {
        Self(self.0.clone().into_iter().filter(|(_, outcome)| outcome != MISSED).collect())
    }

    /// The records of a run from `commit`.
    pub fn json(&self, commit: &str) -> Vec<Value> {
        let record = |(mutant, outcome)| json!({ "commit": commit, "mutant": mutant, "outcome": outcome });
        self.0.iter().map(record).collect()
    }

    /// Replaces the outcomes of the mutants that are in `other`.
    pub fn replace(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The names of the mutants that no test noticed.
    pub fn missed(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(_, outcome)| *outcome == MISSED).map(|(name, _)| name.as_str())
    }

    fn count(&self, outcome: &str) -> usize {
        self.0.values().filter(|other| *other == outcome).count()
    }

    /// The counts as a table, and the names of what is missed.
    pub fn table(&self) -> String {
        let [caught, timeout, unviable, missed] =
            [CAUGHT, TIMEOUT, UNVIABLE, MISSED].map(|outcome| self.count(outcome));
        let names: String = self.missed().map(|name| format!("{name}\n")).collect();
        let list = if missed == 0 { String::new() } else { format!("\nNot noticed:\n\n```text\n{names}```\n") };
        format!(
            "| mutants | found by a test | found by a time limit | do not compile | not noticed |\n|--:|--:|--:|--:|--:|\n\
             | {} | {caught} | {timeout} | {unviable} | {missed} |\n{list}",
            self.0.len()
        )
    }
}

impl fmt::Display for Outcomes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = self.count(CAUGHT) + self.count(TIMEOUT);
        let viable = self.0.len() - self.count(UNVIABLE);
        write!(formatter, "{found} of {viable} mutants noticed, {} do not compile", self.count(UNVIABLE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The outcomes of mutants with these numbers: caught, missed, timeout, unviable.
    fn outcomes(numbers: [&[u32]; 4]) -> Outcomes {
        let directory = tempfile::tempdir().unwrap();
        for (outcome, numbers) in [CAUGHT, MISSED, TIMEOUT, UNVIABLE].iter().zip(numbers) {
            let names: String = numbers.iter().map(|number| format!("a.rs:{number}\n")).collect();
            fs::write(directory.path().join(outcome).with_extension("txt"), names).unwrap();
        }
        Outcomes::read(directory.path()).unwrap()
    }

    #[test]
    fn the_table_names_what_is_not_noticed() {
        let outcomes = outcomes([&[0], &[1], &[2], &[3]]);
        let table = outcomes.table();
        assert!(table.contains("| 4 | 1 | 1 | 1 | 1 |") && table.contains("\na.rs:1\n"), "{table}");
        assert_eq!(outcomes.to_string(), "2 of 3 mutants noticed, 1 do not compile");
    }

    #[test]
    fn the_last_outcome_of_a_mutant_counts() {
        let mut first = outcomes([&[0], &[1], &[], &[]]);
        let mut records = first.json("1");
        let second = outcomes([&[0, 1], &[], &[], &[]]);
        records.extend(second.json("2"));
        assert_eq!(Outcomes::of_records(&records).missed().count(), 0);
        first.replace(second);
        assert_eq!(first.missed().count(), 0);
    }

    #[test]
    fn mutants_of_other_code_do_not_count() {
        let outcomes = outcomes([&[0], &[1], &[], &[]]).of(&["a.rs:0".to_owned()]);
        assert_eq!(outcomes.to_string(), "1 of 1 mutants noticed, 0 do not compile");
    }

    #[test]
    fn what_is_not_noticed_is_left_out_of_the_others() {
        let others = outcomes([&[0], &[1], &[2], &[3]]).without_missed();
        assert_eq!(others.0.into_keys().collect::<Vec<_>>(), ["a.rs:0", "a.rs:2", "a.rs:3"]);
    }

    #[test]
    fn a_run_that_ended_early_is_an_error() {
        let (outcomes, directory) = (outcomes([&[0], &[1], &[], &[]]), tempfile::tempdir().unwrap());
        let check = |text: &str| {
            fs::write(directory.path().join("mutants.json"), text).unwrap();
            outcomes.require_all(directory.path())
        };
        check("[{}, {}]").unwrap();
        assert!(check("[{}, {}, {}]").unwrap_err().to_string().contains("2 of 3 mutants were tried"));
        assert!(check("[{").is_err());
    }

    #[test]
    fn missing_lists_are_an_error() {
        assert!(Outcomes::read(Path::new("/does/not/exist")).is_err());
    }
}
