//! Shell scripts that start a program in another way.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

/// Writes the script `text`, without its first line, to `path`, and makes it executable.
pub fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, format!("#!/bin/sh\n{text}")).with_context(|| format!("writing {} failed", path.display()))?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
        .with_context(|| format!("making {} executable failed", path.display()))
}

/// `word` as one word of a script.
pub fn quoted(word: impl AsRef<OsStr>) -> String {
    format!("'{}'", word.as_ref().to_string_lossy().replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_script_starts_programs_of_any_path() {
        let directory = tempfile::tempdir().unwrap();
        let [program, script] = ["it's a \"$HOME\" program", "script"].map(|name| directory.path().join(name));
        // Not files that the test writes: while another thread starts a process, those are busy.
        std::os::unix::fs::symlink("/bin/sh", &program).unwrap();
        write(&script, &format!("exec {} \"$@\"\n", quoted(&program))).unwrap();
        assert_eq!(fs::metadata(&script).unwrap().permissions().mode() & 0o777, 0o755);
        assert!(fs::read_to_string(&script).unwrap().starts_with("#!/bin/sh\n"));
        let output =
            Command::new("sh").arg(&script).args(["-c", "echo \"$1\" \"$2\"", "sh", "a  b", "c"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "a  b c\n");
    }
}
