//! The processes of a call, and how they are killed.
//!
//! Programs run in process groups of their own, and some start others in further groups or sessions, as apt does with
//! dpkg. So killing a group is not enough: all descendants are searched for in `/proc`. The module is their
//! subreaper, so that orphans become its children.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::process::{self, Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, set_child_subreaper, waitid};

/// The largest number of rounds of searching and killing, for descendants that start others meanwhile.
const ROUNDS: u32 = 200;

/// The time between two rounds.
const PAUSE: Duration = Duration::from_millis(5);

/// `__WALL` of waitid(2): also children that end without SIGCHLD. Linux before 4.7 refuses it, and `/proc` is read.
const ALL: WaitIdOptions = WaitIdOptions::from_bits_retain(0x4000_0000);

/// Polls any child, without waiting for it.
const ANY: WaitIdOptions = ALL.union(WaitIdOptions::EXITED).union(WaitIdOptions::NOHANG).union(WaitIdOptions::NOWAIT);

/// Whether this process is about to end: threads that wait for a killed program must not continue.
static ENDING: AtomicBool = AtomicBool::new(false);

/// The running programs of all threads: these are not orphans.
static RUNNING: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// Starts a program, and records it until [`ended`].
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    let mut running = running();
    let child = command.spawn()?;
    running.push(child.id());
    Ok(child)
}

/// Removes `program` from the running programs.
pub(crate) fn ended(program: u32) {
    running().retain(|&other| other != program);
}

fn running() -> MutexGuard<'static, Vec<u32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes this process the parent of orphaned descendants.
pub(crate) fn adopt_orphans() {
    // On failure (Linux before 3.4), orphans are not found.
    let _ = set_child_subreaper(Some(rustix::process::getpid()));
}

/// The process IDs of the children of this process.
pub(crate) fn children() -> Vec<u32> {
    // Before most programs there are none, which one call shows. Reading `/proc` takes several for each process.
    if matches!(waitid(WaitId::All, ANY), Err(Errno::CHILD)) {
        return Vec::new();
    }
    let own = process::id();
    table().into_iter().filter(|(_, parent)| *parent == own).map(|(child, _)| child).collect()
}

/// Kills the program `program` with all its descendants. Orphans are the children of this process that are not in
/// `before`.
pub(crate) fn kill_program(program: u32, before: &[u32]) {
    kill_all(|table| {
        let own = process::id();
        let mut roots: Vec<u32> = vec![program];
        roots.extend(table.iter().filter(|(_, parent)| **parent == own).map(|(child, _)| *child));
        let running = running();
        roots.retain(|root| *root == program || !(before.contains(root) || running.contains(root)));
        let mut found = descendants(table, &roots);
        found.extend(roots.into_iter().filter(|root| table.contains_key(root)));
        found
    });
}

/// Ends this process and all its descendants at once, as a power loss does.
pub(crate) fn end_like_power_loss() -> ! {
    ENDING.store(true, Ordering::SeqCst);
    kill_all(|table| descendants(table, &[process::id()]));
    let _ = kill_process(rustix::process::getpid(), Signal::KILL);
    process::abort()
}

/// Blocks for ever if this process is about to end: a program that was killed for that has not failed.
pub(crate) fn block_if_ending() {
    while ENDING.load(Ordering::SeqCst) {
        thread::park();
    }
}

/// Kills the processes that `choose` finds, until it finds none: a process may start another meanwhile.
fn kill_all(choose: impl Fn(&HashMap<u32, u32>) -> Vec<u32>) {
    for _ in 0..ROUNDS {
        let found = choose(&table());
        if found.is_empty() {
            return;
        }
        for process in found.into_iter().filter_map(|process| Pid::from_raw(process as i32)) {
            let _ = kill_process(process, Signal::KILL);
        }
        thread::sleep(PAUSE);
    }
}

/// All descendants of `roots`, without `roots`.
fn descendants(table: &HashMap<u32, u32>, roots: &[u32]) -> Vec<u32> {
    let mut found: Vec<u32> = Vec::new();
    let mut next = roots.to_vec();
    while let Some(parent) = next.pop() {
        let below = table.iter().filter(|(child, of)| **of == parent && !found.contains(child));
        let below: Vec<u32> = below.map(|(child, _)| *child).collect();
        next.extend(&below);
        found.extend(below);
    }
    found
}

/// Every running process, without zombies, and its parent.
fn table() -> HashMap<u32, u32> {
    let Ok(listing) = fs::read_dir("/proc") else { return HashMap::new() };
    let mut table = HashMap::new();
    for entry in listing.flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let stat = fs::read(entry.path().join("stat")).unwrap_or_default();
        if let Some(parent) = parent_of_running(&stat) {
            table.insert(process, parent);
        }
    }
    table
}

/// The parent in the text of `/proc/PID/stat` (proc(5)): `PID (NAME) STATE PARENT …`, where NAME can contain any
/// characters.
fn parent_of_running(stat: &[u8]) -> Option<u32> {
    let after_name = stat.iter().rposition(|&byte| byte == b')')?;
    let text = std::str::from_utf8(&stat[after_name + 1..]).ok()?;
    let mut fields = text.split_ascii_whitespace();
    match fields.next()? {
        "Z" | "X" => None,
        _ => fields.next()?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::Program;
    use crate::test_support::log_of;

    #[test]
    fn parents_are_read_for_any_process_name() {
        assert_eq!(parent_of_running(b"12 (a) b) (c) S 7 12 12 0"), Some(7));
        assert_eq!(parent_of_running(b"12 (a) Z 7 12 12 0"), None);
        assert_eq!(parent_of_running(b""), None);
    }

    #[test]
    fn a_running_child_is_listed_and_one_that_has_ended_is_not() {
        let mut child = spawn(Command::new("sleep").arg("60")).unwrap();
        let listed = children().contains(&child.id());
        child.kill().unwrap();
        // It is a zombie until it is waited for.
        waitid(WaitId::Pid(Pid::from_child(&child)), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
        let zombie = children().contains(&child.id());
        child.wait().unwrap();
        ended(child.id());
        assert!(listed, "a running child is missing");
        assert!(!zombie, "a child that has ended is listed");
    }

    #[test]
    fn descendants_are_found_at_any_depth() {
        let table = HashMap::from([(2, 1), (3, 2), (4, 3), (5, 1), (6, 9)]);
        let mut found = descendants(&table, &[2]);
        found.sort_unstable();
        assert_eq!(found, [3, 4]);
    }

    #[test]
    fn a_program_is_recorded_while_it_runs() {
        let is_recorded = |program: u32| running().contains(&program);
        let mut child = spawn(Command::new("sleep").arg("60")).unwrap();
        let recorded = is_recorded(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        ended(child.id());
        assert!(recorded && !is_recorded(child.id()));
        let program = Program::new("sh", Duration::from_secs(60)).args(["-c", "echo $$"]).output().unwrap();
        let program = String::from_utf8(program).unwrap().trim().parse().unwrap();
        assert!(!is_recorded(program), "it has ended");
    }

    #[test]
    fn only_the_program_and_its_orphans_are_killed() {
        log_of(
            "processes::tests::only_the_program_and_its_orphans_are_killed",
            |_| {},
            || {
                // A child of before, a program of another thread, the program, and an orphan.
                let sleep = || Command::new("sleep").arg("60").spawn().unwrap();
                let (mut before, mut program, mut orphan) = (sleep(), sleep(), sleep());
                let mut other = spawn(Command::new("sleep").arg("60")).unwrap();
                kill_program(program.id(), &[before.id()]);
                // They may have been killed, and not ended yet.
                for killed in [&mut program, &mut orphan] {
                    assert!(!killed.wait().unwrap().success());
                }
                let left = [&mut before, &mut other].map(|child| child.try_wait().unwrap());
                for child in [&mut before, &mut other] {
                    let _ = child.kill();
                    let _ = child.wait();
                }
                assert_eq!(left, [None, None]);
            },
        );
    }

    #[test]
    fn a_thread_does_not_continue_while_the_process_ends() {
        log_of(
            "processes::tests::a_thread_does_not_continue_while_the_process_ends",
            |_| {},
            || {
                block_if_ending();
                ENDING.store(true, Ordering::SeqCst);
                let (sender, receiver) = mpsc::channel();
                thread::spawn(move || {
                    block_if_ending();
                    sender.send(()).unwrap();
                });
                assert!(receiver.recv_timeout(Duration::from_millis(300)).is_err(), "it continued");
            },
        );
    }
}
