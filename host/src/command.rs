//! Runs commands: returns their output, shows the newest line, and fails with the command line and the last lines.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow};
use xshell::Shell;

use crate::status::Step;

/// The number of lines of output in an error.
const TAIL: usize = 120;

/// Shows a line of output, and returns whether it is part of the output.
pub(crate) type Show<'a> = dyn Fn(&str) -> bool + Sync + 'a;

/// The output of a command.
pub struct Output {
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// A shell whose commands run in `directory`. Each thread needs a shell of its own.
pub fn shell_in(directory: impl AsRef<Path>) -> Result<Shell> {
    let sh = Shell::new().context("reading the current directory failed")?;
    sh.change_dir(directory);
    Ok(sh)
}

/// Runs `command` without standard input, shows its newest line in `step`, and returns its standard output.
///
/// # Errors
/// The command cannot be started or does not exit with 0. The error has the command line, the exit status and the last
/// lines of output.
pub fn run(step: &Step, command: impl Into<Command>) -> Result<String> {
    Ok(output(step, command)?.stdout)
}

/// Runs `command` as [`run`] does, and returns its standard output and standard error.
pub fn output(step: &Step, command: impl Into<Command>) -> Result<Output> {
    let (output, result) = complete(step, command)?;
    result.map(|()| output)
}

/// Runs `command` as [`run`] does, and returns its output also if it fails, with its result.
///
/// # Errors
/// The command cannot be started.
pub fn complete(step: &Step, command: impl Into<Command>) -> Result<(Output, Result<()>)> {
    let show = |line: &str| {
        step.detail(line.trim());
        true
    };
    output_of(command.into(), b"\n", &show)
}

/// Runs `command`. Calls `show` for each line; a line is one that ends with a byte in `ends`. Lines for which `show`
/// returns false are not part of the output.
pub(crate) fn output_of(mut command: Command, ends: &[u8], show: &Show) -> Result<(Output, Result<()>)> {
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {shown} failed"))?;
    let stdout = child.stdout.take().context("the command's standard output is not piped")?;
    let stderr = child.stderr.take().context("the command's standard error is not piped")?;
    let ((stdout, mut tail), (stderr, errors)) = thread::scope(|scope| {
        let errors = scope.spawn(|| follow(stderr, ends, show));
        (follow(stdout, ends, show), errors.join().unwrap_or_default())
    });
    tail.extend(errors);
    let status = child.wait().with_context(|| format!("waiting for {shown}"))?;
    let mut failed = || anyhow!("command failed: {shown}: {status}\n{}", tail.make_contiguous().join("\n"));
    let result = if status.success() { Ok(()) } else { Err(failed()) };
    Ok((Output { stdout, stderr }, result))
}

/// Reads `stream` to its end. Returns everything that `show` keeps, and the last lines of it.
fn follow(stream: impl Read, ends: &[u8], show: &Show) -> (String, VecDeque<String>) {
    let (mut all, mut tail) = (String::new(), VecDeque::new());
    let mut stream = BufReader::new(stream);
    while let Some(line) = next_line(&mut stream, ends) {
        if !show(&line) {
            continue;
        }
        all.push_str(&line);
        all.push('\n');
        tail.push_back(line);
        if tail.len() > TAIL {
            tail.pop_front();
        }
    }
    (all, tail)
}

/// The next line of `stream` without its end, or `None` at the end of the stream.
fn next_line(stream: &mut impl BufRead, ends: &[u8]) -> Option<String> {
    let mut line = Vec::new();
    loop {
        let buffer = stream.fill_buf().ok()?;
        if buffer.is_empty() {
            return (!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned());
        }
        let end = buffer.iter().position(|byte| ends.contains(byte));
        line.extend_from_slice(&buffer[..end.unwrap_or(buffer.len())]);
        let used = end.map_or(buffer.len(), |end| end + 1);
        stream.consume(used);
        if end.is_some() {
            return Some(String::from_utf8_lossy(&line).into_owned());
        }
    }
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
    fn lines_end_with_the_given_bytes() {
        let lines = |text: &str, ends: &[u8]| {
            let mut stream = text.as_bytes();
            std::iter::from_fn(|| next_line(&mut stream, ends)).collect::<Vec<_>>()
        };
        assert_eq!(lines("a\rb\n\nc", b"\n"), ["a\rb", "", "c"]);
        assert_eq!(lines("a\rb\n\nc", b"\r\n"), ["a", "b", "", "c"]);
        assert!(lines("", b"\n").is_empty());
    }

    #[test]
    fn output_is_returned() {
        assert_eq!(shell("echo one; echo two").unwrap(), "one\ntwo\n");
    }

    #[test]
    fn a_failure_has_command_status_and_last_lines() {
        let error = shell("echo output; echo an error >&2; exit 3").unwrap_err().to_string();
        for part in ["exit 3", "exit status: 3", "an error", "output"] {
            assert!(error.contains(part), "{part:?} is missing in {error}");
        }
    }

    #[test]
    fn a_failure_keeps_the_output() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; exit 3"]);
        let (output, result) = step("a command", |step| complete(step, command)).unwrap();
        assert_eq!(output.stdout, "one\n");
        assert!(result.is_err());
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = step("a command", |step| run(step, Command::new("no-such-program"))).unwrap_err();
        assert!(format!("{error:#}").contains("no-such-program"));
    }
}
