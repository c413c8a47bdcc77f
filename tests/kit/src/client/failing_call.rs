//! System calls that fail, injected with strace.

use std::path::Path;
use std::process::Command;

use super::MockClient;

impl MockClient {
    /// Lets the system call `call` fail with `error` in the directory `directory`, in every later call of the module.
    /// `wrap::<&str>([])` ends that. Says why and returns false if strace is not installed, or may not trace.
    pub fn fail_call(&mut self, call: &str, error: &str, directory: &Path) -> bool {
        let [trace, inject] = [format!("--trace={call}"), format!("--inject={call}:error={error}")];
        let path = format!("--trace-path={}", directory.display());
        let strace = ["strace", &trace, &inject, &path, "--output=/dev/null"];
        let runs = Command::new(strace[0]).args(&strace[1..]).arg("true").output();
        let is_usable = runs.is_ok_and(|output| output.status.success());
        if is_usable {
            self.wrap(strace);
        } else {
            eprintln!("skipped: strace is not installed, or may not trace");
        }
        is_usable
    }
}
