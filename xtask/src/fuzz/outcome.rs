//! The outcome of a target: the counts that libFuzzer prints, and the crash, if there is one.

use std::collections::BTreeMap;

use anyhow::{Error, Result};
use serde_json::{Value, json};

/// What a run of one target did.
pub struct Outcome {
    target: String,
    /// The number of inputs.
    pub runs: u64,
    /// The number of new files in the corpus.
    new: u64,
    /// The peak memory in MiB.
    memory: u64,
    /// The processor time in seconds.
    processor: f64,
    failure: Option<String>,
}

impl Outcome {
    /// The outcome of `target`, which printed `text` and ended with `result`.
    pub fn of(target: &str, text: &str, result: Result<()>) -> Self {
        let count = |name: &str| {
            let value = text.lines().rev().find_map(|line| line.strip_prefix("stat::")?.strip_prefix(name));
            value.and_then(|value| value.trim_start_matches(':').trim().parse().ok()).unwrap_or_default()
        };
        Self {
            target: target.to_owned(),
            runs: count("number_of_executed_units"),
            new: count("new_units_added"),
            memory: count("peak_rss_mb"),
            processor: text.lines().last().map(processor_time).unwrap_or_default(),
            failure: result.err().map(|error| failure(target, text, &error)),
        }
    }

    /// The counts, or the failure with the input and the remedy.
    pub fn result(&self) -> Result<String> {
        match &self.failure {
            Some(failure) => Err(Error::msg(failure.clone())),
            None => Ok(format!("{} runs, {} new files in the corpus", self.runs, self.new)),
        }
    }

    /// The record of a run from `commit`.
    pub fn json(&self, commit: &str) -> Value {
        let Self { target, runs, new, memory, processor, failure } = self;
        json!({
            "commit": commit,
            "target": target,
            "runs": runs,
            "cpu_seconds": processor,
            "new_files": new,
            "peak_mib": memory,
            "failure": failure,
        })
    }

    fn runs_per_second(&self) -> f64 {
        if self.processor > 0.0 { self.runs as f64 / self.processor } else { 0.0 }
    }
}

/// The processor time in seconds, of the programs that a shell has run: the last line of its `times`, such as
/// `1m2.50s 0m0.25s`.
fn processor_time(line: &str) -> f64 {
    let seconds = |time: &str| {
        let (minutes, seconds) = time.strip_suffix('s')?.split_once('m')?;
        Some(minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?)
    };
    line.split_whitespace().filter_map(seconds).sum()
}

/// The message for a target that failed with `error`.
fn failure(target: &str, text: &str, error: &Error) -> String {
    let input = text.lines().find_map(|line| Some(line.split_once("Test unit written to ")?.1.trim()));
    let Some(input) = input else { return format!("{target}: {error:#}") };
    let reasons = ["panicked at", "ERROR: libFuzzer:", "ERROR: AddressSanitizer:"];
    let at = text.lines().position(|line| reasons.iter().any(|reason| line.contains(reason))).unwrap_or_default();
    let reason: Vec<_> = text.lines().skip(at).take(2).map(str::trim).collect();
    format!(
        "{target}: {}\n    input: {input}\n    reproduce it with: cargo xtask fuzz {target} --input {input}\n    when it \
         is fixed, copy it to fuzz/corpus/{target}",
        reason.join(" ")
    )
}

/// The outcomes as a table.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut lines = vec![format!(
        "{:<14} {:>12} {:>10} {:>8} {:>10} {:>10}  result",
        "target", "runs", "runs/CPU s", "CPU s", "new files", "peak MiB"
    )];
    for outcome in outcomes {
        let Outcome { target, runs, new, memory, processor, failure } = outcome;
        let result = if failure.is_some() { "CRASH" } else { "ok" };
        let rate = outcome.runs_per_second();
        lines.push(format!("{target:<14} {runs:>12} {rate:>10.0} {processor:>8.1} {new:>10} {memory:>10}  {result}"));
    }
    lines.join("\n")
}

/// A page with the sums of all runs by target.
pub fn markdown(records: &[Value]) -> String {
    /// Of one target: runs, processor time in seconds, files, MiB, failures.
    #[derive(Default)]
    struct Sum(u64, f64, u64, u64, u64);

    let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
    for record in records {
        let count = |key: &str| record[key].as_u64().unwrap_or_default();
        let sum = sums.entry(record["target"].as_str().unwrap_or_default()).or_default();
        sum.0 += count("runs");
        sum.1 += record["cpu_seconds"].as_f64().unwrap_or_default();
        sum.2 += count("new_files");
        sum.3 = sum.3.max(count("peak_mib"));
        sum.4 += u64::from(!record["failure"].is_null());
    }
    let mut page = PREFACE.to_owned();
    for (target, Sum(runs, processor, new, memory, failures)) in sums {
        let minutes = processor / 60.0;
        page.push_str(&format!("| `{target}` | {runs} | {minutes:.0} | {new} | {memory} | {failures} |\n"));
    }
    page
}

const PREFACE: &str = "# Fuzzing

The sums of all runs; the command above is that of the last one. The record of every run is in
[fuzz.jsonl](fuzz.jsonl), with its commit. [Testing](../develop/testing.md#fuzzing) describes the command.

- **inputs**: the inputs that libFuzzer has made and the parser has read, with AddressSanitizer.
- **CPU min**: the processor time in minutes.
- **crashes**: runs that ended with a panic, an error of AddressSanitizer, or at a limit of time or memory.

| target | inputs | CPU min | new files in the corpus | peak MiB | crashes |
|---|--:|--:|--:|--:|--:|
";

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    const STATISTICS: &str = "#2\tINITED\nstat::number_of_executed_units: 1000\nstat::average_exec_per_sec:     9\n\
        stat::new_units_added:          7\nstat::peak_rss_mb:              400\n0m0.00s 0m0.00s\n1m2.50s 0m0.25s\n";

    #[test]
    fn counts_are_those_that_libfuzzer_prints() {
        let outcome = Outcome::of("a", STATISTICS, Ok(()));
        assert_eq!((outcome.runs, outcome.new, outcome.memory, outcome.processor), (1000, 7, 400, 62.75));
        assert_eq!(outcome.result().unwrap(), "1000 runs, 7 new files in the corpus");
        let table = table(&[outcome]);
        assert!(table.ends_with("        1000         16     62.8          7        400  ok"), "{table}");
    }

    #[test]
    fn runs_of_a_target_are_added() {
        let of = |target: &str, result| Outcome::of(target, STATISTICS, result).json("1234567");
        let page = markdown(&[of("b", Ok(())), of("a", Ok(())), of("b", Err(anyhow!("exit status: 1")))]);
        assert!(page.ends_with("| `a` | 1000 | 1 | 7 | 400 | 0 |\n| `b` | 2000 | 2 | 14 | 400 | 1 |\n"), "{page}");
    }

    #[test]
    fn a_crash_names_its_input_and_the_command_that_repeats_it() {
        let text = "thread panicked at src/lib.rs:1:2:\na reason\nartifact_prefix='/c/'; Test unit written to /c/x\n";
        let error = Outcome::of("a", text, Err(anyhow!("exit status: 77"))).result().unwrap_err().to_string();
        for part in ["panicked at src/lib.rs:1:2: a reason", "cargo xtask fuzz a --input /c/x", "fuzz/corpus/a"] {
            assert!(error.contains(part), "{part:?} is missing in {error}");
        }
        let error = Outcome::of("a", "", Err(anyhow!("exit status: 1"))).result().unwrap_err().to_string();
        assert_eq!(error, "a: exit status: 1");
    }
}
