//! Debian's `copyright` of a package: that of the source, `debian/copyright`, and what is linked into the executable.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use host::directory;

use super::licences::{C_LIBRARY, Licence, STANDARD_LIBRARY};
use super::linked::{Crate, Linked};
use super::modules::Workspace;

const NOTE: &str = "Comment:\n Not files of this source but what the executable is linked with.";

/// The content of `copyright` in the packages of a module that `linked` is linked into. It is the same for every architecture.
///
/// # Errors
/// When `debian/copyright` cannot be read.
pub fn render(workspace: &Workspace, linked: &Linked) -> Result<String> {
    let path = workspace.root.join("debian/copyright");
    let source = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(with_linked(&source, linked))
}

fn with_linked(source: &str, linked: &Linked) -> String {
    let mut text = source.trim_end().to_owned() + "\n";
    let _ = writeln!(
        text, // a String: no error, here and below
        "\nFiles: rust-std\nCopyright: The Rust Project Developers\nLicense: {}\n{NOTE} It is offered\n under MIT OR Apache-2.0.",
        STANDARD_LIBRARY.debian
    );
    let _ = writeln!(
        text,
        "\nFiles: glibc\nCopyright: Free Software Foundation, Inc. and others\nLicense: {}\n{NOTE}\n The complete \
         source, with which it can be linked again to another C library, is\n at the address above. Parts of libgcc are \
         linked too: the GCC Runtime Library\n Exception puts no condition on the executable.",
        C_LIBRARY.debian
    );
    for stanza in stanzas(linked) {
        text += &stanza;
    }
    let licences = linked.licences().into_iter().chain([&C_LIBRARY]);
    for Licence { debian, text: body, .. } in licences {
        if !source.contains(&format!("\n\nLicense: {debian}\n")) {
            let _ = write!(text, "\nLicense: {debian}\n{}", paragraphs(body));
        }
    }
    text
}

/// One stanza for each name of a crate that is not of this work tree: versions differ in what nobody has to know here.
fn stanzas(linked: &Linked) -> Vec<String> {
    let mut by_name: BTreeMap<_, BTreeSet<&str>> = BTreeMap::new();
    for Crate { name, licence, copyright, .. } in
        linked.crates.iter().filter(|linked| linked.checksum.is_some())
    {
        let used: Vec<_> = licence.used.iter().map(|licence| licence.debian).collect();
        let holders = by_name.entry((name, used.join(" and "), &licence.offered)).or_default();
        holders.extend(copyright.iter().map(String::as_str));
    }
    let stanza = |((name, used, offered), holders): ((&String, String, &String), BTreeSet<&str>)| {
        let holders: Vec<_> = holders.into_iter().collect();
        format!(
            "\nFiles: crates/{name}\nCopyright: {}\nLicense: {used}\nComment: offered under {offered}\n",
            holders.join("\n ")
        )
    };
    by_name.into_iter().map(stanza).collect()
}

/// `text` as the body of a field: each line after a space, empty ones as a full stop.
fn paragraphs(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { " .\n".to_owned() } else { format!(" {line}\n") }).collect()
}

/// Who has the copyright of the crate `name` in `directory`: the lines of its licence files that say so, else its `authors`.
///
/// # Errors
/// When one of these files cannot be read.
pub fn holders<'a>(
    name: &str,
    directory: &Path,
    authors: impl Iterator<Item = &'a str>,
) -> Result<Vec<String>> {
    let mut holders = BTreeSet::new();
    for path in if directory.is_dir() { directory::entries(directory)? } else { Vec::new() } {
        let file = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        if path.is_file() && ["LICEN", "COPY"].iter().any(|start| file.starts_with(start)) {
            let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            holders.extend(String::from_utf8_lossy(&text).lines().filter_map(holder));
        }
    }
    if holders.is_empty() {
        // Without the address.
        holders
            .extend(authors.filter_map(|author| author.split('<').next()).map(|name| name.trim().to_owned()));
    }
    if holders.is_empty() {
        holders.insert(format!("The authors of {name}"));
    }
    Ok(holders.into_iter().collect())
}

/// What follows "Copyright" in `line`, if it is a notice and not a sentence or a form to be filled in.
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
    use super::super::linked::tests::linked;
    use super::*;

    #[test]
    fn every_crate_and_licence_is_named_once() {
        let ours = Crate { checksum: None, ..linked("web-file", "0.1.0", "Apache-2.0") };
        let crates = vec![
            ours,
            linked("minreq", "3.0.0", "ISC"),
            linked("winnow", "0.7.15", "MIT"),
            linked("winnow", "1.0.5", "MIT"),
            linked("tar", "0.4.46", "MIT/Apache-2.0"),
        ];
        let source = "Format: f\n\nFiles: *\nLicense: Apache-2.0\n\nLicense: Apache-2.0\n Here.\n";
        let text = with_linked(source, &Linked { crates });
        assert!(text.starts_with(source), "{text}");
        let minreq = "\n\nFiles: crates/minreq\nCopyright: 2018, Somebody\nLicense: ISC\nComment: offered under ISC\n\n";
        assert!(text.contains(minreq), "{text}");
        assert!(text.contains("License: Apache-2.0\nComment: offered under MIT OR Apache-2.0\n"), "{text}");
        assert!(!text.contains("crates/web-file"), "{text}");
        for once in [
            "Files: crates/winnow\n",
            "\n\nLicense: Expat\n",
            "\n\nLicense: ISC\n",
            "\n\nLicense: LGPL-2.1+\n",
        ] {
            assert_eq!(text.matches(once).count(), 1, "{once:?} in {text}");
        }
        assert_eq!(text.matches("\n\nLicense: Apache-2.0\n").count(), 1, "{text}");
        let blank = |line: &str| line.starts_with(' ') && line.trim().is_empty();
        assert!(!text.lines().any(blank) && !text.contains("\n\n\n"), "{text}");
    }

    #[test]
    fn notices_are_told_from_sentences() {
        assert_eq!(holder("Copyright (c) 2018, Jens Pitkanen").unwrap(), "2018, Jens Pitkanen");
        assert_eq!(holder(" Copyright © 1991-2023 Unicode, Inc.").unwrap(), "1991-2023 Unicode, Inc.");
        assert_eq!(
            holder("Copyright (c) The tar-rs Project Contributors").unwrap(),
            "The tar-rs Project Contributors"
        );
        for line in [
            "Copyright [yyyy] [name of copyright owner]",
            "Copyrights in the `rustix` project are retained",
            "",
            "MIT",
        ] {
            assert_eq!(holder(line), None, "{line}");
        }
    }

    #[test]
    fn authors_count_where_no_file_names_anybody() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("LICENSE-MIT"), "Permission is granted\n").unwrap();
        let authors = |authors: &[&str]| holders("a", directory.path(), authors.iter().copied()).unwrap();
        assert_eq!(authors(&["B <b@example.org>", "A"]), ["A", "B"]);
        assert_eq!(authors(&[]), ["The authors of a"]);
        fs::write(directory.path().join("LICENSE-MIT"), "Copyright (c) 2015 C\nCopyright (c) 2015 C\n")
            .unwrap();
        assert_eq!(authors(&["A"]), ["2015 C"]);
    }
}
