//! Clients that are killed, call twice, or do not read the log.

use std::ffi::OsStr;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::device::{Device, failed, run};

/// The limit for what takes milliseconds on an idle host: the start or the end of a process.
const LIMIT: Duration = Duration::from_secs(60);

/// Waits for `condition`, for up to [`LIMIT`].
fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < LIMIT, "{what} did not happen");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A command that no other run of this test on the machine has.
fn sleep(seconds: u32) -> String {
    format!("sleep {seconds}.{}", std::process::id())
}

fn runs(pattern: &str) -> bool {
    !Command::new("pgrep").args(["-f", pattern]).output().unwrap().stdout.is_empty()
}

#[test]
fn a_call_ends_with_its_client_and_writes_no_stale_record() {
    let Some(device) = Device::new() else { return };
    let (first, second) = (sleep(4001), sleep(4002));
    device.set_health_check(&format!("setsid {second} & {first}"));
    assert!(device.download().success());
    let mut client = device.client.start_below_a_client("ArtifactInstall").unwrap();
    wait_for("the health check", || runs(&format!("^{first}$")) && runs(&format!("^{second}$")));
    // Ctrl-C, a lost ssh session or the OOM killer ends the client alone.
    client.kill().unwrap();
    client.wait().unwrap();
    device.let_health_checks_pass();
    wait_for("the end of the health check", || !runs(&format!("^{first}$")) && !runs(&format!("^{second}$")));
    device.set(&device.www, "");
    device.ok("ArtifactRollback");
    assert_eq!(device.text("index.html"), "previous");
    thread::sleep(Duration::from_millis(300));
    device.ok("Cleanup");
    assert!(!device.journal().join("journal.json").exists());
    device.updates_again();
}

#[test]
fn a_download_ends_when_its_client_was_killed() {
    let Some(device) = Device::new() else { return };
    assert!(device.download().success());
    device.ok("Cleanup");
    // The client was killed before it opened the FIFO.
    let next = device.client.tree().join("stream-next");
    let _ = fs::remove_file(&next);
    assert!(run("mkfifo", &[next.as_os_str()]));
    let tree = device.client.tree();
    let mut client = device.client.start_below_a_client("Download").unwrap();
    let pattern = format!("web-file Download {}", tree.display());
    wait_for("the download", || runs(&pattern));
    client.kill().unwrap();
    client.wait().unwrap();
    wait_for("the end of the download", || !runs(&pattern));
    device.updates_again();
}

#[test]
fn a_signal_ends_a_call_with_all_its_processes() {
    // The client sends SIGTERM to the module's process group at its time limit. A lost terminal sends SIGHUP.
    for (number, signal) in (4010..).step_by(10).zip(["TERM", "INT", "HUP"]) {
        let Some(device) = Device::new() else { return };
        // A child, and an orphan in a session of its own.
        let [check, orphan] = [sleep(number), sleep(number + 1)];
        device.set_health_check(&format!("(setsid {orphan} &); {check}"));
        assert!(device.download().success());
        let mut client = device.client.start_below_a_client("ArtifactInstall").unwrap();
        wait_for("the health check", || [&check, &orphan].iter().all(|command| runs(&format!("^{command}$"))));
        device.let_health_checks_pass();
        let pattern = format!("^[^ ]*web-file ArtifactInstall {}", device.client.tree().display());
        let option = format!("-{signal}");
        assert!(Command::new("pkill").args([&option, "-f", &pattern]).status().unwrap().success());
        wait_for("the end", || [&check, &orphan].iter().all(|command| !runs(&format!("^{command}$"))));
        client.wait().unwrap();
        device.set(&device.www, "");
        device.ok("ArtifactRollback");
        assert_eq!(device.text("index.html"), "previous", "{signal}");
    }
}

#[test]
fn a_program_that_starts_others_while_it_is_killed_leaves_none_behind() {
    let Some(device) = Device::new() else { return };
    let check = sleep(4030);
    let pattern = format!("^{check}$");
    // The rest of the processes start while the first ones are searched for and killed.
    device.set_health_check(&format!("for n in $(seq 2000); do {check} & done; wait"));
    assert!(device.download().success());
    let mut client = device.client.start_below_a_client("ArtifactInstall").unwrap();
    wait_for("the health check", || runs(&pattern));
    let module = format!("^[^ ]*web-file ArtifactInstall {}", device.client.tree().display());
    assert!(Command::new("pkill").args(["-TERM", "-f", &module]).status().unwrap().success());
    client.wait().unwrap();
    wait_for("the end of the call", || !runs(&module));
    let left = Command::new("pkill").args(["-KILL", "-f", &pattern]).status().unwrap();
    assert!(!left.success(), "processes were left");
}

#[test]
fn control_characters_of_a_setting_are_escaped_in_the_log() {
    let Some(device) = Device::new() else { return };
    device.set(&device.www, "[health]\ntcp = \"a\\u001b[2Jb:1\"\nlimit_seconds = 1\nstable_seconds = 0\n");
    assert!(device.download().success());
    let outcome = device.call("ArtifactInstall");
    failed(&outcome, "a\\u{1b}[2Jb:1");
    assert!(!outcome.stderr.contains('\u{1b}'), "{outcome:?}");
}

#[test]
fn a_killed_call_leaves_no_program_behind() {
    let Some(device) = Device::new() else { return };
    let check = sleep(4004);
    device.set_health_check(&format!("exec {check}"));
    assert!(device.download().success());
    let mut client = device.client.start_below_a_client("ArtifactInstall").unwrap();
    wait_for("the health check", || runs(&format!("^{check}$")));
    device.let_health_checks_pass();
    // As the OOM killer does, which the module cannot handle.
    let pattern = format!("^[^ ]*web-file ArtifactInstall {}", device.client.tree().display());
    assert!(Command::new("pkill").args(["-KILL", "-f", &pattern]).status().unwrap().success());
    wait_for("the end of the health check", || !runs(&format!("^{check}$")));
    client.wait().unwrap();
    device.set(&device.www, "");
    device.ok("ArtifactRollback");
    assert_eq!(device.text("index.html"), "previous");
}

#[test]
fn a_rollback_waits_for_an_install_that_still_runs() {
    let Some(device) = Device::new() else { return };
    device.set_health_check("touch begun; sleep 1");
    assert!(device.download().success());
    thread::scope(|scope| {
        let install = scope.spawn(|| device.call("ArtifactInstall"));
        wait_for("the health check", || device.client.tree().join("begun").exists());
        device.let_health_checks_pass();
        device.ok("ArtifactRollback");
        assert!(install.join().unwrap().success());
    });
    let journal = fs::read_to_string(device.journal().join("journal.json")).unwrap();
    assert!(journal.contains("RolledBack"), "a stale record: {journal}");
    assert_eq!(device.text("index.html"), "previous");
    device.ok("Cleanup");
    device.updates_again();
}

#[test]
fn a_cleanup_waits_for_a_download_that_still_runs() {
    let Some(device) = Device::new() else { return };
    let payload = [(OsStr::new("big"), &[7_u8; 100_000][..])];
    let staged = AtomicBool::new(false);
    let outcome = thread::scope(|scope| {
        let cleanup = OnceLock::new();
        // The module waits for the second half of the payload, and is killed then.
        let while_it_waits = || {
            cleanup.get_or_init(|| scope.spawn(|| device.call("Cleanup")));
            thread::sleep(Duration::from_millis(500));
            staged.store(device.staging().join("new/big").exists(), Ordering::SeqCst);
            true
        };
        device.client.interrupt_download_when(&payload, while_it_waits).unwrap();
        cleanup.into_inner().unwrap().join().unwrap()
    });
    assert!(staged.into_inner(), "the files of a download that still runs were removed");
    assert!(outcome.success() && !device.staging().exists(), "{outcome:?}");
    device.updates_again();
}

#[test]
fn calls_wait_for_each_other() {
    let Some(device) = Device::new() else { return };
    for _ in 0..20 {
        assert!(device.download().success());
        device.ok("ArtifactInstall");
        thread::scope(|scope| {
            let calls = ["ArtifactRollback", "Cleanup", "ArtifactRollback", "Cleanup"];
            let calls = calls.map(|state| scope.spawn(|| device.call(state)));
            calls.into_iter().for_each(|call| drop(call.join().unwrap()));
        });
        device.ok("ArtifactRollback");
        device.ok("Cleanup");
        let whole = (device.text("index.html"), device.www.join("added.css").exists());
        assert!([("previous".into(), false), ("new".into(), true)].contains(&whole), "mixed: {whole:?}");
        assert!(!device.journal().join("journal.json").exists() && !device.staging().exists());
    }
}

#[test]
fn a_process_left_by_a_health_check_does_not_hold_the_pipes_of_the_client() {
    let Some(device) = Device::new() else { return };
    let left = format!("sleep 4005.{}", std::process::id());
    let check = format!("command = [\"sh\", \"-c\", \"{left} & true\"]\nlimit_seconds = 60\nstable_seconds = 0");
    device.set(&device.www, &format!("[health]\n{check}\n"));
    assert!(device.download().success());
    // Reads the output to its end, as the client does, and fails if another process holds it.
    device.ok("ArtifactInstall");
    let _ = Command::new("pkill").args(["-f", &format!("^{left}$")]).status();
}

#[test]
fn a_process_left_by_a_health_check_may_write_without_end() {
    let Some(device) = Device::new() else { return };
    let status = device.client.device().join("status");
    // Ends with 124 after its limit, and otherwise when nobody reads its output any more.
    let writer =
        format!("trap '' PIPE; timeout 60 yes 2>/dev/null; echo $? > '{0}.new'; mv '{0}.new' '{0}'", status.display());
    device.set_health_check(&format!("({writer}) & true"));
    assert!(device.download().success());
    device.ok("ArtifactInstall");
    wait_for("the end of the writer", || status.exists());
    assert_ne!(fs::read_to_string(&status).unwrap(), "124\n", "the call waited for it");
}

#[test]
fn every_log_line_is_one_write() {
    let Some(device) = Device::new() else { return };
    device.set_health_check(
        "printf 'in '; sleep 0.2; printf 'pieces\\n'; head -c 20000 /dev/zero | tr '\\0' x; echo; exit 1",
    );
    device
        .client
        .set(
            "web-file",
            &fs::read_to_string(device.client.settings().join("web-file.toml")).unwrap().replace("= 600", "= 1"),
        )
        .unwrap();
    assert!(device.download().success());
    // Each write to a datagram socket is one datagram.
    let (reader, writer) = std::os::unix::net::UnixDatagram::pair().unwrap();
    let mut call = device.client.by_hand(&["ArtifactInstall"]);
    call.arg(device.client.tree());
    let mut call = call.stderr(std::os::fd::OwnedFd::from(writer)).spawn().unwrap();
    reader.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let (mut lines, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < LIMIT, "it does not end: {lines:?}");
        match reader.recv(&mut buffer) {
            Ok(0) => break,
            Ok(length) => lines.push(String::from_utf8_lossy(&buffer[..length]).into_owned()),
            Err(_) if call.try_wait().unwrap().is_some() => break,
            Err(_) => {}
        }
    }
    assert!(lines.iter().any(|line| line == "in pieces\n"), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("ArtifactInstall failed")), "{lines:?}");
    for line in &lines {
        assert!(line.ends_with('\n') && line.matches('\n').count() == 1 && line.len() <= 4096, "{line:?}");
    }
}

#[test]
fn a_call_ends_even_if_its_log_is_not_read() {
    let Some(device) = Device::new() else { return };
    device.set_health_check("yes flood-4004.5; sleep 4004.5");
    assert!(device.download().success());
    let mut call = device.client.by_hand(&["ArtifactInstall"]);
    call.arg(device.client.tree());
    // The pipe stays open, and is not read.
    let mut call = call.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("the flood", || runs("^yes flood-4004.5"));
    thread::sleep(Duration::from_millis(500));
    assert!(Command::new("kill").arg("-TERM").arg(call.id().to_string()).status().unwrap().success());
    let begun = Instant::now();
    while call.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < LIMIT, "SIGTERM does not end it");
        thread::sleep(Duration::from_millis(20));
    }
    wait_for("the end of the flood", || !runs("^yes flood-4004.5"));
    device.let_health_checks_pass();
    device.ok("ArtifactRollback");
    assert_eq!(device.text("index.html"), "previous");
}

#[test]
fn a_call_without_a_signal_ends_although_its_log_is_not_read() {
    let Some(device) = Device::new() else { return };
    // More than a pipe holds.
    device.set(&device.www, "[health]\ncommand = [\"seq\", \"20000\"]\nlimit_seconds = 600\nstable_seconds = 0\n");
    assert!(device.download().success());
    let mut call = device.client.by_hand(&["ArtifactInstall"]);
    call.arg(device.client.tree());
    let mut call = call.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while call.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < 3 * LIMIT, "it waits for a reader of its log");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(device.text("index.html"), "new");
}
