//! The cases, in the order of the protocol's text.

use std::fs;

use crate::Generation;
use anyhow::{Context, Result, ensure};

use crate::conformance::trial::{Trial, same, supports_rollback};
use crate::conformance::{Case, Subject};

/// Every case.
pub const CASES: &[Case] = &[
    case("unknown-state", "an unknown state prints nothing, changes nothing and exits with 0", unknown_state),
    case("one-line-answers", "a query is answered with one valid line, in one write", answers),
    case("install-commit", "an update installs exactly the new version", install_commit),
    case("update-again", "the same artifact can be installed again, and rolled back", update_again),
    case_of_rollback("rollback", "an update can be rolled back, repeatedly", rollback),
    case_of_rollback("rollback-is-exact", "rollback restores owner, mode, attributes and times", exact_rollback),
    case_of_rollback("rollback-to-nothing", "a first install can be rolled back", first_install),
    case_of_rollback("rollback-after-commit", "an interrupted commit can be rolled back", after_commit),
    case_of_rollback("rollback-without-install", "rollback succeeds if the install never began", no_install),
    case("repeated-states", "ArtifactRollback, ArtifactFailure and Cleanup can be repeated", repeated),
    case("interrupted-download", "Cleanup ends an interrupted download, and the next succeeds", interrupted_download),
    case("failing-download", "a Download that fails reads stream-next before it ends", failing_download),
    case("incomplete-tree", "Cleanup succeeds with a work tree without header, and without one", incomplete_tree),
    case("fifos-left-behind", "only Download opens the FIFOs", fifos),
    case("no-stdin", "no state reads standard input", no_stdin),
    case("empty-environment", "no state needs an environment variable", empty_environment),
    case("spaces-in-paths", "paths of work tree and destination can contain spaces", spaces),
];

const fn case(name: &'static str, rule: &'static str, check: fn(&Subject) -> Result<()>) -> Case {
    Case { name, rule, of_rollback: false, check }
}

const fn case_of_rollback(name: &'static str, rule: &'static str, check: fn(&Subject) -> Result<()>) -> Case {
    Case { name, rule, of_rollback: true, check }
}

const UPDATE: &[&str] = &["Download", "ArtifactInstall", "ArtifactCommit", "Cleanup"];
const ROLLBACK: &[&str] = &["ArtifactRollback", "ArtifactFailure", "Cleanup"];
const QUERIES: &[(&str, &[&str])] = &[
    ("ProvidePayloadFileSizes", &["", "No\n", "Yes\n"]),
    ("SupportsRollback", &["", "No\n", "Yes\n"]),
    ("NeedsArtifactReboot", &["", "No\n", "Yes\n", "Automatic\n"]),
];

fn both(subject: &Subject, check: impl Fn(&Trial) -> Result<()>) -> Result<()> {
    for generation in [Generation::V3, Generation::V5] {
        check(&Trial::new(subject, generation)?).with_context(|| format!("with client {generation:?}"))?;
    }
    Ok(())
}

fn unknown_state(subject: &Subject) -> Result<()> {
    let trial = Trial::new(subject, Generation::V5)?;
    let previous = trial.active()?;
    for state in ["ArtifactTeleport", "artifactinstall", "-h", ""] {
        let outcome = trial.device.call(state)?;
        ensure!(outcome.success() && outcome.stdout.is_empty(), "state {state:?}: {outcome}");
    }
    trial.is_again(&previous)
}

fn answers(subject: &Subject) -> Result<()> {
    let mut trial = Trial::new(subject, Generation::V5)?;
    let log = trial.device.device().join("writes");
    let log_text = log.to_string_lossy().into_owned();
    for (query, allowed) in QUERIES {
        trial.wrap(&["strace", "-f", "-qq", "-e", "trace=write,writev", "-o", &log_text]);
        let outcome = trial.device.call(query)?;
        ensure!(outcome.success(), "{query} failed: {outcome}");
        ensure!(allowed.contains(&outcome.stdout.as_str()), "{query}: invalid answer {:?}", outcome.stdout);
        let calls = fs::read_to_string(&log).context("reading the log of strace failed: install strace")?;
        let writes = calls.lines().filter(|line| line.contains("(1, ")).count();
        ensure!(writes <= 1, "{query}: answered in {writes} writes instead of one");
    }
    Ok(())
}

fn install_commit(subject: &Subject) -> Result<()> {
    both(subject, |trial| {
        trial.succeed(UPDATE)?;
        trial.is_new()
    })
}

fn update_again(subject: &Subject) -> Result<()> {
    let rollback = supports_rollback(subject)?;
    both(subject, |trial| {
        trial.succeed(UPDATE)?;
        trial.succeed(UPDATE)?;
        trial.is_new()?;
        if rollback {
            let previous = trial.active()?;
            trial.succeed(&["Download", "ArtifactInstall"])?;
            trial.succeed(ROLLBACK)?;
            trial.is_again(&previous).context("after a rollback to the same artifact")?;
        }
        Ok(())
    })
}

fn rollback(subject: &Subject) -> Result<()> {
    both(subject, |trial| {
        let previous = trial.active()?;
        for _ in 0..2 {
            trial.succeed(&["Download", "ArtifactInstall"])?;
            trial.succeed(ROLLBACK)?;
            trial.is_again(&previous)?;
        }
        Ok(())
    })
}

fn exact_rollback(subject: &Subject) -> Result<()> {
    both(subject, |trial| {
        let previous = trial.set_unusual_attributes()?;
        trial.succeed(&["Download", "ArtifactInstall"])?;
        trial.succeed(ROLLBACK)?;
        same(&trial.destination()?, &previous)
    })
}

fn first_install(subject: &Subject) -> Result<()> {
    for generation in [Generation::V3, Generation::V5] {
        let trial = Trial::without_previous(subject, generation)?;
        let previous = trial.active()?;
        trial.succeed(&["Download", "ArtifactInstall"])?;
        trial.succeed(ROLLBACK)?;
        trial.is_again(&previous)?;
    }
    Ok(())
}

fn after_commit(subject: &Subject) -> Result<()> {
    both(subject, |trial| {
        let previous = trial.active()?;
        trial.succeed(&["Download", "ArtifactInstall", "ArtifactCommit"])?;
        trial.succeed(ROLLBACK)?;
        trial.is_again(&previous)
    })
}

fn no_install(subject: &Subject) -> Result<()> {
    both(subject, |trial| {
        let previous = trial.active()?;
        trial.succeed(&["Download"])?;
        trial.succeed(ROLLBACK)?;
        trial.is_again(&previous)
    })
}

/// After a power loss the client calls these states again.
fn repeated(subject: &Subject) -> Result<()> {
    let rollback = supports_rollback(subject)?;
    both(subject, |trial| {
        trial.succeed(UPDATE)?;
        trial.succeed(&["Cleanup", "Cleanup"])?;
        trial.is_new()
    })?;
    both(subject, |trial| {
        let previous = trial.active()?;
        trial.succeed(&["Download", "ArtifactInstall"])?;
        let states = if rollback { ROLLBACK } else { &ROLLBACK[1..] };
        for state in states {
            trial.succeed(&[state, state])?;
        }
        if rollback { trial.is_again(&previous) } else { Ok(()) }
    })
}

fn interrupted_download(subject: &Subject) -> Result<()> {
    both(subject, |trial| {
        let previous = trial.active()?;
        trial.interrupt_download()?;
        trial.succeed(&["Cleanup"])?;
        trial.is_again(&previous)?;
        trial.succeed(UPDATE)?;
        trial.is_new()
    })
}

fn incomplete_tree(subject: &Subject) -> Result<()> {
    let trial = Trial::new(subject, Generation::V5)?;
    let previous = trial.active()?;
    fs::create_dir_all(trial.device.tree().join("streams")).context("making an incomplete work tree failed")?;
    trial.succeed(&["Cleanup"])?;
    trial.device.delete_tree()?;
    trial.succeed(&["Cleanup"])?;
    trial.is_again(&previous)
}

/// Client 3.4.0 hangs if a module ends with an error before the client has offered a file. Meta-data that are no JSON
/// make many modules fail; another one passes.
fn failing_download(subject: &Subject) -> Result<()> {
    for generation in [Generation::V3, Generation::V5] {
        let mut trial = Trial::new(subject, generation)?;
        let previous = trial.active()?;
        trial.device.set_meta_data("{");
        let (outcome, asked) = trial.observed_download()?;
        ensure!(
            outcome.success() || asked,
            "Download failed and did not read stream-next, so that client 3.4.0 hangs: {outcome}"
        );
        trial.succeed(&["Cleanup"])?;
        trial.is_again(&previous)?;
    }
    Ok(())
}

fn fifos(subject: &Subject) -> Result<()> {
    let trial = Trial::new(subject, Generation::V5)?;
    trial.succeed(&["Download"])?;
    ensure!(trial.device.tree().join("stream-next").exists(), "the mock client left no FIFO behind");
    trial.succeed(&UPDATE[1..])
}

/// Standard input is closed; or a FIFO that the call itself holds open for writing, so that a read blocks for ever.
fn no_stdin(subject: &Subject) -> Result<()> {
    for script in
        ["exec \"$@\" <&-", "fifo=$0; mkfifo -- \"$fifo\"; exec 3<>\"$fifo\"; rm -- \"$fifo\"; exec \"$@\" <&3 3<&-"]
    {
        let mut trial = Trial::new(subject, Generation::V5)?;
        let fifo = trial.device.settings().join("standard-input");
        trial.wrap(&["sh", "-c", script, &fifo.to_string_lossy()]);
        trial.succeed(UPDATE).with_context(|| format!("with {script}"))?;
        trial.is_new()?;
    }
    Ok(())
}

fn empty_environment(subject: &Subject) -> Result<()> {
    let mut trial = Trial::new(subject, Generation::V5)?;
    trial.wrap(&["/usr/bin/env", "--unset=PATH"]);
    trial.succeed(UPDATE)?;
    trial.is_new()
}

fn spaces(subject: &Subject) -> Result<()> {
    let rollback = supports_rollback(subject)?;
    for generation in [Generation::V3, Generation::V5] {
        let trial = Trial::with_spaces(subject, generation)?;
        let previous = trial.active()?;
        if rollback {
            trial.succeed(&["Download", "ArtifactInstall"])?;
            trial.succeed(ROLLBACK)?;
            trial.is_again(&previous)?;
        }
        trial.succeed(UPDATE)?;
        trial.is_new()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::states_from;

    #[test]
    fn the_cases_call_the_states_in_the_order_of_the_protocol() {
        assert_eq!(states_from("Download"), UPDATE);
        assert_eq!(states_from("ArtifactRollback"), ROLLBACK);
    }
}
