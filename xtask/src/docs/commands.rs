//! Runs the commands in the documentation: writes the files of a page and executes its shell blocks, in their order.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use host::command::{self, shell_in};
use host::directory;
use host::status::step;
use mender_update_module_test::debian::Package;
use tempfile::TempDir;
use xshell::{Shell, cmd};

use super::fence::Fence;
use crate::build;
use crate::dist::modules;

/// How long the commands of a page take.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Length {
    Seconds,
    Minutes,
}

/// The pages whose shell blocks are executed. On all other pages, each block has a reason why it is not.
const EXECUTED: [(&str, Length); 6] = [
    ("docs/develop/write-a-module.md", Length::Minutes), // builds and tests crates
    ("docs/start/artifacts.md", Length::Seconds),
    ("docs/start/quick-start.md", Length::Seconds),
    ("modules/web-file/README.md", Length::Seconds),
    ("modules/directory/README.md", Length::Seconds),
    ("modules/deb/README.md", Length::Seconds),
];

/// The files that the reader of a page has.
const FILES: &[(&str, &str)] = &[
    ("index.html", "<h1>Release 2</h1>\n"),
    ("style.css", "h1 { color: green }\n"),
    ("app/index.html", "<h1>Release 2</h1>\n"),
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

/// Executes the blocks of the pages of each of `lengths`, each page in a temporary directory, and returns a summary.
///
/// # Errors
/// When a command fails.
pub fn run(sh: &Shell, lengths: &[Length]) -> Result<String> {
    let of_lengths = EXECUTED.iter().filter(|(_, length)| lengths.contains(length));
    let pages: Vec<_> = of_lengths.map(|(page, _)| *page).collect();
    let target = modules::metadata(sh)?;
    let target = modules::target_directory(&target)?;
    let generators = generators(sh, &build::workspace(sh)?)?;
    let path = format!("{}:{}", generators.path().display(), sh.var("PATH")?);
    let (mut files, mut commands) = (0, 0);
    for page in &pages {
        let root = sh.current_dir();
        let directory = tempfile::tempdir().context("making a directory failed")?;
        for (path, content) in FILES {
            directory::write(&directory.path().join(path), content)?;
        }
        write_packages(directory.path())?;
        let there = &shell_in(directory.path())?;
        there.set_var("REPOSITORY", &root);
        there.set_var("TUTORIAL", directory.path());
        there.set_var("CARGO_TARGET_DIR", target);
        there.set_var("PATH", &path);
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
    ensure!(commands > 0, "no commands in {}", pages.join(", "));
    Ok(format!("pages: {}, files: {files}, blocks of commands: {commands}", pages.len()))
}

/// The links of the package of the generators, in the repository.
const GENERATORS: &str = "debian/artifact-gen/bin";

/// A directory with the generators in `executables` under the names that their package gives them.
fn generators(sh: &Shell, executables: &Path) -> Result<TempDir> {
    let directory = tempfile::tempdir().context("making a directory failed")?;
    for path in sh.read_dir(GENERATORS).with_context(|| format!("reading {GENERATORS} failed"))? {
        let link = directory.path().join(path.file_name().unwrap_or_default());
        symlink(executables.join("artifact-gen"), &link)
            .with_context(|| format!("linking {} failed", link.display()))?;
    }
    Ok(directory)
}

/// Writes the package and the archive of one that the reader of a page has to `directory`.
fn write_packages(directory: &Path) -> Result<()> {
    directory::write(&directory.join("app.deb"), Package::new("app", "2").build()?)?;
    directory::write(&directory.join("more.deb"), Package::new("more", "1").build()?)?;
    let sh = Shell::new()?;
    cmd!(sh, "tar --create --file {directory}/more.tar --directory {directory} --remove-files more.deb")
        .quiet()
        .run()?;
    Ok(())
}

fn execute(sh: &Shell, page: &str, script: &str) -> Result<()> {
    let is_shown = |line: &&str| !line.starts_with('#') && !line.starts_with("cd ");
    let first = script.lines().find(is_shown).unwrap_or_default();
    let shell = format!("set -eu -o pipefail\n{script}");
    step(format!("{page}: {first}"), |step| command::run(step, cmd!(sh, "bash -c {shell}"))).map(drop)
}

fn read(page: &Path) -> Result<Vec<Block>> {
    let text = fs::read_to_string(page).with_context(|| format!("reading {} failed", page.display()))?;
    blocks(&text).with_context(|| format!("reading the blocks of {} failed", page.display()))
}

/// A comment of one line, up to the block of code that it belongs to.
enum Comment<'a> {
    File(&'a str),
    NotRun(&'a str),
    /// A comment with a colon: a mistyped marker, if it precedes a block.
    Unknown(&'a str),
}

impl<'a> Comment<'a> {
    /// The comment with this text, unless it has no colon and is for the readers of the source.
    fn of(text: &'a str) -> Option<Self> {
        let (key, value) = text.split_once(':')?;
        Some(match (key.trim(), value.strip_prefix(' ').map(str::trim)) {
            ("file", Some(path)) if !path.is_empty() => Self::File(path),
            ("not run", Some(reason)) if !reason.is_empty() => Self::NotRun(reason),
            _ => Self::Unknown(text),
        })
    }

    /// # Errors
    /// When the comment is a marker, and something else than its block follows it.
    fn check_no_block(self) -> Result<()> {
        let (Self::File(text) | Self::NotRun(text)) = self else { return Ok(()) };
        bail!("marker without a block: {text:?}: put the marker directly before its block")
    }
}

/// The blocks of a page. A marker directly precedes its block; blank lines between them are allowed.
///
/// # Errors
/// When a marker is unknown or has no block, or a block has no end.
fn blocks(text: &str) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    let mut comment: Option<Comment> = None;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(fence) = Fence::of(line) {
            let content = content(&fence, &mut lines)?;
            blocks.push(block(comment.take(), fence.info, content)?);
            continue;
        }
        if line.trim().is_empty() {
            continue;
        }
        comment.take().map_or(Ok(()), Comment::check_no_block)?;
        let quoted = line.trim_start().strip_prefix('>').is_some_and(|rest| Fence::of(rest).is_some());
        ensure!(!quoted, "block of code in a quotation: {line:?}: put it outside");
        if let Some(start) = line.trim().strip_prefix("<!--") {
            match start.strip_suffix("-->") {
                Some(text) => comment = Comment::of(text.trim()),
                None => drop(lines.by_ref().find(|line| line.contains("-->"))),
            }
        }
    }
    comment.map_or(Ok(()), Comment::check_no_block)?;
    Ok(blocks)
}

fn block(comment: Option<Comment>, info: &str, content: String) -> Result<Block> {
    let language = info.split([' ', ',']).next().unwrap_or_default();
    Ok(match (comment, language) {
        (Some(Comment::File(path)), _) => Block::File(path.to_owned(), content),
        (Some(Comment::NotRun(reason)), _) => Block::NotRun(reason.to_owned()),
        (Some(Comment::Unknown(text)), _) => {
            bail!("unknown marker {text:?}: use 'file: PATH' or 'not run: REASON'")
        }
        (None, "sh") => Block::Commands(content),
        (None, "bash" | "console" | "shell") => bail!("unknown language {language}: use sh"),
        (None, _) => Block::Other,
    })
}

/// The lines of a block, without the indent of its fence: a block in a list is indented.
fn content<'a>(fence: &Fence, lines: &mut impl Iterator<Item = &'a str>) -> Result<String> {
    let mut content = String::new();
    for line in lines {
        if fence.is_ended_by(line) {
            return Ok(content);
        }
        let indent = line.len() - line.trim_start_matches(' ').len();
        content.push_str(&line[indent.min(fence.indent)..]);
        content.push('\n');
    }
    bail!("block of code without an end: {:?}", content.lines().next().unwrap_or_default())
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
    }

    #[test]
    fn unknown_markers_are_refused() {
        let block = "```sh\nfalse\n```\n";
        for marker in ["run: x", "notrun: x", "not run:x", "not run:", "file:a", "File: a"] {
            for lines in [format!("<!-- {marker} -->\n"), format!("  <!--{marker}-->  \n\n")] {
                let error = blocks(&(lines.clone() + block)).expect_err(&lines);
                assert!(error.to_string().contains("unknown marker"), "{lines}: {error}");
            }
        }
        assert_eq!(blocks(&format!("<!-- a note -->\n{block}")).unwrap(), [Block::Commands("false\n".into())]);
        assert_eq!(blocks(&format!("<!-- note: a -->\ntext\n{block}")).unwrap(), [Block::Commands("false\n".into())]);
        assert_eq!(blocks(&format!("<!-- a\n{block}-->\n")).unwrap(), []);
    }

    #[test]
    fn a_marker_directly_precedes_its_block() {
        let block = "```sh\nfalse\n```\n";
        assert_eq!(blocks(&format!("<!-- not run: x -->\n\n{block}")).unwrap(), [Block::NotRun("x".into())]);
        for between in ["text\n", "<!-- a note -->\n", "<!-- file: a -->\n", "# heading\n"] {
            let error = blocks(&format!("<!-- not run: x -->\n{between}{block}")).expect_err(between);
            assert!(error.to_string().contains("without a block"), "{error}");
        }
        assert!(blocks("<!-- file: a -->\n").is_err(), "the end of the page");
    }

    #[test]
    fn blocks_in_lists_and_with_other_fences_are_read() {
        let list = "1. x\n\n   ```sh\n   if true; then\n     x\n   fi\n   ```\n";
        assert_eq!(blocks(list).unwrap(), [Block::Commands("if true; then\n  x\nfi\n".into())]);
        assert_eq!(blocks("~~~~sh\n~~~\n```\n~~~~\n").unwrap(), [Block::Commands("~~~\n```\n".into())]);
        assert!(blocks("> ```sh\n> x\n> ```\n").is_err(), "in a quotation");
        assert!(blocks("```sh\nx\n").is_err(), "without an end");
        assert!(blocks("```bash\nx\n```\n").is_err(), "another name of the shell");
    }

    #[test]
    fn a_failing_command_in_a_pipe_fails_the_block() {
        let sh = Shell::new().unwrap();
        assert!(execute(&sh, "page", "false | cat\n").is_err());
        assert!(execute(&sh, "page", "true | cat\n").is_ok());
    }

    #[test]
    fn the_files_of_the_tutorial_are_written() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let (tutorial, _) = EXECUTED.iter().find(|(_, length)| *length == Length::Minutes).unwrap();
        let blocks = read(&root.join(tutorial)).unwrap();
        assert!(blocks.iter().any(|block| matches!(block, Block::File(..))), "no file in {tutorial}");
    }

    #[test]
    fn every_shell_block_is_executed_or_has_a_reason() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for page in crate::docs::links::pages() {
            let path = page.strip_prefix(root).unwrap().display().to_string();
            let commands = read(&page).unwrap().into_iter().filter(|block| matches!(block, Block::Commands(_))).count();
            if EXECUTED.iter().any(|(executed, _)| *executed == path) {
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
