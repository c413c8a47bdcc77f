//! The proof that a new module is sound as it is made: it is made in a copy of the work tree, and tried there.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use host::command::run;
use host::directory;
use host::status::step;
use xshell::{Shell, cmd};

use super::Module;
use crate::conformance::Conformance;
use crate::crash::Crash;
use crate::dist::{modules, source};

/// What the module is called: longer than the template's name, of two words.
const NAME: &str = "garden-irrigation";

/// Makes a module and tries what its author would: lints, tests, the protocol, every cut. Says what that showed. Before that it
/// sees to it that an attempt which fails leaves the copy as it was.
///
/// # Errors
/// When something of it fails.
pub fn proof(sh: &Shell) -> Result<String> {
    let workspace = modules::workspace(sh)?;
    let scratch = workspace.root.join("target/new");
    let (tree, target) = (scratch.join("work-tree"), scratch.join("target"));
    copy(sh, &workspace.root, &tree)?;
    let there = &Shell::new()?;
    there.change_dir(&tree);
    // Not that of the work tree: to cargo, a crate at the same place in a copy is the same crate.
    there.set_var("CARGO_TARGET_DIR", &target);
    // The work tree's files are those that git knows or could know.
    cmd!(there, "git init --quiet").quiet().run().context("making the copy a repository")?;
    fails_and_leaves_nothing(there)?;
    Module { name: NAME.to_owned() }.make(there)?;
    step(format!("{NAME}: lints and tests"), |step| {
        run(step, cmd!(there, "cargo clippy --package {NAME} --all-targets --locked -- --deny warnings"))?;
        run(step, cmd!(there, "cargo test --package {NAME} --locked"))
    })?;
    let cases = Conformance::of(target.join("debug").join(NAME)).run(there)?;
    let cuts = Crash::of(NAME).run(there)?;
    Ok(format!("{NAME}: {cases}; {cuts}"))
}

/// Has a module made that cargo refuses: its manifest in the template is broken for the moment.
fn fails_and_leaves_nothing(there: &Shell) -> Result<()> {
    let manifest = there.current_dir().join("xtask/template/modules/fireplace/Cargo.toml");
    let whole = fs::read(&manifest).with_context(|| format!("reading {}", manifest.display()))?;
    directory::write(&manifest, "[package]\n")?;
    let state = || cmd!(there, "git status --porcelain --untracked-files=all").quiet().read();
    let before = state()?;
    let made = Module { name: NAME.to_owned() }.make(there);
    ensure!(made.is_err(), "a module that cargo refuses was made");
    let after = state()?;
    ensure!(after == before, "an attempt that failed leaves another work tree:\n{before}\n{after}");
    modules::workspace(there).context("an attempt that failed leaves a work tree that cargo refuses")?;
    directory::write(&manifest, whole)
}

/// Copies to `tree` what git knows in `root`, or could know.
fn copy(sh: &Shell, root: &Path, tree: &Path) -> Result<()> {
    directory::empty(tree)?;
    for path in source::tracked(sh, &["."])? {
        let (from, to) = (root.join(&path), tree.join(&path));
        let content = fs::read(&from).with_context(|| format!("reading {}", from.display()))?;
        directory::write(&to, content)?;
    }
    Ok(())
}
