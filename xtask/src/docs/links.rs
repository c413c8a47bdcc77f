//! Links, anchors and names of files in the documentation.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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

/// The text without code blocks.
fn prose(text: &str) -> String {
    let mut in_code = false;
    let mut prose = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    prose
}

/// The targets of links and images. Inline code is left out.
fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    let without_code: String = prose.split('`').step_by(2).collect::<Vec<_>>().join("code");
    without_code.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
}

/// The anchors that GitHub and mdBook make of headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text);
    let headings = headings.lines().filter_map(|line| line.strip_prefix('#'));
    let slug = |heading: &str| {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>()
    };
    headings.map(slug).collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let mut broken = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = link.split_once('#').map_or((link.as_str(), None), |(path, at)| (path, Some(at)));
            let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            let has_anchor = |anchor| anchors(&fs::read_to_string(&target).unwrap_or_default()).contains(anchor);
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
        let text = prose(&fs::read_to_string(&page).unwrap());
        for code in text.split('`').skip(1).step_by(2) {
            let is_pattern = |c: char| c.is_whitespace() || c.is_uppercase() || "<>*{}$@…".contains(c);
            let is_path = DIRECTORIES.iter().any(|directory| code.starts_with(directory));
            let readme = code.ends_with("README.md") || code.ends_with("Cargo.toml");
            if is_path && (readme || !code.contains(is_pattern)) && !code.contains("fireplace") {
                let path = code.split(':').next().unwrap_or(code);
                if !root().join(path).exists() {
                    missing.push(format!("{}: {code}", page.strip_prefix(root()).unwrap().display()));
                }
            }
        }
    }
    assert!(missing.is_empty(), "files that do not exist:\n{}", missing.join("\n"));
}

#[test]
fn the_readme_fits_on_a_few_screens() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.lines().count() <= 150, "README.md has {} lines", readme.lines().count());
}
