//! The inputs of a package, as a key. Two builds with the same key make the same package.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use host::cache;
use xshell::{Shell, cmd};

use super::toolchain::Toolchain;
use crate::target::Target;

/// The paths, in git's notation, whose content the packages depend on.
const PATHS: &[&str] = &[
    ".cargo",
    "Cargo.lock",
    "Cargo.toml",
    "debian",
    "modules",
    "xtask/src/dist.rs",
    "xtask/src/dist",
    "xtask/src/target.rs",
];

/// The inputs from the work tree.
pub struct Inputs {
    /// The hash of the names and contents of all files.
    files: String,
    /// The time of their last commit in seconds, which is also the time of packages and their files.
    pub epoch: String,
}

/// What is wrong in a clone without the whole history, and the remedy.
pub const SHALLOW: &str = "the history is incomplete, and with it the times of the packages, so that their checksums are \
                           not those of a release: run git fetch --unshallow";

/// Whether the clone is without a part of the history: its oldest commit then seems to change every file.
pub fn is_shallow(sh: &Shell) -> Result<bool> {
    let answer = cmd!(sh, "git rev-parse --is-shallow-repository").quiet().read();
    Ok(answer.context("reading the history with git failed: install git, and run the command in a clone")? == "true")
}

impl Inputs {
    /// Reads the work tree, also files that are not committed yet.
    pub fn read(sh: &Shell, root: &Path) -> Result<Self> {
        let needs_git = "listing the work tree with git failed: install git, and run the command in a clone";
        let names = cmd!(sh, "git ls-files -z --cached --others --exclude-standard -- {PATHS...}")
            .quiet()
            .read()
            .context(needs_git)?;
        let mut parts = Vec::new();
        for name in names.split_terminator('\0') {
            let path = root.join(name);
            if path.is_file() {
                let content =
                    fs::read(&path).with_context(|| format!("reading the input {} failed", path.display()))?;
                parts.extend([name.as_bytes().to_vec(), content]);
            }
        }
        // Without a commit git log fails. git ls-files above has already shown that git works.
        let epoch = cmd!(sh, "git log -1 --format=%ct -- {PATHS...}").quiet().ignore_status().ignore_stderr();
        let epoch = epoch.read().context(needs_git)?;
        let epoch = if epoch.is_empty() { "0".to_owned() } else { epoch };
        Ok(Inputs { files: cache::key(parts.iter().map(Vec::as_slice)), epoch })
    }

    /// The hash of all inputs from the work tree.
    pub fn identity(&self) -> String {
        cache::key([self.files.as_bytes(), self.epoch.as_bytes()])
    }

    /// The time of the last commit, as `2026-11-24T08:00:00Z`.
    pub fn time(&self, sh: &Shell) -> Result<String> {
        let date = format!("--date=@{}", self.epoch);
        Ok(cmd!(sh, "date --utc {date} +%Y-%m-%dT%H:%M:%SZ").quiet().read()?)
    }

    /// The key of a package that `toolchain` builds for `target`.
    pub fn key(&self, toolchain: &Toolchain, target: &Target) -> String {
        cache::key([&self.files, &self.epoch, &toolchain.identity, target.triple(toolchain.libc)].map(str::as_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::TARGETS;

    #[test]
    fn every_input_changes_the_key() {
        let key = |files: &str, epoch: &str, identity: &str, target| {
            let inputs = Inputs { files: files.into(), epoch: epoch.into() };
            inputs.key(&Toolchain::example(identity), target)
        };
        let made = key("files", "1", "rustc 1", &TARGETS[0]);
        assert_eq!(made, key("files", "1", "rustc 1", &TARGETS[0]));
        for other in [
            key("changed", "1", "rustc 1", &TARGETS[0]),
            key("files", "2", "rustc 1", &TARGETS[0]),
            key("files", "1", "rustc 2", &TARGETS[0]),
            key("files", "1", "rustc 1", &TARGETS[1]),
        ] {
            assert_ne!(made, other);
        }
    }
}
