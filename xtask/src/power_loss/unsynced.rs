//! The module `web-file` without any sync, for the negative control: built from a changed copy of the sources.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use host::command::shell_in;
use host::directory;
use xshell::{Shell, cmd};

use crate::dist;
use crate::target::Target;

/// Files of the library, and in each the calls that sync with what replaces them.
const CHANGES: &[(&str, &[(&str, &str)])] = &[
    (
        "modules/mender-update-module/src/durable/dir.rs",
        &[
            ("fs::fsync(&self.fd).with_context(|| failed(\"syncing the directory\", &self.path))", "Ok(())"),
            ("fs::syncfs(&self.fd).with_context(|| failed(\"syncing the file system of\", &self.path))", "Ok(())"),
        ],
    ),
    ("modules/mender-update-module/src/durable/mod.rs", &[("\n        .and_then(|()| partial.sync_all())", "")]),
];

/// Builds the module for `target`, and returns the path of its executable.
pub fn web_file(sh: &Shell, target: &'static Target) -> Result<PathBuf> {
    let copy = sh.current_dir().join("target/power-loss/unsynced");
    copy_sources(sh, &copy)?;
    for (file, changes) in CHANGES {
        let path = copy.join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("reading {} failed", path.display()))?;
        directory::write(&path, without(&text, changes).with_context(|| format!("removing the syncs in {file}"))?)?;
    }
    let in_copy = shell_in(&copy)?;
    dist::executable(&in_copy, target, "web-file")
}

/// Copies the files that git tracks. Build results of an earlier copy are kept.
fn copy_sources(sh: &Shell, copy: &Path) -> Result<()> {
    let files = cmd!(sh, "git ls-files").quiet().read().context("listing the sources failed")?;
    for file in files.lines() {
        let (from, to) = (sh.current_dir().join(file), copy.join(file));
        if from.is_file() {
            directory::write(&to, fs::read(&from).with_context(|| format!("reading {} failed", from.display()))?)?;
        }
    }
    Ok(())
}

/// `text` with all `changes`. Each has to apply exactly once.
fn without(text: &str, changes: &[(&str, &str)]) -> Result<String> {
    changes.iter().try_fold(text.to_owned(), |text, (from, to)| {
        let count = text.matches(from).count();
        ensure!(count == 1, "the text occurs {count} times instead of once: {from}: correct CHANGES");
        Ok(text.replace(from, to))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sync_of_the_library_is_removed() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for (file, changes) in CHANGES {
            let text = without(&fs::read_to_string(root.join(file)).unwrap(), changes).unwrap();
            let code = text.split("mod tests").next().unwrap();
            for call in ["fs::fsync(", "fs::syncfs(", "sync_all()", "sync_data()"] {
                assert!(!code.contains(call), "{file}: {call}");
            }
        }
    }

    #[test]
    fn a_change_has_to_apply() {
        assert!(without("a", &[("b", "")]).is_err() && without("bb", &[("b", "")]).is_err());
        assert_eq!(without("abc", &[("b", "")]).unwrap(), "ac");
    }
}
