//! The pages in `docs/evidence`: figures of a run, with its date, machine and command.

mod records;

use std::fs;

use anyhow::{Context, Result, ensure};
use host::directory;
use xshell::{Shell, cmd};

pub use records::Records;

/// The pathspec of git that leaves out the pages.
const NO_PAGES: &str = ":(exclude)docs/evidence";

/// Writes the page `docs/evidence/NAME.md` with `report`, the output of `command`. The first line of the report is
/// the title of the page.
pub fn write(sh: &Shell, name: &str, command: &str, report: &str) -> Result<()> {
    let (title, body) = report.split_once('\n').context("an empty report")?;
    let page = format!("{title}\n\nMade by `{command}` {}.\n{body}", circumstances(sh)?);
    let path = sh.current_dir().join("docs/evidence").join(name).with_extension("md");
    directory::write(&path, page.trim_end().to_owned() + "\n")?;
    println!("written: {}", path.display());
    Ok(())
}

/// The date, the sources and the machine of this run.
fn circumstances(sh: &Shell) -> Result<String> {
    let date = cmd!(sh, "date --utc --iso-8601").quiet().read().context("reading the date failed")?;
    Ok(format!("on {date}, from commit {}, on {}", commit(sh)?, host(sh)?))
}

/// The last commit that has changed the sources, with `-dirty` if a file differs from it. The pages themselves do not
/// count: each run of a long proof changes them, and a commit of pages gets another name when it is rebased.
pub fn commit(sh: &Shell) -> Result<String> {
    let commit = cmd!(sh, "git log --max-count=1 --format=%h -- . {NO_PAGES}").quiet().read();
    let commit = commit.context("git log failed")?;
    let changes = cmd!(sh, "git status --porcelain --untracked-files=no -- . {NO_PAGES}").quiet().read();
    let is_clean = changes.context("git status failed")?.is_empty();
    Ok(if is_clean { commit } else { commit + "-dirty" })
}

/// Checks that the sources are still those of `begun`, the commit when a long run began. A later commit of pages only
/// is no change.
///
/// # Errors
/// When a file has changed since: what the run does next would be recorded for sources that it did not have.
pub fn require_unchanged(sh: &Shell, begun: &str) -> Result<()> {
    // The changes of a work tree that was not clean have no name.
    let same = || cmd!(sh, "git diff --quiet {begun} -- . {NO_PAGES}").quiet().ignore_stderr().run().is_ok();
    ensure!(
        commit(sh)? == begun || same(),
        "a file of the work tree was changed during the run, which began at commit {begun}: run the command again"
    );
    Ok(())
}

/// This machine: cores, processor, memory and kernel.
pub fn host(sh: &Shell) -> Result<String> {
    let kernel = cmd!(sh, "uname --kernel-release --machine").quiet().read().context("uname failed")?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (cpu, memory) = (field("/proc/cpuinfo", "model name")?, field("/proc/meminfo", "MemTotal")?);
    let mebibytes = memory.trim_end_matches(" kB").parse::<u64>().unwrap_or_default() >> 10;
    Ok(format!("{cores} cores of {cpu}, {mebibytes} MiB of memory, Linux {kernel}"))
}

/// The value of the first line `KEY: VALUE` in the file `path`; "unknown" if no line has it.
fn field(path: &str, key: &str) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {path} failed"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix(':'));
    Ok(value.map_or("an unknown processor", str::trim).to_owned())
}

/// A repository in a temporary directory, with one commit of the file `a.rs`.
#[cfg(test)]
pub fn example_repository() -> (tempfile::TempDir, Shell) {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let sh = host::command::shell_in(directory.path()).expect("it can be entered");
    cmd!(sh, "git init --quiet").run().expect("git is installed");
    commit_file(&sh, "a.rs", "1");
    (directory, sh)
}

/// Writes `text` to `file`, and commits everything.
#[cfg(test)]
fn commit_file(sh: &Shell, file: &str, text: &str) {
    sh.write_file(file, text).expect("the file can be written");
    cmd!(sh, "git add .").run().expect("git add succeeds");
    let commit = cmd!(sh, "git -c user.name=a -c user.email=a@example.org commit --quiet --message x");
    commit.run().expect("git commit succeeds");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_title_circumstances_and_figures() {
        let (directory, sh) = example_repository();
        write(&sh, "bench", "cargo xtask bench", "# Bench\n\n| a | b |\n").unwrap();
        let page = fs::read_to_string(directory.path().join("docs/evidence/bench.md")).unwrap();
        assert!(page.starts_with("# Bench\n\nMade by `cargo xtask bench` on 2"), "{page}");
        assert!(page.contains(" from commit ") && page.ends_with("\n\n| a | b |\n"), "{page}");
    }

    #[test]
    fn only_changed_sources_make_a_commit_dirty() {
        let (_directory, sh) = example_repository();
        let clean = commit(&sh).unwrap();
        commit_file(&sh, "docs/evidence/bench.md", "1");
        assert_eq!(commit(&sh).unwrap(), clean, "a commit of pages");
        sh.write_file("docs/evidence/bench.md", "2").unwrap();
        assert_eq!(commit(&sh).unwrap(), clean);
        sh.write_file("a.rs", "2").unwrap();
        assert_eq!(commit(&sh).unwrap(), format!("{clean}-dirty"));
    }

    #[test]
    fn a_change_of_the_sources_during_a_run_is_an_error() {
        let (_directory, sh) = example_repository();
        let begun = commit(&sh).unwrap();
        commit_file(&sh, "docs/evidence/bench.md", "1");
        require_unchanged(&sh, &begun).unwrap();
        let refused = || {
            let error = require_unchanged(&sh, &begun).unwrap_err().to_string();
            assert!(error.contains("was changed during the run") && error.contains(&begun), "{error}");
        };
        sh.write_file("a.rs", "2").unwrap();
        refused();
        commit_file(&sh, "a.rs", "3");
        refused();
    }
}
