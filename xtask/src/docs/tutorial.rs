//! Runs the tutorial: writes its files and executes its commands, in the order of the page.

use std::fs;

use anyhow::{Context, Result, ensure};
use host::status::step;
use host::{command, directory};
use xshell::{Shell, cmd};

use crate::dist::modules;

/// The page.
const PAGE: &str = "docs/develop/write-a-module.md";

/// A block of code in the page.
#[derive(Debug, PartialEq, Eq)]
enum Block {
    /// The file PATH with this content: `<!-- file: PATH -->` before the block.
    File(String, String),
    /// Shell commands.
    Commands(String),
    /// A block that is not executed: `<!-- not run: REASON -->` before it.
    NotRun(String),
}

/// Executes every block of the tutorial in a temporary directory, and returns a summary.
///
/// # Errors
/// When a command fails, or a block is neither a file nor commands nor marked as not run.
pub fn run(sh: &Shell) -> Result<String> {
    let root = sh.current_dir();
    let page = root.join(PAGE);
    let text = fs::read_to_string(&page).with_context(|| format!("reading {} failed", page.display()))?;
    let blocks = blocks(&text)?;
    let directory = tempfile::tempdir().context("making a directory failed")?;
    let there = &Shell::new()?;
    there.change_dir(directory.path());
    there.set_var("REPOSITORY", &root);
    there.set_var("TUTORIAL", directory.path());
    there.set_var("CARGO_TARGET_DIR", modules::target_directory(&modules::metadata(sh)?)?);
    let (mut files, mut commands, mut not_run) = (0, 0, Vec::new());
    for block in blocks {
        match block {
            Block::File(path, content) => {
                directory::write(&directory.path().join(path), content)?;
                files += 1;
            }
            Block::Commands(script) => {
                let first = script.lines().find(|line| !line.starts_with('#')).unwrap_or_default().to_owned();
                let script = format!("set -eu\n{script}");
                step(format!("tutorial: {first}"), |step| command::run(step, cmd!(there, "bash -c {script}")))?;
                commands += 1;
            }
            Block::NotRun(reason) => not_run.push(reason),
        }
    }
    ensure!(files > 0 && commands > 0, "{PAGE} has no files or no commands");
    Ok(format!("{files} files, {commands} blocks of commands; not run: {}", not_run.join(", ")))
}

/// The blocks of the page.
fn blocks(text: &str) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    let mut marker = None;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let content: String =
                lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
            let block = match (marker.take(), language) {
                (Some(("file", path)), _) => Block::File(path, content),
                (Some(("not run", reason)), _) => Block::NotRun(reason),
                (None, "sh") => Block::Commands(content),
                (other, _) => {
                    anyhow::bail!("{PAGE}: a block in {language:?} is not executed ({other:?}):\n{content}")
                }
            };
            blocks.push(block);
        } else if let Some(comment) = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")) {
            let (key, value) = comment.split_once(": ").context("a comment without a colon")?;
            let key = if key == "file" { "file" } else { "not run" };
            marker = Some((key, value.to_owned()));
        }
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_commands_and_blocks_that_are_not_run_are_told_apart() {
        let text = "x\n<!-- file: a/b -->\n```rust\nfn f() {}\n```\n```sh\ntrue\n```\n<!-- not run: a device -->\n```sh\nfalse\n```\n";
        let expected = [
            Block::File("a/b".into(), "fn f() {}\n".into()),
            Block::Commands("true\n".into()),
            Block::NotRun("a device".into()),
        ];
        assert_eq!(blocks(text).unwrap(), expected);
        assert!(blocks("```rust\nfn f() {}\n```\n").is_err(), "a block without a marker");
    }
}
