//! Ends a call when its client ends.
//!
//! The client runs a module in a process group of its own. Ctrl-C, a lost SSH session or the OOM killer end the
//! client only, and the module would continue: in parallel to the next call of the client, or blocked for ever on a
//! payload stream.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, fstat};
use rustix::process::{Pid, PidfdFlags, getppid, pidfd_open};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::deployment_log::log_at_once;
use crate::processes;

/// How often the parent is polled if the kernel has no pidfd_open(2) (before Linux 5.3).
const POLL: Duration = Duration::from_millis(200);

/// Ends this process, with all its programs, as soon as its parent ends or sends a signal. It ends as by a power
/// loss, from which every state recovers.
pub(crate) fn end_with_client() {
    processes::adopt_orphans();
    let parent = getppid();
    let signals = signals();
    // If no thread can be started, the call runs without supervision.
    let _ = thread::Builder::new().name("supervision".into()).spawn(move || watch(parent, signals.ok()));
}

/// A socket that becomes readable on SIGTERM, SIGINT and SIGHUP. The client sends SIGTERM at its time limit to the
/// process group of the module, which does not contain the programs.
fn signals() -> io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
    }
    Ok(reader)
}

fn watch(parent: Option<Pid>, signals: Option<UnixStream>) {
    let client = parent.and_then(|parent| pidfd_open(parent, PidfdFlags::empty()).ok());
    let log = log_pipe();
    loop {
        if getppid() != parent {
            processes::end_like_power_loss();
        }
        match wait(client.as_ref(), signals.as_ref(), log.as_ref()) {
            Event::Signal => {
                log_at_once(
                    "call ended by a signal (Ctrl-C, or the client's time limit); the next call or boot recovers",
                );
                processes::end_like_power_loss();
            }
            Event::ClientGone => processes::end_like_power_loss(),
            Event::Nothing => {}
        }
    }
}

enum Event {
    ClientGone,
    Signal,
    Nothing,
}

fn wait(client: Option<&OwnedFd>, signals: Option<&UnixStream>, log: Option<&OwnedFd>) -> Event {
    let mut watched = Vec::new();
    let mut meanings = Vec::new();
    if let Some(client) = client {
        watched.push(PollFd::new(client, PollFlags::IN));
        meanings.push(Event::ClientGone);
    }
    if let Some(signals) = signals {
        watched.push(PollFd::new(signals, PollFlags::IN));
        meanings.push(Event::Signal);
    }
    if let Some(log) = log {
        // No events: the kernel always reports that a pipe has no reader any more.
        watched.push(PollFd::new(log, PollFlags::empty()));
        meanings.push(Event::ClientGone);
    }
    let limit = Timespec { tv_sec: 0, tv_nsec: i64::from(POLL.subsec_nanos()) as _ };
    // With a pidfd, no time limit is necessary.
    let limit = if client.is_some() { None } else { Some(&limit) };
    if poll(&mut watched, limit).is_err() {
        thread::sleep(POLL);
        return Event::Nothing;
    }
    let happened = watched.iter().position(|fd| !fd.revents().is_empty());
    happened.map_or(Event::Nothing, |at| meanings.swap_remove(at))
}

/// The deployment log, if it is a pipe. Its other end belongs to the client, also to one that ended before this
/// process read its parent.
fn log_pipe() -> Option<OwnedFd> {
    let log = io::stderr().as_fd().try_clone_to_owned().ok()?;
    let kind = FileType::from_raw_mode(fstat(&log).ok()?.st_mode);
    (kind == FileType::Fifo).then_some(log)
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs;
    use std::io::{BufRead, BufReader, Read};
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use rustix::process::{Signal, getpid, kill_process};

    use super::*;
    use crate::test_support::{command, is_own_process, output};

    /// The time after which a call that nothing ends has survived.
    const LIMIT: Duration = Duration::from_secs(20);

    /// A call that nothing has ended reports that.
    fn survive() {
        thread::sleep(LIMIT);
        println!("survived");
    }

    #[test]
    fn a_signal_ends_the_call_with_a_message() {
        const NAME: &str = "supervision::tests::a_signal_ends_the_call_with_a_message";
        if is_own_process() {
            end_with_client();
            kill_process(getpid(), Signal::TERM).unwrap();
            return survive();
        }
        let ended = output(&mut command(NAME)).unwrap();
        assert_eq!(ended.status.signal(), Some(9), "as by a power loss");
        let log = String::from_utf8_lossy(&ended.stderr);
        assert!(log.contains("call ended by a signal"), "{log}");
    }

    #[test]
    fn the_end_of_the_client_ends_the_call() {
        const NAME: &str = "supervision::tests::the_end_of_the_client_ends_the_call";
        const FILE: &str = "MENDER_TEST_FILE";
        if is_own_process() {
            end_with_client();
            fs::write(env::var_os(FILE).unwrap(), "").unwrap();
            return survive();
        }
        let directory = tempfile::tempdir().unwrap();
        let call = command(NAME);
        // The shell is the client, until the call is supervised. The log is no pipe.
        let script =
            "\"$@\" 2>/dev/null & until [ -e \"$MENDER_TEST_FILE\" ]; do sleep 0.02; kill -0 $! || exit 1; done";
        let mut client = Command::new("sh");
        client.args(["-c", script, "sh"]).arg(call.get_program()).args(call.get_args());
        client.envs(call.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let ended = output(client.env(FILE, directory.path().join("supervised"))).unwrap();
        assert!(ended.status.success());
        let answers = String::from_utf8_lossy(&ended.stdout);
        assert!(answers.contains(NAME) && !answers.contains("survived"), "{answers}");
    }

    #[test]
    fn the_end_of_the_reader_of_the_log_ends_the_call() {
        const NAME: &str = "supervision::tests::the_end_of_the_reader_of_the_log_ends_the_call";
        if is_own_process() {
            end_with_client();
            println!("supervised");
            return survive();
        }
        let mut call = processes::spawn(&mut command(NAME)).unwrap();
        let mut answers = BufReader::new(call.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("supervised") && answers.read_line(&mut line).unwrap() > 0 {}
        drop(call.stderr.take());
        let mut rest = String::new();
        answers.read_to_string(&mut rest).unwrap();
        let status = call.wait().unwrap();
        processes::ended(call.id());
        assert!(line.contains("supervised") && !rest.contains("survived"), "{line}{rest}");
        assert_eq!(status.signal(), Some(9), "as by a power loss");
    }
}
