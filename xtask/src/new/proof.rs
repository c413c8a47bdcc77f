//! The test of the templates: makes modules in copies, and runs the tests that their authors would run.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use host::command::{run, shell_in};
use host::status::step;
use host::{cache, directory};
use xshell::{Shell, cmd};

use super::{Module, remove, standalone};
use crate::conformance::Conformance;
use crate::crash::Crash;
use crate::dist::{modules, source};
use crate::layer::{Layer, PREBUILT};
use crate::record::Record;

/// The name of the module: longer than the template's, of two words.
const NAME: &str = "garden-irrigation";

/// The number of crash points in each sequence: what is tested is the template, not the library.
const POINTS: u32 = 3;

/// Makes a module in a copy of the work tree, and a crate outside it, and runs lints, tests, conformance and fault
/// injection on both. Returns a summary. First it checks that a failing attempt changes nothing, and that the command
/// can be undone.
pub fn proof(sh: &Shell, record: &Record) -> Result<String> {
    let workspace = modules::workspace(sh)?;
    let directory = workspace.root.join("target/new");
    let _lock = cache::lock(&workspace.root.join("target/new.lock"))?;
    let (tree, target) = (directory.join("work-tree"), directory.join("target"));
    copy(sh, &workspace.root, &tree)?;
    let there = &shell_in(&tree)?;
    // A target directory of its own: cargo cannot tell a crate in the copy from the same crate in the work tree.
    there.set_var("CARGO_TARGET_DIR", &target);
    // The files of a work tree are those that git knows or could know.
    cmd!(there, "git init --quiet").quiet().run().context("git init failed in the copy")?;
    fails_and_leaves_nothing(there)?;
    can_be_undone(there)?;
    Module { name: NAME.to_owned() }.make(there)?;
    step(format!("{NAME}: lints and tests"), |step| {
        run(step, cmd!(there, "cargo clippy --package {NAME} --all-targets --locked -- --deny warnings"))?;
        run(step, cmd!(there, "cargo test --package {NAME} --locked"))
    })?;
    let cases = Conformance::of(target.join("debug").join(NAME)).run(there, record)?;
    // With the tracer of this work tree, which is already built.
    let payload = tree.join("modules").join(NAME).join("tests/payload");
    let faults = Crash::with(&target.join("debug").join(NAME), payload, POINTS).run(sh, record)?;
    let outside = outside(sh, &target)?;
    Ok(format!("{NAME}: {cases}; {faults}; {outside}"))
}

/// Makes a crate outside this repository, and runs its tests: they use the published test kit only.
fn outside(sh: &Shell, target: &Path) -> Result<String> {
    let outside = tempfile::tempdir().context("making a directory failed")?;
    let directory = outside.path().join("crate");
    standalone::make(sh, &Module { name: NAME.to_owned() }, &directory)?;
    let there = &shell_in(&directory)?;
    there.set_var("CARGO_TARGET_DIR", target);
    step("a crate outside this repository: lints and tests", |step| {
        run(step, cmd!(there, "cargo clippy --all-targets -- --deny warnings"))?;
        run(step, cmd!(there, "cargo test"))
    })?;
    let tests = cmd!(there, "cargo test --test suite -- --list").quiet().read().context("listing the tests failed")?;
    for kind in ["conformance: ", "fault injection: "] {
        ensure!(tests.contains(kind), "the crate outside this repository has no test of {kind}: {tests}");
    }
    Ok(format!("outside this repository: {} tests of the suite", tests.matches(": test\n").count() + 1))
}

/// Checks that an attempt that cargo refuses changes nothing: the manifest of the template is invalid for the moment.
fn fails_and_leaves_nothing(there: &Shell) -> Result<()> {
    let manifest = there.current_dir().join("xtask/template/modules/fireplace/Cargo.toml");
    let valid = fs::read(&manifest).with_context(|| format!("reading {} failed", manifest.display()))?;
    directory::write(&manifest, "[package]\n")?;
    let state = || cmd!(there, "git status --porcelain --untracked-files=all").quiet().read();
    let before = state()?;
    let made = Module { name: NAME.to_owned() }.make(there);
    ensure!(made.is_err(), "a module that cargo refuses was made");
    let after = state()?;
    ensure!(after == before, "a failing attempt changed the work tree:\n{before}\n{after}");
    modules::workspace(there).context("a failing attempt left a work tree that cargo refuses")?;
    directory::write(&manifest, valid)
}

/// Checks that the removal of a module's paths, which the command prints, leaves the work tree as it was.
fn can_be_undone(there: &Shell) -> Result<()> {
    Layer::default().run(there)?;
    let root = there.current_dir();
    cmd!(there, "git add .").quiet().run().context("git add failed in the copy")?;
    let module = Module { name: NAME.to_owned() };
    module.make(there)?;
    let paths = module.own_paths(&module.files(there, &root)?);
    for path in module.with_generated(paths) {
        remove(&root.join(&path)).with_context(|| format!("removing {} failed", path.display()))?;
    }
    cmd!(there, "git checkout --quiet {PREBUILT}").quiet().run().context("git checkout failed in the copy")?;
    // Cargo does that when it is called with `cargo xtask layer`.
    source::update_lock(there, &root)?;
    Layer::default().run(there)?;
    let changed = cmd!(there, "git status --porcelain --untracked-files=all").quiet().read()?;
    let changed: Vec<&str> = changed.lines().filter(|line| !line.starts_with("A  ")).collect();
    ensure!(changed.is_empty(), "a module that is removed leaves changes:\n{}", changed.join("\n"));
    Ok(())
}

/// Copies the files that git knows in `root`, or could know, to `tree`.
fn copy(sh: &Shell, root: &Path, tree: &Path) -> Result<()> {
    directory::empty(tree)?;
    for path in source::tracked(sh, &["."])? {
        let (from, to) = (root.join(&path), tree.join(&path));
        let content = fs::read(&from).with_context(|| format!("reading {} failed", from.display()))?;
        directory::write(&to, content)?;
    }
    Ok(())
}
