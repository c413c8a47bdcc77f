//! Namespaces for the tests of a mutant.

use anyhow::Result;

use crate::needs::is_root;

/// Runs a command in namespaces of its own (unshare(1)).
pub const UNSHARE: &str = "unshare";

/// The script of the first process of a namespace, which runs a command: a shell waits for the orphans of the tests,
/// cargo-mutants would leave them as zombies.
const INIT: &str = "\"$@\"; exit $?";

/// The options for namespaces of processes and mounts, and their first process. A mutant of the code that kills
/// programs may kill every process that it finds; and however the tests end, none of their mounts remains.
pub fn isolation() -> Result<Vec<&'static str>> {
    let mut options = vec!["--pid", "--fork", "--kill-child", "--mount-proc"];
    if !is_root()? {
        options.extend(["--user", "--map-current-user"]);
    }
    options.extend(["sh", "-c", INIT, "sh"]);
    Ok(options)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::needs::refusal;

    #[test]
    fn orphans_of_tests_do_not_remain_as_zombies() {
        // timeout(1) waits for its own child only, as cargo-mutants does.
        let run = |script: &str| {
            let mut command = Command::new(UNSHARE);
            command.args(isolation().unwrap()).args(["timeout", "60", "sh", "-c", script]).output().unwrap()
        };
        if let Some(refusal) = refusal(&run("true")) {
            return eprintln!("skipped: {refusal}");
        }
        let orphans = "sh -c 'sleep 0.1 &'; sleep 1; ! cat /proc/[0-9]*/status 2>/dev/null | grep '^State:.Z'";
        let output = run(orphans);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert_eq!(run("exit 3").status.code(), Some(3));
    }
}
