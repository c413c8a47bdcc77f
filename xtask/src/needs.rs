//! The requirements of a command on the host. They are checked before it starts, and reported in one message.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Output;

use anyhow::{Context, Result, bail};
use host::packages;
use qemu::{Board, Image};
use xshell::Shell;

/// Debian packages, and operations that need root.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    packages: Vec<&'static str>,
    root: Vec<&'static str>,
}

impl Needs {
    /// The requirement of `packages`.
    pub fn packages(packages: &[&'static str]) -> Self {
        Self { packages: packages.to_vec(), root: Vec::new() }
    }

    /// The requirements of the emulated machines of `boards`. Root is needed only to build a missing image.
    pub fn machines(boards: &[&'static Board]) -> Result<Self> {
        let mut needs = Self::packages(qemu::PACKAGES);
        for board in boards {
            if !Image::is_built(board)? {
                needs.root = vec!["to build the images of the emulated machines (mmdebstrap, mke2fs)"];
            }
        }
        Ok(needs)
    }

    /// Adds the requirements of `other`.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.packages.extend(other.packages);
        self.root.extend(other.root);
        self.packages.sort_unstable();
        self.packages.dedup();
        self.root.dedup();
        self
    }

    /// Installs missing packages.
    ///
    /// # Errors
    /// This user cannot become root where that is needed: one message with all remedies. Or the installation failed.
    pub fn provide(&self, sh: &Shell) -> Result<()> {
        self.check(sh)?;
        packages::ensure(sh, &self.packages)
    }

    /// The packages that are not installed.
    pub fn missing(&self, sh: &Shell) -> Result<Vec<&'static str>> {
        packages::missing(sh, &self.packages)
    }

    /// Fails as [`Needs::provide`] does if this user cannot become root where that is needed. Installs nothing.
    pub fn check(&self, sh: &Shell) -> Result<()> {
        match self.obstacle(sh)? {
            Some(why) => bail!("requirements of this command are missing: {why}"),
            None => Ok(()),
        }
    }

    /// All requirements that this user cannot meet, in one text with the remedies, or `None`.
    pub fn obstacle(&self, sh: &Shell) -> Result<Option<String>> {
        let missing = self.missing(sh)?;
        Ok(if packages::may_be_root() { None } else { self.message(&missing) })
    }

    /// As [`Needs::obstacle`], in one line without remedies: for one suite of many, whose remedies are printed
    /// together.
    pub fn short_obstacle(&self, sh: &Shell) -> Result<Option<String>> {
        if packages::may_be_root() {
            return Ok(None);
        }
        let missing = self.missing(sh)?;
        let missing = (!missing.is_empty()).then(|| format!("missing Debian packages: {}", missing.join(" ")));
        let root = (!self.root.is_empty()).then(|| format!("root is needed {}", self.root.join(" and ")));
        let reasons: Vec<_> = missing.into_iter().chain(root).collect();
        Ok((!reasons.is_empty()).then(|| reasons.join("; ")))
    }

    /// The message of [`Needs::obstacle`], when `missing` packages are not installed.
    fn message(&self, missing: &[&str]) -> Option<String> {
        if missing.is_empty() && self.root.is_empty() {
            return None;
        }
        let mut lines = vec!["this user is not root, and sudo needs a password".to_owned()];
        if !missing.is_empty() {
            let list = missing.join(" ");
            lines.push(format!("Missing Debian packages: {list}. Install them with"));
            lines.push(format!("    {}", packages::remedy(&list)));
        }
        if !self.root.is_empty() {
            lines.push(format!(
                "Root is needed {}: run the command as root, or run sudo --validate before it",
                self.root.join(" and ")
            ));
        }
        Some(lines.join("\n"))
    }
}

/// Whether this process runs as root. Operations that mount or change the root directory in this process need that;
/// sudo is not enough.
pub fn is_root() -> Result<bool> {
    Ok(fs::metadata("/proc/self").context("reading the user of this process failed")?.uid() == 0)
}

/// The reason why a probe of what this process may do failed, from its `output`: the first line of its errors, because
/// mount(8) adds hints. `None` if it succeeded.
pub fn refusal(output: &Output) -> Option<String> {
    let errors = String::from_utf8_lossy(&output.stderr);
    let first = || errors.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("no reason").to_owned();
    (!output.status.success()).then(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_names_packages_and_root() {
        let needs = Needs::packages(&["b", "a"])
            .and(Needs::packages(&["a"]))
            .and(Needs { packages: Vec::new(), root: vec!["to mount"] });
        assert_eq!(needs.packages, ["a", "b"]);
        let message = needs.message(&["a"]).unwrap();
        assert!(message.contains("apt-get install --yes --no-install-recommends a"), "{message}");
        assert!(message.contains("Root is needed to mount"), "{message}");
        assert!(Needs::packages(&["a"]).message(&[]).is_none());
        assert!(Needs { packages: Vec::new(), root: vec!["to mount"] }.message(&[]).is_some());
    }
}
