//! Runs the commands in the documentation: writes the files of a page and executes its shell blocks, in their order.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use host::status::step;
use host::{command, directory};
use xshell::{Shell, cmd};

use crate::dist::modules;

/// The pages whose shell blocks are executed. On all other pages, each block has a reason why it is not.
const EXECUTED: &[&str] = &[
    "docs/develop/write-a-module.md",
    "docs/start/quick-start.md",
    "modules/web-file/README.md",
    "modules/directory/README.md",
    "modules/deb/README.md",
];

/// The files that the reader of a page has.
const FILES: &[(&str, &str)] = &[
    ("index.html", "<h1>Release 2</h1>\n"),
    ("style.css", "h1 { color: green }\n"),
    ("app/index.html", "<h1>Release 2</h1>\n"),
    ("app.deb", "a package\n"),
    ("more.tar", "an archive of packages\n"),
];

/// A block of code in a page.
#[derive(Debug, PartialEq, Eq)]
enum Block {
    /// The file PATH with this content: `<!-- file: PATH -->` before the block.
    File(String, String),
    /// Shell commands.
    Commands(String),
    /// A block that is not executed: `<!-- not run: REASON -->` before it.
    NotRun(String),
    /// A block in another language.
    Other,
}

/// Executes the blocks of every page in [`EXECUTED`], each page in a temporary directory, and returns a summary.
///
/// # Errors
/// When a command fails.
pub fn run(sh: &Shell) -> Result<String> {
    let target = modules::metadata(sh)?;
    let target = modules::target_directory(&target)?;
    let (mut files, mut commands) = (0, 0);
    for page in EXECUTED {
        let root = sh.current_dir();
        let directory = tempfile::tempdir().context("making a directory failed")?;
        for (path, content) in FILES {
            directory::write(&directory.path().join(path), content)?;
        }
        let there = &Shell::new()?;
        there.change_dir(directory.path());
        there.set_var("REPOSITORY", &root);
        there.set_var("TUTORIAL", directory.path());
        there.set_var("CARGO_TARGET_DIR", target);
        for block in read(&root.join(page))? {
            match block {
                Block::File(path, content) => {
                    directory::write(&directory.path().join(path), content)?;
                    files += 1;
                }
                Block::Commands(script) => {
                    execute(there, page, &script)?;
                    commands += 1;
                }
                Block::NotRun(_) | Block::Other => {}
            }
        }
    }
    ensure!(files > 0 && commands > 0, "no files or no commands in {}", EXECUTED.join(", "));
    Ok(format!("{} pages: {files} files and {commands} blocks of commands", EXECUTED.len()))
}

fn execute(sh: &Shell, page: &str, script: &str) -> Result<()> {
    let is_shown = |line: &&str| !line.starts_with('#') && !line.starts_with("cd ");
    let first = script.lines().find(is_shown).unwrap_or_default();
    let shell = format!("set -eu\n{script}");
    step(format!("{page}: {first}"), |step| command::run(step, cmd!(sh, "bash -c {shell}"))).map(drop)
}

fn read(page: &Path) -> Result<Vec<Block>> {
    let text = fs::read_to_string(page).with_context(|| format!("reading {} failed", page.display()))?;
    blocks(&text).with_context(|| format!("reading the blocks of {} failed", page.display()))
}

/// The blocks of a page.
fn blocks(text: &str) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    let mut marker: Option<(&str, &str)> = None;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let content: String =
                lines.by_ref().take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect();
            blocks.push(match (marker.take(), language) {
                (Some(("file", path)), _) => Block::File(path.to_owned(), content),
                (Some(("not run", reason)), _) => Block::NotRun(reason.to_owned()),
                (Some((other, _)), _) => bail!("unknown marker {other:?}: use file or not run"),
                (None, "sh") => Block::Commands(content),
                (None, _) => Block::Other,
            });
        } else if let Some(comment) = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")) {
            marker = Some(comment.split_once(": ").context("a comment without a colon")?);
        }
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_recognized_by_their_markers() {
        let text = "x\n<!-- file: a/b -->\n```rust\nfn f() {}\n```\n```sh\ntrue\n```\n<!-- not run: a device -->\n\
                    ```sh\nfalse\n```\n```toml\na = 1\n```\n";
        let expected = [
            Block::File("a/b".into(), "fn f() {}\n".into()),
            Block::Commands("true\n".into()),
            Block::NotRun("a device".into()),
            Block::Other,
        ];
        assert_eq!(blocks(text).unwrap(), expected);
        assert!(blocks("<!-- run: x -->\n```sh\nfalse\n```\n").is_err(), "an unknown marker");
    }

    #[test]
    fn every_shell_block_is_executed_or_has_a_reason() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for page in crate::docs::links::pages() {
            let path = page.strip_prefix(root).unwrap().display().to_string();
            let commands = read(&page).unwrap().into_iter().filter(|block| matches!(block, Block::Commands(_))).count();
            if EXECUTED.contains(&path.as_str()) {
                assert!(commands > 0, "{path} has no shell block that is executed");
            } else {
                assert_eq!(
                    commands, 0,
                    "{path}: put '<!-- not run: REASON -->' before shell blocks, or add it to EXECUTED"
                );
            }
        }
    }
}
