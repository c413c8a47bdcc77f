//! `cargo xtask release`: raises the version in every place, checks the result, and makes the files of the release.
//!
//! It makes two commits: the packages have the time of the first one, and the second one has their checksums for the
//! Yocto layer. It publishes nothing.

mod changelog;
mod version;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use clap::Args;
use host::command::{run, shell_in};
use host::directory;
use host::status::step;
use xshell::{Shell, cmd};

use crate::dist::source::{self, tracked};
use crate::distribution::{Distribution, repository};
use crate::layer::Layer;
use version::Version;

/// Raises the version in every file, tests, commits, makes dist/, and prints how to tag and publish it
///
/// Takes about 20 minutes on 2 cores. The two commits can be undone with git reset.
#[derive(Args)]
pub struct Release {
    /// The version of the release, such as 0.2.0
    #[arg(value_name = "VERSION", value_parser = Version::parse)]
    version: Version,
    /// Does everything in a clone, target/release/VERSION, and leaves this work tree as it is
    #[arg(long)]
    dry_run: bool,
    /// Signs with this key of gpg [default: a throw-away key]
    #[arg(long, value_name = "ID")]
    signing_key: Option<String>,
    /// Names this URL of the APT repository in its file for apt's sources [default: the project's]
    #[arg(long, value_name = "URL")]
    apt_url: Option<String>,
}

impl Release {
    /// Makes the release.
    ///
    /// # Errors
    /// The work tree has changes, the version is not newer, the tag exists, or a step failed. Before the first commit,
    /// `git reset --hard` undoes what has changed.
    pub fn run(self, sh: &Shell) -> Result<()> {
        let tag = format!("v{}", self.version);
        let changes = cmd!(sh, "git status --porcelain").quiet().read().context("reading the state of git failed")?;
        ensure!(changes.is_empty(), "the work tree has changes: commit them before a release:\n{changes}");
        let known = cmd!(sh, "git tag --list {tag}").quiet().read().context("listing the tags of git failed")?;
        ensure!(known.is_empty(), "the tag {tag} exists: this version is released: choose a newer one");
        if !self.dry_run {
            return self.make(sh, &tag);
        }
        let directory = sh.current_dir().join("target/release");
        let clone = directory.join(self.version.to_string());
        directory::remove(&clone)?;
        let root = sh.current_dir();
        step("cloning the work tree", |step| run(step, cmd!(sh, "git clone --quiet {root} {clone}")))?;
        let there = shell_in(&clone)?;
        // A directory of its own, because cargo cannot tell a crate in the clone from the same crate in the work tree.
        // The next dry run uses it again.
        there.set_var("CARGO_TARGET_DIR", directory.join("build"));
        self.make(&there, &tag)?;
        println!("\nThis was a dry run: the work tree is unchanged, and the result is in {}.", clone.display());
        Ok(())
    }

    /// Makes the release in the work tree of `sh`.
    fn make(&self, sh: &Shell, tag: &str) -> Result<()> {
        let (root, version) = (sh.current_dir(), &self.version);
        let previous = Version::of_workspace(&root)?;
        ensure!(
            *version >= previous,
            "version {version} is older than the version of the workspace, {previous}: choose a newer one"
        );
        changelog::release(sh, version)?;
        raise(sh, &previous, version)?;
        Layer::default().run(sh)?;
        step("testing", |step| run(step, cmd!(sh, "cargo xtask test --quick")))
            .context("testing the release failed: correct it, and run the command again after git reset --hard")?;
        commit(sh, &format!("Release {version}"))?;
        Distribution::signed(self.signing_key.clone(), self.apt_url.clone()).run(sh)?;
        Layer::PREBUILT.run(sh)?;
        commit(sh, &format!("Layer: checksums of the packages of {version}"))?;
        if previous != *version {
            print_remaining(sh, &previous.to_string())?;
        }
        print_remaining(sh, UNRELEASED)?;
        println!("\n{}", instructions(version, tag, self.apt_url.as_deref().unwrap_or(repository::URL)));
        Ok(())
    }
}

/// The workspace of the fuzzing executables, whose lock names the versions of our crates, too.
const FUZZ: &str = "fuzz";

/// Raises the version from `previous` in every file that names the version of this work tree.
fn raise(sh: &Shell, previous: &Version, version: &Version) -> Result<()> {
    let root = sh.current_dir();
    if previous == version {
        return Ok(());
    }
    let manifest = root.join("Cargo.toml");
    let text = version::in_manifest(source::manifest(&manifest)?, version)?;
    directory::write(&manifest, text)?;
    for path in tracked(sh, &["."])? {
        let full = root.join(&path);
        if version::is_text(&path) {
            let text = fs::read_to_string(&full).with_context(|| format!("reading {} failed", full.display()))?;
            let raised = version::in_text(&text, previous, version);
            if raised != text {
                directory::write(&full, raised)?;
            }
        }
        if let Some(renamed) = version::recipe(&path, previous, version) {
            cmd!(sh, "git mv {path} {renamed}")
                .quiet()
                .run()
                .with_context(|| format!("renaming {} failed", path.display()))?;
        }
    }
    for workspace in [root.clone(), root.join(FUZZ)] {
        let lock = workspace.join("Cargo.lock");
        source::update_lock(sh, &workspace).with_context(|| format!("updating {} failed", lock.display()))?;
    }
    Ok(())
}

fn commit(sh: &Shell, subject: &str) -> Result<()> {
    cmd!(sh, "git add --all").quiet().run().context("adding the changes to git failed")?;
    cmd!(sh, "git commit --quiet --message {subject}").quiet().run().context("committing with git failed")
}

/// What the documentation says before the first release.
const UNRELEASED: &str = "there is no release yet";

/// Prints the lines that still contain `words`: whether they are correct is for the reader to see.
fn print_remaining(sh: &Shell, words: &str) -> Result<()> {
    let mut lines = Vec::new();
    for path in tracked(sh, &["."])?.iter().filter(|path| version::is_reviewed(path)) {
        let text = fs::read_to_string(sh.current_dir().join(path));
        let text = text.with_context(|| format!("reading {} failed", path.display()))?;
        lines.extend(remaining(path, &text, words));
    }
    if !lines.is_empty() {
        println!("\nThese lines contain {words:?}. Read whether they are correct:\n{}", lines.join("\n"));
    }
    Ok(())
}

/// The lines of `text` that contain `words`, which are in lower case, in any case; each with `path` and its number.
fn remaining(path: &Path, text: &str, words: &str) -> Vec<String> {
    let lines = (1..).zip(text.lines()).filter(|(_, line)| line.to_lowercase().contains(words));
    lines.map(|(number, line)| format!("    {}:{number}: {}", path.display(), line.trim())).collect()
}

/// What remains to be done; `url` is that of the APT repository.
fn instructions(version: &Version, tag: &str, url: &str) -> String {
    format!(
        "Read the two commits: git show HEAD~1 HEAD. To undo them: git reset --hard HEAD~2. To publish version {version}:\n\
         \n    git tag --sign {tag} --message 'Version {version}'\
         \n    git push origin HEAD {tag}\
         \n    gh release create {tag} --verify-tag --notes-file CHANGELOG.md dist/*.deb dist/*.json dist/*.tar.gz \
         dist/SHA256SUMS dist/SHA256SUMS.asc\
         \n    cargo publish --locked --package mender-update-module\
         \n    cargo publish --locked --package mender-update-module-test\
         \n\nPublish the directory dist/apt at {url}."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_the_previous_version_are_shown() {
        let text = "x\n  since 0.1.0\n0.1.1\nThere is no release yet.\n";
        assert_eq!(remaining(Path::new("a.md"), text, "0.1.0"), ["    a.md:2: since 0.1.0"]);
        assert_eq!(remaining(Path::new("a.md"), text, UNRELEASED), ["    a.md:4: There is no release yet."]);
    }

    #[test]
    fn instructions_name_the_tag() {
        let text = instructions(&Version::parse("0.2.0").unwrap(), "v0.2.0", "https://apt.example.org");
        assert!(text.contains("git tag --sign v0.2.0 ") && text.contains("git push origin HEAD v0.2.0"), "{text}");
        assert!(text.ends_with("at https://apt.example.org."), "{text}");
    }
}
