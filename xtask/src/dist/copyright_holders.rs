//! The copyright holders of a crate.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use host::directory;

/// The copyright holders of the crate `name` in `directory`: the copyright lines of its licence files, or its
/// `authors` if there are none.
pub fn holders<'a>(name: &str, directory: &Path, authors: impl Iterator<Item = &'a str>) -> Result<Vec<String>> {
    let mut holders = BTreeSet::new();
    for path in if directory.is_dir() { directory::entries(directory)? } else { Vec::new() } {
        let file = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        if path.is_file() && ["LICEN", "COPY"].iter().any(|start| file.starts_with(start)) {
            let text = fs::read(&path).with_context(|| format!("reading {} failed", path.display()))?;
            holders.extend(String::from_utf8_lossy(&text).lines().filter_map(holder));
        }
    }
    if holders.is_empty() {
        // The name without the e-mail address.
        holders.extend(authors.filter_map(|author| author.split('<').next()).map(|name| name.trim().to_owned()));
    }
    if holders.is_empty() {
        holders.insert(format!("The authors of {name}"));
    }
    Ok(holders.into_iter().collect())
}

/// The holder in `line`, if it is a copyright notice and not a sentence or a template.
fn holder(line: &str) -> Option<String> {
    let rest = line.trim().strip_prefix("Copyright")?;
    let marked = rest.to_lowercase().contains("(c)") || rest.contains('©') || rest.contains(char::is_numeric);
    if !marked || rest.contains(['[', '{', '<']) {
        return None;
    }
    let rest = rest.trim_start_matches([' ', ':']);
    let rest = ["(c)", "(C)", "©"].iter().find_map(|mark| rest.strip_prefix(mark)).unwrap_or(rest).trim();
    (!rest.is_empty()).then(|| rest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_are_distinguished_from_sentences() {
        assert_eq!(holder("Copyright (c) 2018, Jens Pitkanen").unwrap(), "2018, Jens Pitkanen");
        assert_eq!(holder(" Copyright © 1991-2023 Unicode, Inc.").unwrap(), "1991-2023 Unicode, Inc.");
        assert_eq!(holder("Copyright (c) The tar-rs Project Contributors").unwrap(), "The tar-rs Project Contributors");
        for line in
            ["Copyright [yyyy] [name of copyright owner]", "Copyrights in the `rustix` project are retained", "", "MIT"]
        {
            assert_eq!(holder(line), None, "{line}");
        }
    }

    #[test]
    fn authors_are_used_if_no_file_names_a_holder() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("LICENSE-MIT"), "Permission is granted\n").unwrap();
        let authors = |authors: &[&str]| holders("a", directory.path(), authors.iter().copied()).unwrap();
        assert_eq!(authors(&["B <b@example.org>", "A"]), ["A", "B"]);
        assert_eq!(authors(&[]), ["The authors of a"]);
        fs::write(directory.path().join("LICENSE-MIT"), "Copyright (c) 2015 C\nCopyright (c) 2015 C\n").unwrap();
        assert_eq!(authors(&["A"]), ["2015 C"]);
    }
}
