//! The one way in which a module runs a program of the device.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// How often a running program is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Runs `program` with `arguments` for at most `limit`. It has no standard input, and all it says goes to the deployment
/// log as it says it.
///
/// # Errors
/// When it cannot be started, exits with anything but 0, or had to be killed after `limit`.
pub fn run<A: AsRef<OsStr>>(program: &str, arguments: &[A], limit: Duration) -> Result<()> {
    let mut command = Command::new(program);
    // Standard output of a module is for answers to queries.
    let log = io::stderr().as_fd().try_clone_to_owned().context("duplicating standard error")?;
    command.args(arguments).stdin(Stdio::null()).stdout(log);
    let mut child = command.spawn().with_context(|| format!("starting {program:?}: is it installed?"))?;
    let status = wait(&mut child, limit).with_context(|| format!("running {command:?}"))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}

fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if begun.elapsed() >= limit {
            child.kill().and_then(|()| child.wait())?;
            anyhow::bail!("it did not end within {} s and was killed", limit.as_secs_f32());
        }
        thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_say_what_was_run_and_how_it_ended() {
        let limit = Duration::from_secs(60);
        run("true", &[""; 0], limit).unwrap();
        let said = |result: Result<()>| format!("{:#}", result.unwrap_err());
        assert!(said(run("sh", &["-c", "exit 3"], limit)).contains("exit status: 3"));
        assert!(said(run("/no/such/program", &["x"], limit)).contains("/no/such/program"));
        let killed = said(run("sleep", &["600"], Duration::from_millis(100)));
        assert!(killed.contains("sleep") && killed.contains("killed"), "{killed}");
    }
}
