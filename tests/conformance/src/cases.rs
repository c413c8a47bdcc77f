//! The cases, in the order in which the protocol's text has them.

use std::fs;

use anyhow::{Context, Result, ensure};
use mock_client::{Generation, MockClient, Outcome};

use crate::{Case, Subject};

/// A call that takes longer than this hangs, on a FIFO that nobody writes or on a terminal that is not there.
const LIMIT_SECONDS: &str = "60";

/// Every case.
pub const CASES: &[Case] = &[
    Case { name: "unknown-state", says: "an unknown state prints nothing and exits 0", check: unknown_state },
    Case {
        name: "one-line-answers",
        says: "a query is answered with one known line in one write",
        check: answers,
    },
    Case { name: "install-commit", says: "a whole update succeeds", check: install_commit },
    Case { name: "rollback", says: "an update can be rolled back, and again", check: rollback },
    Case {
        name: "rollback-after-commit",
        says: "a commit whose end was lost is rolled back",
        check: after_commit,
    },
    Case {
        name: "rollback-without-install",
        says: "a rollback meets an install that never began",
        check: no_install,
    },
    Case { name: "repeated-states", says: "rollback, failure and cleanup may be repeated", check: repeated },
    Case { name: "cleanup-on-half-tree", says: "Cleanup copes with a tree without header", check: half_tree },
    Case { name: "fifos-left-behind", says: "no state but Download opens the FIFOs", check: fifos },
    Case { name: "closed-stdin", says: "no state needs standard input", check: closed_stdin },
    Case {
        name: "empty-environment",
        says: "no state needs HOME, PATH or another variable",
        check: empty_environment,
    },
];

const UPDATE: &[&str] = &["Download", "ArtifactInstall", "ArtifactCommit", "Cleanup"];
const ROLLBACK: &[&str] = &["ArtifactRollback", "ArtifactFailure", "Cleanup"];
const QUERIES: &[(&str, &[&str])] = &[
    ("ProvidePayloadFileSizes", &["", "No\n", "Yes\n"]),
    ("SupportsRollback", &["", "No\n", "Yes\n"]),
    ("NeedsArtifactReboot", &["", "No\n", "Yes\n", "Automatic\n"]),
];

/// A device with the module and its settings; every call on it has a limit.
fn device(subject: &Subject, generation: Generation) -> Result<MockClient> {
    let mut device = MockClient::new(&subject.module, generation)?;
    let name = subject.module.file_name().unwrap_or_default().to_string_lossy();
    subject.payload.set_up(&device, &name)?;
    wrap(&mut device, &[]);
    Ok(device)
}

fn wrap(device: &mut MockClient, command: &[&str]) {
    device.wrap(["timeout", "--kill-after=5", LIMIT_SECONDS].iter().chain(command).copied());
}

fn step(subject: &Subject, device: &MockClient, state: &str) -> Result<Outcome> {
    if state == "Download" { device.download(&subject.payload.files()) } else { device.call(state) }
}

fn succeed(subject: &Subject, device: &MockClient, states: &[&str]) -> Result<()> {
    for state in states {
        let outcome = step(subject, device, state)?;
        ensure!(outcome.status.code() != Some(124), "{state} did not end within {LIMIT_SECONDS} s");
        ensure!(outcome.success(), "{state} failed: {outcome:?}");
    }
    Ok(())
}

fn both(subject: &Subject, check: impl Fn(&MockClient) -> Result<()>) -> Result<()> {
    for generation in [Generation::V3, Generation::V5] {
        check(&device(subject, generation)?).with_context(|| format!("with client {generation:?}"))?;
    }
    Ok(())
}

fn unknown_state(subject: &Subject) -> Result<()> {
    let device = device(subject, Generation::V5)?;
    for state in ["ArtifactTeleport", "artifactinstall", "-h", ""] {
        let outcome = device.call(state)?;
        ensure!(outcome.success() && outcome.stdout.is_empty(), "state {state:?}: {outcome:?}");
    }
    Ok(())
}

fn answers(subject: &Subject) -> Result<()> {
    let mut device = device(subject, Generation::V5)?;
    let log = device.device().join("writes");
    let log_text = log.to_string_lossy().into_owned();
    for (query, allowed) in QUERIES {
        wrap(&mut device, &["strace", "-f", "-qq", "-e", "trace=write,writev", "-o", &log_text]);
        let outcome = device.call(query)?;
        ensure!(outcome.success(), "{query} failed: {outcome:?}");
        ensure!(allowed.contains(&outcome.stdout.as_str()), "{query} is answered with {:?}", outcome.stdout);
        let calls = fs::read_to_string(&log).context("reading strace's log: is strace installed?")?;
        let writes = calls.lines().filter(|line| line.contains("(1, ")).count();
        ensure!(writes <= 1, "{query} is answered in {writes} writes");
    }
    Ok(())
}

fn install_commit(subject: &Subject) -> Result<()> {
    both(subject, |device| succeed(subject, device, UPDATE))
}

fn rollback(subject: &Subject) -> Result<()> {
    both(subject, |device| {
        for _ in 0..2 {
            succeed(subject, device, &["Download", "ArtifactInstall"])?;
            succeed(subject, device, ROLLBACK)?;
        }
        Ok(())
    })
}

fn after_commit(subject: &Subject) -> Result<()> {
    both(subject, |device| {
        succeed(subject, device, &["Download", "ArtifactInstall", "ArtifactCommit"])?;
        succeed(subject, device, ROLLBACK)
    })
}

fn no_install(subject: &Subject) -> Result<()> {
    both(subject, |device| {
        succeed(subject, device, &["Download"])?;
        succeed(subject, device, ROLLBACK)
    })
}

fn repeated(subject: &Subject) -> Result<()> {
    both(subject, |device| {
        succeed(subject, device, &["Download", "ArtifactInstall"])?;
        for state in ROLLBACK {
            succeed(subject, device, &[state, state])?;
        }
        Ok(())
    })
}

fn half_tree(subject: &Subject) -> Result<()> {
    let device = device(subject, Generation::V5)?;
    fs::create_dir_all(device.tree().join("streams")).context("making half a tree")?;
    succeed(subject, &device, &["Cleanup"])?;
    device.delete_tree()?;
    succeed(subject, &device, &["Cleanup"])
}

fn fifos(subject: &Subject) -> Result<()> {
    let device = device(subject, Generation::V5)?;
    succeed(subject, &device, &["Download"])?;
    ensure!(device.tree().join("stream-next").exists(), "the played client left no FIFO behind");
    succeed(subject, &device, &UPDATE[1..])
}

fn closed_stdin(subject: &Subject) -> Result<()> {
    let mut device = device(subject, Generation::V5)?;
    wrap(&mut device, &["sh", "-c", "exec \"$@\" <&-", "sh"]);
    succeed(subject, &device, UPDATE)
}

fn empty_environment(subject: &Subject) -> Result<()> {
    let mut device = device(subject, Generation::V5)?;
    wrap(&mut device, &["/usr/bin/env", "--unset=PATH"]);
    succeed(subject, &device, UPDATE)
}
