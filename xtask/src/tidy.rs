//! Tests of the work tree: the tests that the documentation names exist, and texts follow the guide of the language.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::docs::fence::Fence;

/// The work tree.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
}

/// A row of the threat model.
struct Threat<'a> {
    line: &'a str,
    crates: Vec<&'a str>,
    tests: Vec<&'a str>,
}

/// The rows of the tables in `page`, without their headings. The tests of a row may be "the same", as those of the row
/// before.
fn threats(page: &str) -> Vec<Threat<'_>> {
    let mut rows: Vec<Threat> = Vec::new();
    for line in page.lines().filter(|line| line.starts_with("| ") && !line.ends_with("| crate | test |")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [_, _, crates, tests] = cells[..] else { panic!("not four cells: {line}") };
        let tests = match rows.last() {
            Some(before) if tests == "the same" => before.tests.clone(),
            _ => tests.split('`').skip(1).step_by(2).collect(),
        };
        rows.push(Threat { line, crates: crates.split(", ").collect(), tests });
    }
    rows
}

/// The code of each crate of the workspace that the threat model may name, by its name.
fn crates() -> BTreeMap<String, String> {
    let mut crates = BTreeMap::new();
    for member in ["modules", "tests"].iter().flat_map(|directory| fs::read_dir(root().join(directory)).unwrap()) {
        let directory = member.unwrap().path();
        let manifest = fs::read_to_string(directory.join("Cargo.toml")).unwrap();
        let name = manifest.lines().find_map(|line| line.strip_prefix("name = ")).unwrap().trim_matches('"');
        let mut files = Vec::new();
        rust_files(&directory, &mut files);
        crates.insert(name.to_owned(), files.iter().map(|path| fs::read_to_string(path).unwrap()).collect());
    }
    crates
}

#[test]
fn every_threat_names_a_test_that_each_of_its_crates_has() {
    let page = fs::read_to_string(root().join("docs/threats.md")).unwrap();
    let (rows, crates) = (threats(&page), crates());
    assert!(rows.len() > 40, "only {} rows were found", rows.len());
    for Threat { line, crates: named, tests } in rows {
        assert!(!tests.is_empty(), "no test: {line}");
        let has = |name: &&str, test: &&str| {
            let code = crates.get(*name).unwrap_or_else(|| panic!("no crate {name}: {line}"));
            code.contains(&format!("fn {test}()"))
        };
        for name in &named {
            assert!(tests.iter().any(|test| has(name, test)), "{name} has none of the tests: {line}");
        }
        for test in &tests {
            assert!(named.iter().any(|name| has(name, test)), "no test {test} in {}: {line}", named.join(", "));
        }
    }
}

#[test]
fn every_command_of_the_removed_protections_runs_a_test() {
    let page = fs::read_to_string(root().join("docs/evidence/threats.md")).unwrap();
    let code: String = crates().into_values().collect();
    let commands = page.split('`').skip(1).step_by(2).filter_map(|command| {
        let arguments = command.strip_prefix("cargo test ").or_else(|| command.strip_prefix("cargo xtask debian "))?;
        Some((command, arguments.split_whitespace().last()?.rsplit("::").next()?))
    });
    let mut count = 0;
    for (command, test) in commands {
        let has = |line: &str| line.trim_start().strip_prefix("fn ").is_some_and(|name| name.contains(test));
        assert!(code.lines().any(has), "no test: {command}");
        count += 1;
    }
    assert!(count > 150, "only {count} commands were found");
}

#[test]
fn rows_of_threats_are_found_with_their_crates_and_tests() {
    let page = "| event | protection | crate | test |\n|---|---|---|---|\n| a | b | x, y | `one`, `two` |\n\
                | c | d | z | the same |\n";
    let rows = threats(page);
    assert_eq!(rows.len(), 2);
    assert_eq!((&rows[0].crates[..], &rows[0].tests[..]), (&["x", "y"][..], &["one", "two"][..]));
    assert_eq!((&rows[1].crates[..], &rows[1].tests[..]), (&["z"][..], &["one", "two"][..]));
}

/// Replaced terms, each with the term to use. A term is in this list if it has no other meaning in this project, so
/// that a search finds no correct sentence. It is compared without regard to case, as whole words, with or without a
/// plural "s"; "_" and "-" count as spaces, so that identifiers and names of files are checked too.
const REPLACED: &[(&str, &str)] = &[
    ("folder", "directory"),
    ("theirs", "upstream"),
    ("way back", "rollback"),
    ("switch back", "roll back"),
    ("goes live", "is activated"),
    ("is live", "is active"),
    ("the old one", "the previous version, or the name of the thing"),
    ("the former", "the backup, or the name of the thing"),
    ("there is none", "none, not found, or no such"),
    ("the floor", "the lower bound"),
    ("the shield", "the restart inhibitor"),
    ("go live", "activate"),
    ("played", "mock, simulated, or run"),
    ("wishes", "options"),
    ("cut point", "crash point"),
    ("every cut", "fault injection"),
    ("power cut", "power loss"),
    ("lost write state", "unsynced writes lost"),
    ("nobody answers", "downtime"),
    ("last words", "last log lines"),
    ("tiers", "test levels"),
    ("blanks", "spaces"),
    ("staging place", "staging directory"),
    ("keeps to", "conforms to"),
    ("sees to it", "checks, ensures"),
    ("what came of", "result"),
    ("contestant", "candidate"),
    ("somebody", "the program or user that does it"),
    ("whoever", "the program or user that does it"),
];

/// An outcome of fault injection that Rust code calls inconsistent. Case counts, because the word "other" is common.
const REPLACED_OUTCOME: (&str, &str) = ("OTHER", "inconsistent");

/// Files that must contain a replaced term, with the term and the reason.
const ALLOWED: &[(&str, &str, &str)] = &[
    ("modules/deb/src/backup/file_attributes.rs", "folder", "the name of a field in journals"),
    ("modules/deb/src/backup/file_backup.rs", "folder", "the name of a field in journals"),
    ("modules/deb/src/update.rs", "folder", "the name of a field in journals"),
    ("modules/deb/src/update.rs", "wishes", "the name of a field in journals"),
];

/// Parts of the paths of files that are not checked: texts of licences, generated files, journals of released versions,
/// inputs of fuzzing, and this file with its list of terms.
const NOT_CHECKED: &[&str] =
    &["LICENSE", "COPYING", "Cargo.lock", "/tests/journals/", "fuzz/corpus/", "xtask/src/tidy.rs"];

/// The longest line of comments and prose, in characters.
const LONGEST: usize = 120;

/// Pages that a command writes, with one line for each paragraph.
const GENERATED: &str = "docs/evidence/";

#[test]
fn texts_follow_the_guide_of_the_language() {
    let mut findings = Vec::new();
    for path in tracked_files() {
        if NOT_CHECKED.iter().any(|part| path.contains(part)) {
            continue;
        }
        // A deleted file is tracked until the commit. Other files are not text.
        let Ok(text) = fs::read_to_string(root().join(&path)) else { continue };
        let text = if path == "CHANGELOG.md" { newest_section(&text) } else { &text };
        let allowed: Vec<&str> = ALLOWED.iter().filter(|(file, ..)| *file == path).map(|(_, term, _)| *term).collect();
        let mut found = replaced_terms(&path, text, &allowed);
        if !path.starts_with(GENERATED) {
            found.extend(long_lines(&path, text));
        }
        findings.extend(found.into_iter().map(|(line, finding)| format!("{path}:{line}: {finding}")));
    }
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

fn tracked_files() -> Vec<String> {
    let output = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "git ls-files failed: {output:?}");
    let names = String::from_utf8(output.stdout).unwrap();
    names.split_terminator('\0').map(str::to_owned).collect()
}

/// The changelog up to the second heading of a version. Older sections are history.
fn newest_section(changelog: &str) -> &str {
    let second = changelog.match_indices("\n## ").nth(1);
    second.map_or(changelog, |(start, _)| &changelog[..start])
}

/// The replaced terms in a file: the number of each line, and the text of the finding.
fn replaced_terms(path: &str, text: &str, allowed: &[&str]) -> Vec<(usize, String)> {
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let words = words(line);
        let terms = REPLACED.iter().filter(|(term, _)| !allowed.contains(term) && contains_term(&words, term));
        let (outcome, _) = REPLACED_OUTCOME;
        let outcome = (path.ends_with(".rs") && has_word(line, outcome)).then_some(&REPLACED_OUTCOME);
        for (term, instead) in terms.chain(outcome) {
            findings.push((number, format!("replaced term {term:?}: use {instead}")));
        }
    }
    findings
}

/// The lines of prose in a file that are too long: the number of each line, and the text of the finding.
fn long_lines(path: &str, text: &str) -> Vec<(usize, String)> {
    let mut findings = Vec::new();
    let mut code: Option<Fence> = None;
    for (number, line) in (1..).zip(text.lines()) {
        code = match code {
            Some(fence) if fence.is_ended_by(line) => None,
            None if path.ends_with(".md") => Fence::of(line),
            other => other,
        };
        let length = line.chars().count();
        if length > LONGEST && code.is_none() && is_prose(path, line) {
            findings.push((number, format!("line of {length} characters: wrap it at {LONGEST}")));
        }
    }
    findings
}

/// The words of `line` in lower case, with one space between, before and after them.
fn words(line: &str) -> String {
    let lower = line.to_lowercase();
    let words = lower.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty());
    words.fold(" ".to_owned(), |text, word| text + word + " ")
}

fn contains_term(words: &str, term: &str) -> bool {
    words.contains(&format!(" {term} ")) || words.contains(&format!(" {term}s "))
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|letter: char| !letter.is_alphanumeric() && letter != '_').any(|found| found == word)
}

/// Whether `line` is prose that can be wrapped: a line with a comment, or text of Markdown that is not a row of a
/// table.
fn is_prose(path: &str, line: &str) -> bool {
    let trimmed = line.trim_start();
    if is_long_url(line) {
        return false;
    }
    match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("rs") => {
            let table = trimmed.trim_start_matches(['/', '!']).trim_start().starts_with('|');
            !table && (trimmed.starts_with("//") || line.contains(" // "))
        }
        Some("md") => !trimmed.starts_with('|'),
        Some("sh" | "toml") => trimmed.starts_with('#') || line.contains(" # "),
        _ => false,
    }
}

/// Whether a URL, which cannot be wrapped, is too long for a line of its own: with the comment's marks and the words that
/// are joined to it.
fn is_long_url(line: &str) -> bool {
    let indent = line.chars().count() - line.trim_start_matches([' ', '/', '!', '#', '*', '-', '>']).chars().count();
    line.split_whitespace().any(|word| word.contains("://") && indent + word.chars().count() > LONGEST)
}

#[test]
fn replaced_terms_are_found_as_words() {
    let found = |path: &str, text: &str| lines(replaced_terms(path, text, &["theirs"]));
    let text = "A Folder\nfolders\nfn open_folder()\nthe way-back\nholder, unplayed\n";
    assert_eq!(found("a.sh", text), [1, 2, 3, 4]);
    assert!(found("a.sh", "theirs").is_empty(), "the term is allowed in this file");
    assert_eq!(found("a.rs", "Some(OTHER)\nANOTHER, other, OTHER_NAME\n"), [1]);
    assert!(found("a.md", "OTHER").is_empty(), "an outcome is of Rust files only");
}

#[test]
fn long_lines_are_those_of_comments_and_prose() {
    let found = |path: &str, text: &str| lines(long_lines(path, text));
    let (long, url) = ("x ".repeat(LONGEST), "x".repeat(LONGEST));
    let rust = format!("let a;\n/// {long}\nlet b = \"{long}\";\nlet c; // {long}\n");
    assert_eq!(found("a.rs", &rust), [2, 4]);
    let markdown = format!("{long}\n| {long} |\n```\n{long}\n```\n{long}\nhttps://{url} x\n{long} https://a\n");
    assert_eq!(found("a.md", &markdown), [1, 6, 8]);
    assert_eq!(found("a.toml", &format!("# {long}\na = \"{long}\"\n")), [1]);
    assert!(found("a.bb", &format!("# {long}\n")).is_empty());
}

#[test]
fn only_the_newest_section_of_the_changelog_is_checked() {
    assert_eq!(newest_section("# C\n\n## 2\nnew\n\n## 1\nold\n"), "# C\n\n## 2\nnew\n");
}

fn lines(findings: Vec<(usize, String)>) -> Vec<usize> {
    findings.into_iter().map(|(line, _)| line).collect()
}

#[test]
fn the_packages_of_all_modules_refuse_their_removal_in_the_same_way() {
    let script = |module: &str| {
        let text = fs::read_to_string(root().join("debian").join(module).join("prerm")).unwrap();
        text.replace(&format!("/{module} "), "/MODULE ").replace(&format!("type {module} "), "type MODULE ")
    };
    for module in ["directory", "deb", "container"] {
        assert_eq!(script(module), script("web-file"), "{module}");
    }
}
