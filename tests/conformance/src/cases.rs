//! The cases, in the order in which the protocol's text has them.

use std::fs;

use anyhow::{Context, Result, ensure};
use mock_client::Generation;

use crate::trial::{Trial, same, supports_rollback};
use crate::{Case, Subject};

/// Every case.
pub const CASES: &[Case] = &[
    case("unknown-state", "an unknown state prints nothing, does nothing and exits 0", unknown_state),
    case("one-line-answers", "a query is answered with one known line in one write", answers),
    case("install-commit", "a whole update makes the new, all of it and nothing else", install_commit),
    case("update-again", "the same artifact can be installed again, and that taken back", update_again),
    case_of_rollback("rollback", "an update can be rolled back, and again", rollback),
    case_of_rollback("rollback-is-exact", "owner, mode, attributes and times come back", exact_rollback),
    case_of_rollback("rollback-to-nothing", "a first install can be rolled back, too", first_install),
    case_of_rollback("rollback-after-commit", "a commit whose end was lost is rolled back", after_commit),
    case_of_rollback("rollback-without-install", "a rollback meets an install that never began", no_install),
    case("repeated-states", "rollback, failure and cleanup may be repeated", repeated),
    case("download-cut", "Cleanup ends a download that was cut, and the next succeeds", download_cut),
    case("cleanup-on-half-tree", "Cleanup copes with a tree without header, and with none", half_tree),
    case("fifos-left-behind", "no state but Download opens the FIFOs", fifos),
    case("no-stdin", "no state reads standard input, be it closed or silent", no_stdin),
    case("empty-environment", "no state needs HOME, PATH or another variable", empty_environment),
    case("blanks-in-paths", "blanks in the paths of tree and destination do no harm", blanks),
];

const fn case(name: &'static str, says: &'static str, check: fn(&Subject) -> Result<()>) -> Case {
    Case { name, says, of_rollback: false, check }
}

const fn case_of_rollback(name: &'static str, says: &'static str, check: fn(&Subject) -> Result<()>) -> Case {
    Case { name, says, of_rollback: true, check }
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
    let old = trial.live()?;
    for state in ["ArtifactTeleport", "artifactinstall", "-h", ""] {
        let outcome = trial.device.call(state)?;
        ensure!(outcome.success() && outcome.stdout.is_empty(), "state {state:?}: {outcome:?}");
    }
    trial.is_again(&old)
}

fn answers(subject: &Subject) -> Result<()> {
    let mut trial = Trial::new(subject, Generation::V5)?;
    let log = trial.device.device().join("writes");
    let log_text = log.to_string_lossy().into_owned();
    for (query, allowed) in QUERIES {
        trial.wrap(&["strace", "-f", "-qq", "-e", "trace=write,writev", "-o", &log_text]);
        let outcome = trial.device.call(query)?;
        ensure!(outcome.success(), "{query} failed: {outcome:?}");
        ensure!(allowed.contains(&outcome.stdout.as_str()), "{query} is answered with {:?}", outcome.stdout);
        let calls = fs::read_to_string(&log).context("reading strace's log: is strace installed?")?;
        let writes = calls.lines().filter(|line| line.contains("(1, ")).count();
        ensure!(writes <= 1, "{query} is answered in {writes} writes");
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
            let old = trial.live()?;
            trial.succeed(&["Download", "ArtifactInstall"])?;
            trial.succeed(ROLLBACK)?;
            trial.is_again(&old).context("rolled back to the same artifact")?;
        }
        Ok(())
    })
}

fn rollback(subject: &Subject) -> Result<()> {
    both(subject, |trial| {
        let old = trial.live()?;
        for _ in 0..2 {
            trial.succeed(&["Download", "ArtifactInstall"])?;
            trial.succeed(ROLLBACK)?;
            trial.is_again(&old)?;
        }
        Ok(())
    })
}

fn exact_rollback(subject: &Subject) -> Result<()> {
    both(subject, |trial| {
        let old = trial.make_peculiar()?;
        trial.succeed(&["Download", "ArtifactInstall"])?;
        trial.succeed(ROLLBACK)?;
        same(&trial.peculiar()?, &old)
    })
}

fn first_install(subject: &Subject) -> Result<()> {
    for generation in [Generation::V3, Generation::V5] {
        let trial = Trial::without_old(subject, generation)?;
        let old = trial.live()?;
        trial.succeed(&["Download", "ArtifactInstall"])?;
        trial.succeed(ROLLBACK)?;
        trial.is_again(&old)?;
    }
    Ok(())
}

fn after_commit(subject: &Subject) -> Result<()> {
    both(subject, |trial| {
        let old = trial.live()?;
        trial.succeed(&["Download", "ArtifactInstall", "ArtifactCommit"])?;
        trial.succeed(ROLLBACK)?;
        trial.is_again(&old)
    })
}

fn no_install(subject: &Subject) -> Result<()> {
    both(subject, |trial| {
        let old = trial.live()?;
        trial.succeed(&["Download"])?;
        trial.succeed(ROLLBACK)?;
        trial.is_again(&old)
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
        let old = trial.live()?;
        trial.succeed(&["Download", "ArtifactInstall"])?;
        let states = if rollback { ROLLBACK } else { &ROLLBACK[1..] };
        for state in states {
            trial.succeed(&[state, state])?;
        }
        if rollback { trial.is_again(&old) } else { Ok(()) }
    })
}

fn download_cut(subject: &Subject) -> Result<()> {
    both(subject, |trial| {
        let old = trial.live()?;
        trial.cut_download()?;
        trial.succeed(&["Cleanup"])?;
        trial.is_again(&old)?;
        trial.succeed(UPDATE)?;
        trial.is_new()
    })
}

fn half_tree(subject: &Subject) -> Result<()> {
    let trial = Trial::new(subject, Generation::V5)?;
    let old = trial.live()?;
    fs::create_dir_all(trial.device.tree().join("streams")).context("making half a tree")?;
    trial.succeed(&["Cleanup"])?;
    trial.device.delete_tree()?;
    trial.succeed(&["Cleanup"])?;
    trial.is_again(&old)
}

fn fifos(subject: &Subject) -> Result<()> {
    let trial = Trial::new(subject, Generation::V5)?;
    trial.succeed(&["Download"])?;
    ensure!(trial.device.tree().join("stream-next").exists(), "the played client left no FIFO behind");
    trial.succeed(&UPDATE[1..])
}

/// Closed, and with a FIFO that the call itself holds open for writing: whoever reads it waits for ever.
fn no_stdin(subject: &Subject) -> Result<()> {
    for script in [
        "exec \"$@\" <&-",
        "fifo=$0; mkfifo -- \"$fifo\"; exec 3<>\"$fifo\"; rm -- \"$fifo\"; exec \"$@\" <&3 3<&-",
    ] {
        let mut trial = Trial::new(subject, Generation::V5)?;
        let fifo = trial.device.settings().join("standard-input");
        trial.wrap(&["sh", "-c", script, &fifo.to_string_lossy()]);
        trial.succeed(UPDATE).with_context(|| format!("called as {script}"))?;
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

fn blanks(subject: &Subject) -> Result<()> {
    let rollback = supports_rollback(subject)?;
    for generation in [Generation::V3, Generation::V5] {
        let trial = Trial::with_blanks(subject, generation)?;
        let old = trial.live()?;
        if rollback {
            trial.succeed(&["Download", "ArtifactInstall"])?;
            trial.succeed(ROLLBACK)?;
            trial.is_again(&old)?;
        }
        trial.succeed(UPDATE)?;
        trial.is_new()?;
    }
    Ok(())
}
