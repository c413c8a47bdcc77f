//! Links, anchors and names of files in the documentation.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::markdown::Page;

/// Directories of the work tree: inline code that starts with one of them is the path of a file.
const DIRECTORIES: &[&str] =
    &["debian/", "docs/", "host/", "meta-rust-modules/", "modules/", "qemu/", "tests/", "xtask/", ".ci/", ".github/"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Pages with the paths of the reader's own crate.
const OF_READER: &[&str] = &["docs/develop/write-a-module.md", "tests/kit/README.md"];

/// The pages that git knows, or could know.
pub fn pages() -> Vec<PathBuf> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard", "*.md"]).current_dir(root());
    let output = git.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    // A template's pages have the paths of the crate that is made of them.
    let pages = text.lines().filter(|path| !path.starts_with("xtask/standalone"));
    let pages: Vec<_> = pages.map(|path| root().join(path)).filter(|path| path.is_file()).collect();
    assert!(pages.len() > 10, "git lists only {} pages", pages.len());
    pages
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let mut broken = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in Page::of(&text).links() {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = link.split_once('#').map_or((link.as_str(), None), |(path, at)| (path, Some(at)));
            let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            let has_anchor = |anchor| Page::anchors(&fs::read_to_string(&target).unwrap_or_default()).contains(anchor);
            if !target.exists() || !anchor.is_none_or(has_anchor) {
                broken.push(format!("{}: {link}", page.strip_prefix(root()).unwrap().display()));
            }
        }
    }
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

#[test]
fn every_file_that_a_page_names_exists() {
    let mut missing = Vec::new();
    for page in pages().into_iter().filter(|page| OF_READER.iter().all(|path| !page.ends_with(path))) {
        let directory = page.parent().unwrap();
        for code in Page::of(&fs::read_to_string(&page).unwrap()).code {
            if is_page_in_capitals(&code) && !directory.join(&code).exists() && !root().join(&code).exists() {
                missing.push(format!("{}: {code}", page.strip_prefix(root()).unwrap().display()));
            }
            let is_pattern = |c: char| c.is_whitespace() || c.is_uppercase() || "<>*{}$@…".contains(c);
            let is_path = DIRECTORIES.iter().any(|directory| code.starts_with(directory));
            let readme = code.ends_with("README.md") || code.ends_with("Cargo.toml");
            if is_path && (readme || !code.contains(is_pattern)) && !code.contains("fireplace") {
                let path = code.split(':').next().unwrap_or(&code);
                if !root().join(path).exists() {
                    missing.push(format!("{}: {code}", page.strip_prefix(root()).unwrap().display()));
                }
            }
        }
    }
    assert!(missing.is_empty(), "files that do not exist:\n{}", missing.join("\n"));
}

/// Whether `code` is a name such as `README.md`, which a page has in the top directory or in its own.
fn is_page_in_capitals(code: &str) -> bool {
    let stem = code.strip_suffix(".md").unwrap_or_default();
    !stem.is_empty() && stem.chars().all(|letter| letter.is_ascii_uppercase() || "_-".contains(letter))
}

#[test]
fn pages_in_capitals_are_recognized() {
    assert!(is_page_in_capitals("NOPE.md") && is_page_in_capitals("NOT_HERE.md"));
    for code in ["web-file.toml", "/etc/NOPE.md", "faq.md", ".md", "NOPE"] {
        assert!(!is_page_in_capitals(code), "{code}");
    }
}

#[test]
fn the_readme_fits_on_a_few_screens() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.lines().count() <= 150, "README.md has {} lines", readme.lines().count());
}
