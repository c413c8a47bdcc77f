//! What tests of several files need. What belongs to a whole process (its log, environment, signals and children) is
//! tested in a process of its own.

use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use crate::processes;

/// The variable of a process that runs one test.
const VARIABLE: &str = "MENDER_TEST_IN_OWN_PROCESS";

/// The command that runs the test `name` (`module::tests::function`) in a process of its own, where
/// [`is_own_process`] is true.
pub(crate) fn command(name: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(VARIABLE, name);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Whether this process runs one test alone.
pub(crate) fn is_own_process() -> bool {
    env::var_os(VARIABLE).is_some()
}

/// Runs `body` of the test `name` in a process of its own, with what `prepare` adds to the command. Returns the log of
/// that process, in which `body` has to succeed; `None` in it.
pub(crate) fn log_of(name: &str, prepare: impl FnOnce(&mut Command), body: impl FnOnce()) -> Option<String> {
    if is_own_process() {
        body();
        return None;
    }
    let mut command = command(name);
    prepare(&mut command);
    let output = output(&mut command).unwrap();
    let [answers, log] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
    assert!(output.status.success() && answers.contains("1 passed"), "{name}: {}: {answers}{log}", output.status);
    Some(log)
}

/// Runs a program. The tests that kill all children of this process leave it alone.
pub(crate) fn output(command: &mut Command) -> io::Result<Output> {
    let child = processes::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let id = child.id();
    let output = child.wait_with_output();
    processes::ended(id);
    output
}

/// Makes the executable script `path`. Another process writes it: while this one has a file open for writing, no
/// program that another thread starts could execute it.
pub(crate) fn write_script(path: &Path, text: &str) {
    let mut command = Command::new("sh");
    command.args(["-c", "printf '#!/bin/sh\\n%s\\n' \"$2\" >\"$1\" && chmod 755 \"$1\"", "sh"]);
    assert!(output(command.arg(path).arg(text)).unwrap().status.success());
    assert!(fs::metadata(path).is_ok());
}

/// As [`log_of`], where `systemctl` records its arguments, and fails for units with `bad` in their names. Returns the
/// lines of the arguments, and the log.
pub(crate) fn systemctl_calls(name: &str, body: impl FnOnce()) -> Option<(Vec<String>, String)> {
    let directory = tempfile::tempdir().unwrap();
    let calls = directory.path().join("calls");
    let script = format!("echo \"$*\" >>'{}'\ncase \"$*\" in *bad*) exit 1 ;; esac", calls.display());
    write_script(&directory.path().join("systemctl"), &script);
    let path = env::join_paths(
        [directory.path().to_owned()].into_iter().chain(env::split_paths(&env::var_os("PATH").unwrap_or_default())),
    );
    let prepare = |command: &mut Command| {
        command.env("PATH", path.unwrap());
    };
    let log = log_of(name, prepare, body)?;
    let calls = fs::read_to_string(calls).unwrap_or_default();
    Some((calls.lines().map(str::to_owned).collect(), log))
}

/// Writes `text` to the FIFO `path` when another process or thread reads it. `None` if that does not begin within a
/// minute: a test that fails shall not block.
pub(crate) fn write_when_read(path: &Path, text: &str) -> Option<io::Result<()>> {
    let nonblocking = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut attempts = (0..6000).map(|_| {
        thread::sleep(Duration::from_millis(10));
        rustix::fs::open(path, nonblocking, Mode::empty())
    });
    let fifo = attempts.find_map(Result::ok)?;
    rustix::fs::fcntl_setfl(&fifo, OFlags::empty()).unwrap();
    Some(File::from(fifo).write_all(text.as_bytes()))
}
