//! Reads the list of crates from the executables of packages, as vulnerability scanners do, and compares it with their
//! SBOMs. The scanner is rust-audit-info, of the authors of the format.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use host::command::run;
use host::directory;
use host::status::{Step, step};
use serde_json::Value;
use tar::Archive;
use xshell::{Shell, cmd};

use crate::dist::tools;

/// Crates as their names and versions.
type Crates = BTreeSet<(String, String)>;

/// Scans the executables in the packages in `dist`, and returns their number.
///
/// # Errors
/// An executable does not list a crate of its SBOM.
pub fn all(sh: &Shell, dist: &Path) -> Result<usize> {
    let scanner = tools::rust_audit_info(sh)?;
    step("reading the crates in the executables", |step| scan(sh, step, &scanner, dist))
}

fn scan(sh: &Shell, step: &Step, scanner: &Path, dist: &Path) -> Result<usize> {
    let directory = tempfile::tempdir().context("creating a directory for executables failed")?;
    let mut count = 0;
    for deb in directory::entries(dist)? {
        let sbom = deb.with_extension("cdx.json");
        if deb.extension().is_none_or(|extension| extension != "deb") || !sbom.exists() {
            continue; // the metapackage has no executable
        }
        let context = || format!("scanning the executables of {} failed", deb.display());
        let sbom = fs::read_to_string(&sbom).with_context(|| format!("reading {} failed", sbom.display()))?;
        let expected = in_sbom(&sbom).with_context(context)?;
        let tar = cmd!(sh, "dpkg-deb --fsys-tarfile {deb}").quiet().output().with_context(context)?.stdout;
        for executable in executables(&tar).with_context(context)? {
            let path = directory.path().join("executable");
            directory::write(&path, executable)?;
            let list = run(step, cmd!(sh, "{scanner} {path}")).with_context(context)?;
            let missing = missing(&expected, &in_list(&list).with_context(context)?);
            ensure!(missing.is_empty(), "{}: the executable does not list {}", deb.display(), missing.join(", "));
            count += 1;
        }
    }
    Ok(count)
}

/// The contents of the executables in `tar`, the content of a package.
fn executables(tar: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    for entry in Archive::new(tar).entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_file() && entry.header().mode()? & 0o111 != 0 {
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            if content.starts_with(b"\x7fELF") {
                found.push(content);
            }
        }
    }
    Ok(found)
}

/// The crates of crates.io in an SBOM in CycloneDX.
fn in_sbom(sbom: &str) -> Result<Crates> {
    let sbom: Value = serde_json::from_str(sbom).context("parsing the SBOM failed")?;
    let components = sbom["components"].as_array().context("no components in the SBOM")?;
    let is_crate = |component: &&Value| component["purl"].as_str().is_some_and(|purl| purl.starts_with("pkg:cargo/"));
    Ok(components.iter().filter(is_crate).map(named).collect())
}

/// The crates in the output of the scanner.
fn in_list(list: &str) -> Result<Crates> {
    let list: Value = serde_json::from_str(list).context("parsing the output of rust-audit-info failed")?;
    Ok(list["packages"].as_array().context("no packages in the executable")?.iter().map(named).collect())
}

fn named(package: &Value) -> (String, String) {
    let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
    (text("name"), text("version"))
}

/// The crates of `expected` that `found` does not have.
fn missing(expected: &Crates, found: &Crates) -> Vec<String> {
    expected.difference(found).map(|(name, version)| format!("{name} {version}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_that_are_not_listed_are_named() {
        let sbom = r#"{"components": [{"name": "tar", "version": "0.4", "purl": "pkg:cargo/tar@0.4"},
            {"name": "xattr", "version": "1", "purl": "pkg:cargo/xattr@1"}, {"name": "musl", "version": "1.2.5"}]}"#;
        let list = r#"{"packages": [{"name": "tar", "version": "0.4", "source": "crates.io"},
            {"name": "xattr", "version": "2", "source": "crates.io"}, {"name": "web-file", "version": "0.1.0"}]}"#;
        assert_eq!(missing(&in_sbom(sbom).unwrap(), &in_list(list).unwrap()), ["xattr 1"]);
        assert!(in_sbom("{}").is_err() && in_list("{}").is_err() && in_list("").is_err());
    }

    #[test]
    fn only_executables_are_scanned() {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, mode, content) in [("a", 0o755, "\x7fELF1"), ("b", 0o755, "#!/bin/sh"), ("c", 0o644, "\x7fELF2")] {
            let mut header = tar::Header::new_gnu();
            header.set_mode(mode);
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, path, content.as_bytes()).unwrap();
        }
        assert_eq!(executables(&tar.into_inner().unwrap()).unwrap(), [b"\x7fELF1"]);
    }
}
