//! `cargo xtask dist --check`: builds the last commit twice, compares every file, and scans the executables.
//!
//! The two builds differ in everything that must not matter: the directory, the time, the umask, the locale and the
//! time zone. Both use the cache of this user, with the standard library of Rust and the tools, and the same key.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use host::command::run;
use host::status::step;
use host::{cache, directory};
use xshell::{Cmd, Shell, cmd};

use super::signature::Signer;
use super::{Distribution, scan};
use crate::dist;
use crate::dist::modules;

/// The Debian packages of the programs that are used here.
pub const TOOLS: &[&str] = &["locales"];

/// What differs between the builds.
struct Variation {
    directory: &'static str,
    umask: &'static str,
    locale: &'static str,
    time_zone: &'static str,
}

/// A locale in which the letter i has another capital letter.
const TURKISH: &str = "tr_TR.UTF-8";

const BUILDS: [Variation; 2] = [
    Variation { directory: "one", umask: "022", locale: "C.UTF-8", time_zone: "UTC" },
    Variation { directory: "another/directory", umask: "077", locale: TURKISH, time_zone: "Pacific/Kiritimati" },
];

/// Runs the check with the options of `command`, and returns a summary.
///
/// # Errors
/// The work tree has changes, a build failed, the builds differ, or an executable has no list of its crates.
pub fn check(sh: &Shell, command: &Distribution) -> Result<String> {
    let changes = cmd!(sh, "git status --porcelain").quiet().read().context("reading the state of git failed")?;
    ensure!(
        changes.is_empty(),
        "the check builds the last commit, and the work tree has changes: commit them:\n{changes}"
    );
    let scratch = modules::workspace(sh)?.target.join("check");
    directory::empty(&scratch)?;
    let locales = scratch.join("locales");
    fs::create_dir_all(&locales).with_context(|| format!("creating {} failed", locales.display()))?;
    let locale = locales.join(TURKISH);
    step(format!("making the locale {TURKISH}"), |step| {
        run(step, cmd!(sh, "localedef --inputfile tr_TR --charmap UTF-8 {locale}"))
    })?;
    let signer = match &command.signing_key {
        Some(key) => Signer::of_user(sh, key, &dist::epoch(sh)?)?,
        None => Signer::throw_away(sh, &dist::epoch(sh)?)?,
    };
    let root = sh.current_dir();
    let mut results = Vec::new();
    for variation in &BUILDS {
        let tree = scratch.join(variation.directory);
        variation
            .build(sh, &root, &tree, &locales, command, &signer)
            .with_context(|| format!("building in {} failed", tree.display()))?;
        results.push(tree.join("dist"));
    }
    let [one, other] = results.as_slice() else { unreachable!("two builds") };
    let count = compare(one, other)?;
    let scanned = scan::all(sh, one)?;
    directory::remove(&scratch)?;
    let summary = format!("{count} files are identical in two builds; {scanned} executables list their crates");
    println!("{summary}");
    Ok(summary)
}

impl Variation {
    /// Clones the repository `root` to `tree`, and builds there.
    fn build(
        &self,
        sh: &Shell,
        root: &Path,
        tree: &Path,
        locales: &Path,
        command: &Distribution,
        signer: &Signer,
    ) -> Result<()> {
        let Self { umask, locale, time_zone, .. } = self;
        let parent = tree.parent().unwrap_or(tree);
        fs::create_dir_all(parent).with_context(|| format!("creating {} failed", parent.display()))?;
        let program = env::current_exe().context("finding the path of this program failed")?;
        // The files of the clone get other permissions, too.
        let shell = format!("umask {umask} && exec \"$@\"");
        let clone = cmd!(sh, "sh -c {shell} sh git clone --quiet {root} {tree}");
        let dist = cmd!(sh, "sh -c {shell} sh {program} dist --signing-key").arg(signer.key());
        let dist = dist.args(command.options()).env("CARGO_MANIFEST_DIR", tree.join("xtask"));
        let dist = dist.env("CARGO_TARGET_DIR", tree.join("target"));
        step(format!("building with umask {umask}, locale {locale}, time zone {time_zone}"), |step| {
            run(step, self.around(clone, locales, signer))?;
            run(step, self.around(dist, locales, signer))
        })?;
        Ok(())
    }

    /// `command` with the environment of this build.
    fn around<'a>(&self, command: Cmd<'a>, locales: &Path, signer: &Signer) -> Cmd<'a> {
        let command = command.env("LOCPATH", locales).env("LC_ALL", self.locale).env("TZ", self.time_zone);
        match signer.home() {
            Some(home) => command.env("GNUPGHOME", home),
            None => command,
        }
    }
}

/// Fails unless `one` and `other` have the same files with the same contents, and returns their number.
fn compare(one: &Path, other: &Path) -> Result<usize> {
    let (left, right) = (hashes(one)?, hashes(other)?);
    let all = left.keys().chain(right.keys().filter(|name| !left.contains_key(*name)));
    let different: Vec<_> = all.filter(|name| left.get(*name) != right.get(*name)).collect();
    let names: String = different.iter().map(|name| format!("\n    {}", name.display())).collect();
    ensure!(
        different.is_empty(),
        "{} of {} files differ between two builds: compare {} and {} with diffoscope:{names}",
        different.len(),
        left.len(),
        one.display(),
        other.display()
    );
    Ok(left.len())
}

/// The hashes of the files below `directory`, by their relative paths.
fn hashes(directory: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let hash = |path: PathBuf| {
        let content = fs::read(&path).with_context(|| format!("reading {} failed", path.display()))?;
        let name = path.strip_prefix(directory).unwrap_or(&path).to_owned();
        Ok((name, cache::sha256(&content)))
    };
    directory::files(directory)?.into_iter().map(hash).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_and_different_files_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let (one, other) = (directory.path().join("one"), directory.path().join("other"));
        for (path, content) in [("one/a", "x"), ("one/b/c", "x"), ("other/a", "x"), ("other/b/c", "x")] {
            directory::write(&directory.path().join(path), content).unwrap();
        }
        assert_eq!(compare(&one, &other).unwrap(), 2);
        directory::write(&one.join("b/c"), "y").unwrap();
        directory::write(&one.join("only-one"), "").unwrap();
        directory::write(&other.join("only-other"), "").unwrap();
        let error = compare(&one, &other).unwrap_err().to_string();
        assert!(error.starts_with("3 of 3 files differ"), "{error}");
        assert!(error.ends_with(":\n    b/c\n    only-one\n    only-other"), "{error}");
    }

    #[test]
    fn the_builds_differ_in_everything() {
        let [one, other] = &BUILDS;
        assert!(one.directory != other.directory && one.directory.len() != other.directory.len());
        assert!(one.umask != other.umask && one.locale != other.locale && one.time_zone != other.time_zone);
    }
}
