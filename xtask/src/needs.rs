//! What a command needs of this machine: checked before it begins, and said once.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, bail};
use host::packages;
use qemu::{Board, Image};
use xshell::Shell;

use crate::dist;
use crate::target::Target;

/// Debian packages, and root for what only root may do.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    packages: Vec<&'static str>,
    root: Vec<&'static str>,
}

impl Needs {
    /// The Debian packages `packages`.
    pub fn packages(packages: &[&'static str]) -> Self {
        Self { packages: packages.to_vec(), root: Vec::new() }
    }

    /// What building packages for `targets` needs.
    pub fn dist(targets: &[&'static Target]) -> Self {
        let building = targets.iter().flat_map(|target| target.needs());
        Self::packages(&building.chain(dist::TOOLS.iter().copied()).collect::<Vec<_>>())
    }

    /// What the emulated machines of `boards` need; root only where an image has to be made.
    ///
    /// # Errors
    /// When there is no place for a cache.
    pub fn machines(boards: &[&'static Board]) -> Result<Self> {
        let mut needs = Self::packages(qemu::PACKAGES);
        for board in boards {
            if !Image::is_made(board)? {
                needs.root = vec!["to make the images of the emulated machines (mmdebstrap, mke2fs)"];
            }
        }
        Ok(needs)
    }

    /// These needs and those of `other`.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.packages.extend(other.packages);
        self.root.extend(other.root);
        self.packages.sort_unstable();
        self.packages.dedup();
        self.root.dedup();
        self
    }

    /// Installs what is missing, or says in one message all that this user has to see to.
    ///
    /// # Errors
    /// That message; and when the packages cannot be installed.
    pub fn provide(&self, sh: &Shell) -> Result<()> {
        if let Some(why) = self.obstacle(sh)? {
            bail!("this command cannot begin: {why}");
        }
        packages::ensure(sh, &self.packages)
    }

    /// All that keeps this user from what is needed, in one text with the remedy; `None` where nothing does.
    ///
    /// # Errors
    /// On a host without dpkg.
    pub fn obstacle(&self, sh: &Shell) -> Result<Option<String>> {
        let missing = packages::missing(sh, &self.packages)?;
        Ok(if packages::may_be_root() { None } else { self.refusal(&missing) })
    }

    fn refusal(&self, missing: &[&str]) -> Option<String> {
        if missing.is_empty() && self.root.is_empty() {
            return None;
        }
        let mut lines = vec!["this user is not root, and sudo cannot be used without a password".to_owned()];
        if !missing.is_empty() {
            let list = missing.join(" ");
            lines.push(format!("These Debian packages are missing: {list}. Install them with"));
            lines.push(format!("    {}", packages::remedy(&list)));
        }
        if !self.root.is_empty() {
            lines.push(format!(
                "Root is needed {}: run the command as root, or let sudo ask",
                self.root.join(" and ")
            ));
            lines.push("for the password before, with 'sudo --validate'".to_owned());
        }
        Some(lines.join("\n"))
    }
}

/// Whether root runs this itself: sudo does not help what mounts and changes root in this process.
///
/// # Errors
/// When /proc is not mounted.
pub fn is_root() -> Result<bool> {
    Ok(fs::metadata("/proc/self").context("finding out who runs this")?.uid() == 0)
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
        let said = needs.refusal(&["a"]).unwrap();
        assert!(said.contains("apt-get install --yes --no-install-recommends a"), "{said}");
        assert!(said.contains("Root is needed to mount"), "{said}");
        assert!(Needs::packages(&["a"]).refusal(&[]).is_none());
        assert!(Needs { packages: Vec::new(), root: vec!["to mount"] }.refusal(&[]).is_some());
    }
}
