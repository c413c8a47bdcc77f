//! The result of one call, and how the client waits for it.

use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Output};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};
use std::{fmt, fs, thread};

use anyhow::{Context, Result, bail};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

/// How long the output may stay open after the module has exited: longer than a child that is just ending needs.
const CLOSES_WITHIN: Duration = Duration::from_secs(5);

/// How long it may stay open where `/proc` shows no process of the module that has it open: this process may just not
/// run, on a machine that is busy or was suspended.
const SEEN_WITHIN: Duration = Duration::from_secs(60);

/// How often it is looked for then.
const POLL: Duration = Duration::from_millis(500);

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

/// Waits until `child`, which leads a process group of its own, has exited and its output is closed.
///
/// # Errors
/// When a process that it has started keeps the output open; the process group is killed then.
pub fn wait(mut child: Child) -> Result<Outcome> {
    let stdout = child.stdout.take().map(Reader::new);
    let stderr = child.stderr.take().map(Reader::new);
    // Not reaped yet: its number, which is that of the group, cannot be given to another process.
    let pid = Pid::from_raw(child.id() as i32).context("the module has no process ID")?;
    retry_on_intr(|| waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT))
        .context("waiting for the module failed")?;
    let exited = Instant::now();
    let text = |reader: Option<Reader>| reader.map_or(Ok(Vec::new()), |reader| reader.text(exited));
    let texts = text(stdout).and_then(|stdout| Ok((stdout, text(stderr)?)));
    if texts.is_err() {
        // This misses a process that has made a group of its own.
        let _ = kill_process_group(pid, Signal::KILL);
    }
    let status = child.wait().context("waiting for the module failed")?;
    texts.map(|(stdout, stderr)| Output { status, stdout, stderr }.into())
}

/// A thread that reads a pipe to its end. It stays behind if a process that cannot be killed keeps the pipe open.
struct Reader {
    /// What `/proc/PID/fd` has for the pipe.
    pipe: Option<PathBuf>,
    bytes: Receiver<Vec<u8>>,
}

impl Reader {
    fn new(mut pipe: impl Read + AsRawFd + Send + 'static) -> Self {
        let name = fs::read_link(format!("/proc/self/fd/{}", pipe.as_raw_fd())).ok();
        let (sender, bytes) = mpsc::channel();
        thread::spawn(move || {
            let mut bytes = Vec::new();
            // After an error, what was read so far is the output.
            let _ = pipe.read_to_end(&mut bytes);
            let _ = sender.send(bytes); // fails if nobody waits any more
        });
        Self { pipe: name, bytes }
    }

    /// What was written to the pipe until it was closed, by a module that has `exited`.
    fn text(&self, exited: Instant) -> Result<Vec<u8>> {
        loop {
            if let Ok(bytes) = self.bytes.recv_timeout(CLOSES_WITHIN.saturating_sub(exited.elapsed()).max(POLL)) {
                return Ok(bytes);
            }
            let holders = self.pipe.as_deref().map(holders).unwrap_or_default();
            let shown = match holders.first() {
                Some(holder) => holder,
                None if exited.elapsed() < SEEN_WITHIN => continue,
                None => "one that /proc does not show",
            };
            bail!(
                "it left a process that keeps its output open: {shown}: redirect the output of background processes, \
                 or end them"
            );
        }
    }
}

/// The processes with `pipe` open: names and numbers. Without those that another thread of this process starts: until
/// they execute their program, they have a copy of everything that is open.
fn holders(pipe: &Path) -> Vec<String> {
    let has_pipe = |process: &Path| {
        let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        open.into_iter().any(|file| fs::read_link(file.path()).is_ok_and(|target| target == pipe))
    };
    let own = fs::read_link("/proc/self/exe").ok();
    let is_starting = |process: &Path| own.is_some() && fs::read_link(process.join("exe")).ok() == own;
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let holders = processes.filter(|process| has_pipe(process) && !is_starting(process));
    let shown = |process: PathBuf| {
        let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
        format!("{}, process {}", name.trim_end(), process.file_name().unwrap_or_default().to_string_lossy())
    };
    holders.map(shown).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use super::*;

    fn run(script: &str) -> Result<Outcome> {
        let mut command = Command::new("sh");
        command.args(["-c", script]).process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
        wait(command.spawn()?)
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
        assert!(run("sleep 6.25 >/dev/null 2>&1 & echo started").is_ok());
        assert_eq!(run("(sleep 0.2; echo late) & echo started").expect("it closes soon").stdout, "started\nlate\n");
    }

    #[test]
    fn the_wait_for_a_process_that_cannot_be_killed_ends() {
        let directory = tempfile::tempdir().unwrap();
        let number = directory.path().join("number");
        let script = "setsid sh -c 'echo $$ > NUMBER; exec sleep 600' & until test -s NUMBER; do sleep 0.1; done";
        let script = script.replace("NUMBER", &number.display().to_string());
        let error = run(&script).expect_err("the output is open").to_string();
        assert!(error.contains("sleep, process "), "{error}");
        let number: i32 = fs::read_to_string(number).unwrap().trim().parse().unwrap();
        let process = Pid::from_raw(number).unwrap();
        // The process still runs, and is no zombie: the wait did not wait for its end.
        let state = fs::read_to_string(format!("/proc/{number}/stat")).unwrap();
        assert!(!state.rsplit_once(") ").unwrap().1.starts_with('Z'), "{state}");
        rustix::process::kill_process(process, Signal::KILL).unwrap();
    }
}
