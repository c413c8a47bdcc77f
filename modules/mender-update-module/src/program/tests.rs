//! How programs are run, limited and killed.

use std::fs;
use std::path::Path;

use super::*;
use crate::test_support::{command, is_own_process, output};

const LIMIT: Duration = Duration::from_secs(60);

fn shell(script: &str) -> Program {
    Program::new("sh", LIMIT).args(["-c", script])
}

fn error<T: fmt::Debug>(result: Result<T>) -> String {
    format!("{:#}", result.unwrap_err())
}

#[test]
fn errors_have_the_command_line_and_the_exit_status() {
    Program::new("true", LIMIT).run().unwrap();
    assert!(error(shell("exit 3").run()).contains("exit status: 3"));
    assert_eq!(shell("exit 3").status().unwrap().code(), Some(3));
    assert!(error(Program::new("/no/such/program", LIMIT).arg("x").run()).contains("/no/such/program"));
    let killed = error(Program::new("sleep", Duration::from_millis(100)).arg("60").run());
    assert!(killed.contains("sleep") && killed.contains("killed"), "{killed}");
}

#[test]
fn output_of_any_length_is_captured() {
    let long = shell("yes | head -c 200000; echo $WORD").env("WORD", "end").output().unwrap();
    assert!(long.len() > 200_000 && long.ends_with(b"end\n"));
    assert!(error(shell("echo no; exit 4").output()).contains("exit status: 4"));
    let (status, words) = shell("echo because; exit 4").answer().unwrap();
    assert_eq!((status.code(), words.as_slice()), (Some(4), &b"because\n"[..]));
}

#[test]
fn output_is_streamed_and_may_be_read_in_part() {
    let first = |stdout: &mut dyn Read| {
        let mut byte = [0];
        stdout.read_exact(&mut byte)?;
        Ok(byte[0])
    };
    assert_eq!(shell("yes | head -c 200000").stream(first).unwrap(), b'y');
    assert!(error(shell("echo x; exit 6").stream(first)).contains("exit status: 6"));
    assert!(error(shell("yes").stream(|_| -> Result<()> { bail!("no more") })).contains("no more"));
}

#[test]
fn input_arrives_completely_or_is_an_error() {
    let mut payload = io::repeat(7).take(300_000);
    assert_eq!(shell("cat").feed(&mut payload).unwrap().len(), 300_000);
    let refused = error(shell("exit 5").feed(&mut io::repeat(7).take(300_000)));
    assert!(refused.contains("exit status: 5"), "{refused}");
    let careless = error(shell("exec <&-; exit 0").feed(&mut io::repeat(7).take(300_000)));
    assert!(careless.contains("did not read all"), "{careless}");
}

#[test]
fn a_background_child_does_not_keep_a_program_from_ending() {
    let begun = Instant::now();
    shell("sleep 120 & echo done").run().unwrap();
    assert_eq!(shell("sleep 120 & echo done").output().unwrap(), b"done\n");
    let all = |stdout: &mut dyn Read| Ok(io::read_to_string(stdout)?);
    assert_eq!(shell("sleep 120 & echo done").stream(all).unwrap(), "done\n");
    assert_eq!(shell("sleep 120 & cat").feed(&mut &b"x"[..]).unwrap(), b"x");
    assert!(begun.elapsed() < LIMIT, "it waited for the background child");
}

#[test]
fn a_time_limit_kills_all_processes_of_a_program() {
    // No other run of this test on the machine has these commands.
    let [child, session, orphan] = [3001, 3002, 3003].map(|seconds| format!("sleep {seconds}.{}", std::process::id()));
    // A child, a child in another session, as dpkg below apt, and an orphan.
    let script = format!("{child} & setsid {session} & (setsid {orphan} &) ; sleep 60");
    processes::adopt_orphans();
    let killed = error(Program::new("sh", Duration::from_secs(1)).args(["-c", &script]).run());
    assert!(killed.contains("was killed"), "{killed}");
    for command in [child, session, orphan] {
        let left = Command::new("pgrep").args(["-f", &format!("^{command}$")]).output().unwrap().stdout;
        assert!(left.is_empty(), "{command} is left: {}", String::from_utf8_lossy(&left));
    }
}

#[test]
fn a_program_without_output_is_killed() {
    let all = |stdout: &mut dyn Read| Ok(io::read_to_string(stdout)?);
    let silent = Program::new("sh", Duration::from_millis(300)).args(["-c", "echo x; exec sleep 60"]);
    assert!(error(silent.stream(all)).contains("killed"));
}

#[test]
fn output_is_bounded() {
    let endless = error(shell("yes").output());
    assert!(endless.contains("more than"), "{endless}");
}

#[test]
fn an_error_of_the_input_is_named() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("no more"))
        }
    }
    let failed = error(shell("cat").feed(&mut Failing));
    assert!(failed.contains("writing the payload to") && failed.contains("no more"), "{failed}");
}

#[test]
fn a_program_ends_with_the_module() {
    const NAME: &str = "program::tests::a_program_ends_with_the_module";
    const FILE: &str = "MENDER_TEST_FILE";
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("process");
    if is_own_process() {
        let path = std::env::var_os(FILE).unwrap();
        let begun = path.clone();
        thread::spawn(move || {
            while fs::read_to_string(&begun).map_or(true, |text| text.is_empty()) {
                thread::sleep(POLL);
            }
            // As the client kills a module.
            rustix::process::kill_process(rustix::process::getpid(), Signal::KILL)
        });
        let _ = shell("echo $$ >\"$0\"; exec sleep 600").arg(path).run();
        unreachable!("killed");
    }
    output(command(NAME).env(FILE, &path)).unwrap();
    let process = fs::read_to_string(&path).unwrap().trim().to_owned();
    let command_line = Path::new("/proc").join(&process).join("cmdline");
    let runs = || fs::read(&command_line).is_ok_and(|words| String::from_utf8_lossy(&words).contains("sleep"));
    let has_ended = (0..1500).any(|_| {
        thread::sleep(POLL);
        !runs()
    });
    if !has_ended {
        let _ = output(Command::new("kill").arg(&process));
    }
    assert!(has_ended, "it runs without the module");
}
