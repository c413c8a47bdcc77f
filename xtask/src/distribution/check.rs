//! `cargo xtask dist --check`: builds the last commit twice, compares every file, and scans the executables.
//!
//! The two builds differ in everything that must not matter: the directory, the time, the umask, the locale, the time
//! zone, and the directories of the user's Rust toolchain, of the standard library built with it, and of the tools.
//! Both use the same key.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use host::command::run;
use host::status::step;
use host::{cache, directory};
use xshell::{Cmd, Shell, cmd};

use super::signature::Signer;
use super::{Distribution, scan};
use crate::dist;
use crate::dist::{modules, rust_source};

/// The Debian packages of the programs that are used here.
pub const TOOLS: &[&str] = &["locales"];

/// What differs between the builds.
struct Variation {
    directory: &'static str,
    umask: &'static str,
    locale: &'static str,
    time_zone: &'static str,
    /// Whether the toolchain is in another directory, and the standard library is built again.
    has_other_home: bool,
}

/// A locale in which the letter i has another capital letter.
const TURKISH: &str = "tr_TR.UTF-8";

const BUILDS: [Variation; 2] = [
    Variation { directory: "one", umask: "022", locale: "C.UTF-8", time_zone: "UTC", has_other_home: false },
    Variation {
        directory: "another/directory",
        umask: "077",
        locale: TURKISH,
        time_zone: "Pacific/Kiritimati",
        has_other_home: true,
    },
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
    let _lock = cache::lock(&scratch.with_extension("lock"))?;
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
    let check = Check { sh, scratch: &scratch, locales: &locales, command, signer: &signer };
    let results = BUILDS.iter().map(|variation| check.build(variation)).collect::<Result<Vec<_>>>()?;
    let [one, other] = results.as_slice() else { unreachable!("two builds") };
    let count = compare(one, other)?;
    let scanned = scan::all(sh, one)?;
    directory::remove(&scratch)?;
    let summary = format!("{count} files are identical in two builds; {scanned} executables list their crates");
    println!("{summary}");
    Ok(summary)
}

/// What the builds have in common.
struct Check<'a> {
    sh: &'a Shell,
    scratch: &'a Path,
    locales: &'a Path,
    command: &'a Distribution,
    signer: &'a Signer<'a>,
}

impl Check<'_> {
    /// Clones the repository, builds in the clone, and returns the directory of the results.
    fn build(&self, variation: &Variation) -> Result<PathBuf> {
        let tree = self.scratch.join(variation.directory);
        let Variation { umask, locale, time_zone, has_other_home, .. } = variation;
        let parent = tree.parent().unwrap_or(&tree);
        fs::create_dir_all(parent).with_context(|| format!("creating {} failed", parent.display()))?;
        let program = env::current_exe().context("finding the path of this program failed")?;
        // The files of the clone get other permissions, too.
        let shell = format!("umask {umask} && exec \"$@\"");
        let (sh, root) = (self.sh, self.sh.current_dir());
        let clone = cmd!(sh, "sh -c {shell} sh git clone --quiet {root} {tree}");
        let dist = cmd!(sh, "sh -c {shell} sh {program} dist --rebuild --signing-key").arg(self.signer.key());
        let dist = dist.args(self.command.options()).env("CARGO_MANIFEST_DIR", tree.join("xtask"));
        let mut dist = dist.env("CARGO_TARGET_DIR", tree.join("target"));
        if *has_other_home {
            // Not before the first build, which adds to the toolchain what it lacks.
            dist = dist.envs(other_home(sh, &self.scratch.join("home"))?);
        }
        step(format!("building with umask {umask}, locale {locale}, time zone {time_zone}"), |step| {
            run(step, self.around(clone, variation))?;
            run(step, self.around(dist, variation))
        })
        .with_context(|| format!("building in {} failed", tree.display()))?;
        Ok(tree.join("dist"))
    }

    /// `command` with the environment of the build `variation`.
    fn around<'a>(&self, command: Cmd<'a>, variation: &Variation) -> Cmd<'a> {
        let command = command.env("LOCPATH", self.locales).env("LC_ALL", variation.locale);
        let command = command.env("TZ", variation.time_zone);
        match self.signer.home() {
            Some(home) => command.env("GNUPGHOME", home),
            None => command,
        }
    }
}

/// Makes the directories of another user in `home`: a cache with copies of the tools and without the standard library,
/// and a copy of the toolchain, if rustup manages it. Returns the variables that name them.
fn other_home(sh: &Shell, home: &Path) -> Result<Vec<(&'static str, PathBuf)>> {
    let cache = home.join("cache");
    let entries = cache.join(cache::NAME);
    fs::create_dir_all(&entries).with_context(|| format!("creating {} failed", entries.display()))?;
    for entry in directory::entries(&cache::directory()?)? {
        let name = entry.file_name().unwrap_or_default();
        if name.as_encoded_bytes().starts_with(b"cargo-") {
            // A program has its path from the kernel, without symlinks.
            step("copying a tool", |step| run(step, cmd!(sh, "cp --archive {entry} {entries}")))?;
        } else if name != rust_source::KIND {
            symlink(&entry, entries.join(name)).with_context(|| format!("linking {} failed", entry.display()))?;
        }
    }
    let mut variables = vec![("XDG_CACHE_HOME", cache)];
    let sysroot = PathBuf::from(cmd!(sh, "rustc --print sysroot").quiet().read().context("starting rustc failed")?);
    let toolchains = sysroot.parent().filter(|parent| parent.ends_with("toolchains"));
    if let Some(rustup) = toolchains.and_then(Path::parent) {
        let (copy, settings) = (home.join("rustup"), rustup.join("settings.toml"));
        let toolchains = copy.join("toolchains");
        fs::create_dir_all(&toolchains).with_context(|| format!("creating {} failed", toolchains.display()))?;
        step("copying the toolchain", |step| {
            run(step, cmd!(sh, "cp --archive {settings} {copy}"))?;
            run(step, cmd!(sh, "cp --archive {sysroot} {toolchains}"))
        })?;
        variables.push(("RUSTUP_HOME", copy));
    }
    Ok(variables)
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
        assert!(!one.has_other_home && other.has_other_home);
    }
}
