//! Programs of the workstation.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::Pid;

use crate::work::Running;

/// A program with its arguments.
#[derive(Clone, Debug)]
pub struct Words(Vec<OsString>);

impl Words {
    /// The program `program` without arguments.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self(vec![program.into()])
    }

    /// Adds `arguments`.
    pub fn args<S: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.0.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// The words as a shell would read them.
    pub fn shown(&self) -> String {
        let quoted = |word: &OsString| {
            let word = word.to_string_lossy();
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,@+%".contains(c);
            if !word.is_empty() && word.chars().all(is_plain) {
                word.into_owned()
            } else {
                format!("'{}'", word.replace('\'', "'\\''"))
            }
        };
        self.0.iter().map(quoted).collect::<Vec<_>>().join(" ")
    }

    /// Runs the program with temporary files in `tmp`, and returns its output.
    ///
    /// # Errors
    /// When it is not installed, or fails: with its messages.
    pub fn output(&self, tmp: &Path) -> Result<String> {
        let program = self.0[0].to_string_lossy();
        let mut command = Command::new(&self.0[0]);
        command.args(&self.0[1..]).env("TMPDIR", tmp).env("LC_ALL", "C.UTF-8").process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (child, _running) = Running::start(|| {
            let child = command.spawn().map_err(|error| not_started(&program, error))?;
            let group = Pid::from_child(&child);
            Ok((child, group))
        })?;
        let output = child.wait_with_output().with_context(|| format!("running {program} failed"))?;
        if !output.status.success() {
            let message = [output.stderr, output.stdout].concat();
            let message = String::from_utf8_lossy(&message);
            bail!("{program} failed ({}): {}", output.status, one_line(&message));
        }
        String::from_utf8(output.stdout).with_context(|| format!("unexpected output of {program}: not UTF-8"))
    }
}

fn not_started(program: &str, error: io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::NotFound {
        anyhow::anyhow!("{program} not found: install it")
    } else {
        anyhow::Error::from(error).context(format!("starting {program} failed"))
    }
}

/// The most lines of a program's messages in an error.
const LINES: usize = 4;

/// The first and the last lines of a program's messages in one, without the empty ones and progress.
fn one_line(message: &str) -> String {
    let is_bar = |line: &str| line.chars().all(|c| ".-|0123456789% ".contains(c));
    let is_progress = |line: &str| is_bar(line) || line.starts_with("Copying blob ");
    let lines: Vec<_> = message.lines().map(str::trim).filter(|line| !is_progress(line)).collect();
    if lines.len() <= LINES {
        return lines.join("; ");
    }
    // mender-artifact shows its whole help after an error; other programs print their error last.
    let (first, last) = (&lines[..LINES / 2], &lines[lines.len() - LINES / 2..]);
    format!("{}; …; {}", first.join("; "), last.join("; "))
}

/// Whether `program` is in `PATH`.
pub fn is_installed(program: &OsStr) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    Path::new(program).components().count() > 1 && Path::new(program).is_file()
        || std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(Words::new("a").args(["b c", "it's", ""]).shown(), "a 'b c' 'it'\\''s' ''");
    }

    #[test]
    fn a_failure_has_the_messages_of_the_program() {
        let tmp = tempfile::tempdir().unwrap();
        let failing = Words::new("sh").args(["-c", "echo one >&2; echo 10%; echo two >&2; exit 3"]);
        let error = failing.output(tmp.path()).unwrap_err().to_string();
        assert_eq!(error, "sh failed (exit status: 3): one; two");
        let messages = |script: &str| {
            let error = Words::new("sh").args(["-c", script]).output(tmp.path()).unwrap_err().to_string();
            error.split_once("): ").unwrap().1.to_owned()
        };
        let podman = "for blob in 1 2 3 4 5; do echo Copying blob $blob; done >&2; echo Error: no space >&2; exit 125";
        assert_eq!(messages(podman), "Error: no space");
        assert_eq!(messages("seq -f 'line %g' 9 >&2; exit 1"), "line 1; line 2; …; line 8; line 9");
        let error = Words::new("no-such-program").output(tmp.path()).unwrap_err().to_string();
        assert_eq!(error, "no-such-program not found: install it");
    }
}
