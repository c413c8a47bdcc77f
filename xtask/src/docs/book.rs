//! The book: docs/ and the READMEs, built by mdBook.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use host::command::run;
use host::status::step;
use host::{cache, directory};
use xshell::{Shell, cmd};

/// Pinned: the look of the book must not change by itself.
const MDBOOK: &str = "0.4.52";

/// The pages outside docs/, which have a part of the book of their own.
const OUTSIDE: &[(&str, &str)] = &[
    ("web-file", "modules/web-file/README.md"),
    ("directory", "modules/directory/README.md"),
    ("deb", "modules/deb/README.md"),
    ("container", "modules/container/README.md"),
    ("The library", "modules/mender-update-module/README.md"),
    ("The test kit", "tests/kit/README.md"),
    ("The Yocto layer", "meta-rust-modules/README.md"),
    ("Contributing", "CONTRIBUTING.md"),
    ("Security", "SECURITY.md"),
    ("Changelog", "CHANGELOG.md"),
];

/// Builds the book in target/book.
pub fn build(sh: &Shell) -> Result<()> {
    let root = sh.current_dir();
    let (source, book) = (root.join("target/book-source"), root.join("target/book"));
    let mdbook = mdbook(sh)?;
    lay_out(&root, &source)?;
    step("building the book", |step| run(step, cmd!(sh, "{mdbook} build {source} --dest-dir {book}")))?;
    println!("the book: {}", book.join("docs/index.html").display());
    Ok(())
}

/// Copies the pages, at their paths in the work tree, so that their links are the same.
fn lay_out(root: &Path, source: &Path) -> Result<()> {
    directory::empty(source)?;
    let pages = source.join("src");
    for file in directory::files(&root.join("docs"))? {
        copy(&file, &pages.join(file.strip_prefix(root)?))?;
    }
    for (_, path) in OUTSIDE {
        copy(&root.join(path), &pages.join(path))?;
    }
    let summary = root.join("docs/SUMMARY.md");
    let summary = fs::read_to_string(&summary).with_context(|| format!("reading {} failed", summary.display()))?;
    directory::write(&pages.join("SUMMARY.md"), contents(&summary))?;
    directory::write(
        &source.join("book.toml"),
        "[book]\ntitle = \"Mender Update Modules in Rust\"\n[output.html]\ndefault-theme = \"light\"\n\
         preferred-dark-theme = \"navy\"\nno-section-label = true\n",
    )
}

/// The table of contents with paths from the top of the work tree, and with the pages outside docs/.
fn contents(summary: &str) -> String {
    let mut contents = summary.replace("](", "](docs/");
    contents.push_str("\n# Modules and more\n\n");
    for (title, path) in OUTSIDE {
        contents.push_str(&format!("- [{title}]({path})\n"));
    }
    contents
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let content = fs::read(from).with_context(|| format!("reading {} failed", from.display()))?;
    directory::write(to, content)
}

/// The path of mdBook, compiled on first use.
fn mdbook(sh: &Shell) -> Result<PathBuf> {
    let rustc = cmd!(sh, "rustc --version").quiet().read().context("running rustc failed")?;
    let key = cache::key([MDBOOK.as_bytes(), rustc.as_bytes()]);
    let root = cache::entry("mdbook", &key, |root| {
        step(format!("compiling mdBook {MDBOOK}, once"), |step| {
            let install = cmd!(
                sh,
                "cargo install --locked --quiet --no-default-features --root {root} --version {MDBOOK} mdbook"
            );
            run(step, install).map(drop)
        })
    })?;
    Ok(root.join("bin/mdbook"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_in_the_table_of_contents() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let summary = fs::read_to_string(root.join("docs/SUMMARY.md")).unwrap();
        let contents = contents(&summary);
        for file in directory::files(&root.join("docs")).unwrap() {
            let path = file.strip_prefix(root).unwrap().display().to_string();
            if path.ends_with(".md") && path != "docs/SUMMARY.md" {
                assert!(contents.contains(&format!("({path})")), "{path} is not in docs/SUMMARY.md");
            }
        }
        for (_, path) in OUTSIDE {
            assert!(root.join(path).is_file(), "{path} does not exist");
        }
    }
}
