//! The result of one call, and how the client waits for it.

use std::fmt;
use std::io::Read;
use std::process::{Child, ExitStatus, Output};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

/// How long the output may stay open after the module has exited: longer than a child that is just ending needs.
const CLOSES_WITHIN: Duration = Duration::from_secs(5);

/// The result of one call of the module.
#[derive(Debug)]
pub struct Outcome {
    /// The exit status, or the signal that ended the module.
    pub status: ExitStatus,
    /// Standard output: the answer to a query.
    pub stdout: String,
    /// Standard error: what the client writes to the deployment log.
    pub stderr: String,
}

impl Outcome {
    /// Whether the module exited with 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }
}

/// The exit status, and what the module has written.
impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.status)?;
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.trim_end().is_empty() {
                write!(formatter, "; {name}: {}", text.trim_end())?;
            }
        }
        Ok(())
    }
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Self { status: output.status, stdout, stderr }
    }
}

/// Waits until `child`, which leads a process group of its own, has exited and its output is closed. Returns `None` if
/// a process that it has started keeps the output open; the process group is killed then.
pub fn wait(mut child: Child) -> Result<Option<Outcome>> {
    let stdout = child.stdout.take().map(read);
    let stderr = child.stderr.take().map(read);
    // Not reaped yet: its number, which is that of the group, cannot be given to another process.
    let pid = Pid::from_raw(child.id() as i32).context("the module has no process ID")?;
    retry_on_intr(|| waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT))
        .context("waiting for the module failed")?;
    let deadline = Instant::now() + CLOSES_WITHIN;
    let text = |reader: Option<Receiver<Vec<u8>>>| match reader {
        Some(reader) => reader.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok(),
        None => Some(Vec::new()),
    };
    let texts = text(stdout).zip(text(stderr));
    if texts.is_none() {
        // This misses a process that has made a group of its own.
        let _ = kill_process_group(pid, Signal::KILL);
    }
    let status = child.wait().context("waiting for the module failed")?;
    Ok(texts.map(|(stdout, stderr)| Output { status, stdout, stderr }.into()))
}

/// Reads `pipe` to its end in a thread. The thread stays behind if a process that cannot be killed keeps `pipe` open.
fn read(mut pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // After an error, what was read so far is the output.
        let _ = pipe.read_to_end(&mut bytes);
        let _ = sender.send(bytes); // fails if nobody waits any more
    });
    receiver
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use super::*;

    fn run(script: &str) -> Option<Outcome> {
        let mut command = Command::new("sh");
        command.args(["-c", script]).process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
        wait(command.spawn().expect("sh starts")).expect("sh ends")
    }

    #[test]
    fn an_outcome_is_shown_on_plain_lines() {
        let shown = |script| run(script).expect("the output is closed").to_string();
        assert_eq!(shown("exit 0"), "exit status: 0");
        assert_eq!(
            shown("echo a; echo 'no \"b\"' >&2; echo c >&2; exit 1"),
            "exit status: 1; stdout: a; stderr: no \"b\"\nc"
        );
        assert_eq!(shown("kill -KILL $$"), "signal: 9 (SIGKILL)");
    }

    #[test]
    fn a_process_that_is_left_may_run_if_it_closes_the_output() {
        assert!(run("sleep 6.25 >/dev/null 2>&1 & echo started").is_some());
        assert_eq!(run("(sleep 0.2; echo late) & echo started").expect("it closes soon").stdout, "started\nlate\n");
    }

    #[test]
    fn the_wait_for_a_process_that_cannot_be_killed_ends() {
        let directory = tempfile::tempdir().unwrap();
        let number = directory.path().join("number");
        let script = "setsid sh -c 'echo $$ > NUMBER; exec sleep 600' & until test -s NUMBER; do sleep 0.1; done";
        let script = script.replace("NUMBER", &number.display().to_string());
        assert!(run(&script).is_none());
        let number: i32 = fs::read_to_string(number).unwrap().trim().parse().unwrap();
        let process = Pid::from_raw(number).unwrap();
        // The process still runs, and is no zombie: the wait did not wait for its end.
        let state = fs::read_to_string(format!("/proc/{number}/stat")).unwrap();
        assert!(!state.rsplit_once(") ").unwrap().1.starts_with('Z'), "{state}");
        rustix::process::kill_process(process, Signal::KILL).unwrap();
    }
}
