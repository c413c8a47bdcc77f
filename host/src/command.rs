//! One way to run a command: output kept, its newest line shown, and an error that names the
//! command line and what it said last.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};

use crate::status::Step;

/// Lines of output that an error shows.
const TAIL: usize = 30;

/// What a command has said.
pub struct Output {
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Runs `command` without standard input, shows its newest line in `step`, and returns its standard output.
///
/// # Errors
/// When it cannot be started or exits with anything but 0: the command line, its exit status and its last lines.
pub fn run(step: &Step, command: impl Into<Command>) -> Result<String> {
    Ok(output(step, command)?.stdout)
}

/// As [`run`], with what it wrote to standard error too.
///
/// # Errors
/// As [`run`].
pub fn output(step: &Step, command: impl Into<Command>) -> Result<Output> {
    let mut command = command.into();
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {shown}"))?;
    let stdout = child.stdout.take().context("the child's standard output is piped")?;
    let stderr = child.stderr.take().context("the child's standard error is piped")?;
    let ((stdout, mut tail), (stderr, errors)) = thread::scope(|scope| {
        let errors = scope.spawn(|| follow(step, stderr));
        (follow(step, stdout), errors.join().unwrap_or_default())
    });
    tail.extend(errors);
    let status = child.wait().with_context(|| format!("waiting for {shown}"))?;
    if !status.success() {
        bail!("{shown}\n{status}\n{}", tail.make_contiguous().join("\n"));
    }
    Ok(Output { stdout, stderr })
}

/// Reads `stream` to its end: everything, and its last lines.
fn follow(step: &Step, stream: impl std::io::Read) -> (String, VecDeque<String>) {
    let (mut all, mut tail) = (String::new(), VecDeque::new());
    for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        step.detail(line.trim());
        all.push_str(&line);
        all.push('\n');
        tail.push_back(line);
        if tail.len() > TAIL {
            tail.pop_front();
        }
    }
    (all, tail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::step;

    fn shell(script: &str) -> Result<String> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        step("a command", |step| run(step, command))
    }

    #[test]
    fn output_is_returned() {
        assert_eq!(shell("echo one; echo two").unwrap(), "one\ntwo\n");
    }

    #[test]
    fn a_failure_names_command_status_and_last_words() {
        let error = shell("echo going; echo gone wrong >&2; exit 3").unwrap_err().to_string();
        for part in ["exit 3", "exit status: 3", "gone wrong", "going"] {
            assert!(error.contains(part), "{part:?} is missing in {error}");
        }
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = step("a command", |step| run(step, Command::new("no-such-program"))).unwrap_err();
        assert!(format!("{error:#}").contains("no-such-program"));
    }
}
