//! Shell scripts that start a program in another way.

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

/// `path` as one word of a script.
pub fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_script_starts_programs_of_any_path() {
        let directory = tempfile::tempdir().unwrap();
        let [program, script] = ["it's a \"$HOME\" program", "script"].map(|name| directory.path().join(name));
        write(&program, "echo \"$@\"\n").unwrap();
        write(&script, &format!("exec {} \"$@\"\n", quoted(&program))).unwrap();
        let output = Command::new(&script).args(["a  b", "c"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "a  b c\n");
    }
}
