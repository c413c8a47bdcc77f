//! The file `copyright` of a Debian package: `debian/copyright` of the source, and the licences of all linked code.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result};

use super::licences::{Licence, STANDARD_LIBRARY, c_library};
use super::linked::{Crate, Linked};
use super::modules::Workspace;
use crate::target::Libc;

const NOTE: &str = "Comment:\n Not files of this source but what the executable is linked with.";

/// The stanza of musl.
const MUSL: &str = "musl\nCopyright: 2005-2024 Rich Felker, et al.\nLicense: Expat";

/// The stanza of the GNU C library.
const GLIBC: &str = "glibc\nCopyright: Free Software Foundation, Inc. and others\nLicense: LGPL-2.1+";

/// A sentence about the GNU C library.
const RELINK: &str = " The complete source, with which it can be linked again to another C library, is\n at the \
                      address above.";

/// The content of `copyright` in the packages of the module with the linked crates `linked` and the C library `libc`.
/// It is the same for every architecture.
pub fn render(workspace: &Workspace, linked: &Linked, libc: Libc) -> Result<String> {
    let path = workspace.root.join("debian/copyright");
    let source = fs::read_to_string(&path).with_context(|| format!("reading {} failed", path.display()))?;
    Ok(with_linked(&source, linked, libc))
}

fn with_linked(source: &str, linked: &Linked, libc: Libc) -> String {
    let mut text = source.trim_end().to_owned() + "\n";
    let _ = writeln!(
        text, // writing to a String never fails
        "\nFiles: rust-std\nCopyright: The Rust Project Developers\nLicense: {}\n{NOTE} \
         It is offered\n under MIT OR Apache-2.0.",
        STANDARD_LIBRARY.debian
    );
    let (library, relink) = if libc == Libc::Musl { (MUSL, "") } else { (GLIBC, RELINK) };
    let _ = writeln!(
        text,
        "\nFiles: {library}\n{NOTE}\n{relink}{} Parts of GCC's runtime are linked too: the GCC Runtime Library\n \
         Exception puts no condition on the executable.",
        if relink.is_empty() { "" } else { "\n" }
    );
    for stanza in stanzas(linked) {
        text += &stanza;
    }
    let mut licences = linked.licences();
    if !licences.contains(&c_library(libc)) {
        licences.push(c_library(libc));
    }
    for Licence { debian, text: body, .. } in licences {
        if !source.contains(&format!("\n\nLicense: {debian}\n")) {
            let _ = write!(text, "\nLicense: {debian}\n{}", paragraphs(body));
        }
    }
    text
}

/// One stanza for each crate of crates.io with the same licence. The versions of a crate share a stanza.
fn stanzas(linked: &Linked) -> Vec<String> {
    let mut by_name: BTreeMap<_, BTreeSet<&str>> = BTreeMap::new();
    for Crate { name, licence, copyright, .. } in linked.crates.iter().filter(|linked| linked.checksum.is_some()) {
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

/// `text` as the body of a field: each line begins with a space, and empty lines are a full stop.
fn paragraphs(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { " .\n".to_owned() } else { format!(" {line}\n") }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::linked::tests::linked;
    use super::*;

    #[test]
    fn the_linked_c_library_is_named() {
        let linked = Linked { crates: vec![linked("tar", "0.4.46", "Apache-2.0")] };
        let [musl, glibc] = Libc::ALL.map(|libc| with_linked("Format: f\n\nLicense: Apache-2.0\n", &linked, libc));
        assert!(musl.contains("Files: musl\n") && musl.contains("\n\nLicense: Expat\n"), "{musl}");
        assert!(!musl.contains("LGPL") && !musl.contains("glibc"), "{musl}");
        assert!(glibc.contains("Files: glibc\n") && glibc.contains("\n\nLicense: LGPL-2.1+\n"), "{glibc}");
    }

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
        let text = with_linked(source, &Linked { crates }, Libc::Glibc);
        assert!(text.starts_with(source), "{text}");
        let minreq = "\n\nFiles: crates/minreq\nCopyright: 2018, An Author\nLicense: ISC\n\
                      Comment: offered under ISC\n\n";
        assert!(text.contains(minreq), "{text}");
        assert!(text.contains("License: Apache-2.0\nComment: offered under MIT OR Apache-2.0\n"), "{text}");
        assert!(!text.contains("crates/web-file"), "{text}");
        for once in ["Files: crates/winnow\n", "\n\nLicense: Expat\n", "\n\nLicense: ISC\n", "\n\nLicense: LGPL-2.1+\n"]
        {
            assert_eq!(text.matches(once).count(), 1, "{once:?} in {text}");
        }
        assert_eq!(text.matches("\n\nLicense: Apache-2.0\n").count(), 1, "{text}");
        let only_spaces = |line: &str| line.starts_with(' ') && line.trim().is_empty();
        assert!(!text.lines().any(only_spaces) && !text.contains("\n\n\n"), "{text}");
    }
}
