//! The proof that a new module is sound as it is made: it is made in a copy of the work tree, and tried there.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use host::command::run;
use host::folder;
use host::status::step;
use xshell::{Shell, cmd};

use super::Module;
use crate::conformance::Conformance;
use crate::crash::Crash;
use crate::dist::{modules, source};
use crate::layer::Layer;

/// What the module is called: longer than the template's name, of two words.
const NAME: &str = "garden-irrigation";

/// Makes a module and tries all that its author would: lints, tests, the protocol, every cut, the layer. Says what that showed.
///
/// # Errors
/// When something of it fails.
pub fn proof(sh: &Shell) -> Result<String> {
    let workspace = modules::workspace(sh)?;
    let target = workspace.target.parent().context("the target folder for dist is in that for tests")?;
    let tree = target.join("new");
    copy(sh, &workspace.root, &tree)?;
    let there = &Shell::new()?;
    there.change_dir(&tree);
    // What it is built of is built already.
    there.set_var("CARGO_TARGET_DIR", target);
    // The work tree's files are those that git knows or could know.
    cmd!(there, "git init --quiet").quiet().run().context("making the copy a repository")?;
    Module { name: NAME.to_owned() }.make(there)?;
    step(format!("{NAME}: lints and tests"), |step| {
        run(step, cmd!(there, "cargo clippy --package {NAME} --all-targets --locked -- --deny warnings"))?;
        run(step, cmd!(there, "cargo test --package {NAME} --locked"))
    })?;
    let cases = Conformance::of(target.join("debug").join(NAME)).run(there)?;
    let cuts = Crash::of(NAME).run(there)?;
    Layer::CHECK.run(there)?;
    Ok(format!("{NAME}: {cases}; {cuts}"))
}

/// Copies to `tree` what git knows in `root`, or could know.
fn copy(sh: &Shell, root: &Path, tree: &Path) -> Result<()> {
    folder::empty(tree)?;
    for path in source::tracked(sh, &["."])? {
        let (from, to) = (root.join(&path), tree.join(&path));
        let content = fs::read(&from).with_context(|| format!("reading {}", from.display()))?;
        folder::write(&to, content)?;
    }
    Ok(())
}
