//! `prebuilt.inc`: the checksums of a release's packages, for the recipes that download them.
//!
//! They are valid for one state of the sources only. The file names that state, and the toolchains that made the
//! packages. For any other state it has no checksums, and BitBake skips the recipes.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use host::cache;
use xshell::Shell;

use crate::dist::Dist;
use crate::dist::inputs::{SHALLOW, is_shallow};
use crate::dist::modules::{self, Workspace};
use crate::dist::release::{self, Made};
use crate::needs::Needs;
use crate::target::TARGETS;

/// The first line of the file.
const HEAD: &str = "# Made by `cargo xtask layer`: not to be edited.\n";

/// The beginning of the line with the hash of the sources.
const SOURCES: &str = "# sources: ";

/// The remedy for a file of a release that is not correct.
const REMEDY: &str = "run cargo xtask layer --prebuilt and commit";

/// The result of comparing the checksums with `dist/`.
pub enum Compared {
    /// They agree. The text names the architectures, and those that were not compared.
    Agree(String),
    /// None was compared, for this reason.
    NotCompared(String),
}

/// Builds every package, and returns the content of the file for a release.
pub fn release(sh: &Shell, workspace: &Workspace) -> Result<String> {
    drop(Dist::default().build(sh, Needs::default())?);
    content(sh, workspace)
}

/// The content of the file for a release with the packages in `dist/`.
///
/// # Errors
/// A package is missing or outdated.
pub fn content(sh: &Shell, workspace: &Workspace) -> Result<String> {
    let mut text =
        format!("{HEAD}# The packages that `cargo xtask dist` makes.\n{SOURCES}{}\n", release::sources(sh, workspace)?);
    let (mut toolchains, mut libcs, mut sums) = (String::new(), String::new(), String::new());
    for Made { target, libc, toolchain, packages } in release::made(sh, workspace)? {
        let name = target.debian;
        let (toolchain, libc) = toolchain
            .zip(libc)
            .with_context(|| format!("no toolchain for {name}, although the packages were just built with one"))?;
        let packages = packages.with_context(|| {
            format!("the sources or packages for {name} changed after the build: run the command again")
        })?;
        let _ = writeln!(toolchains, "{}{toolchain}", toolchain_key(name)); // to a String: no error
        let _ = writeln!(libcs, "{}\"{}\"", libc_key(name), libc.name());
        for package in packages {
            let _ = writeln!(sums, "{}", sum(&package)?);
        }
    }
    let _ = writeln!(text, "{toolchains}{}\n{libcs}\n{sums}", version(workspace)?);
    Ok(text.trim_end().to_owned() + "\n")
}

/// The line with the version of the release.
fn version(workspace: &Workspace) -> Result<String> {
    Ok(format!("RUST_MODULES_PREBUILT = \"{}\"", workspace.version()?))
}

/// Checks that the file of a release has each line exactly once, and no others: of two lines, BitBake would use the
/// last.
fn require_form(text: &str, workspace: &Workspace) -> Result<()> {
    let mut keys = vec![version(workspace)? + "\n"];
    for target in TARGETS {
        keys.push(toolchain_key(target.debian));
        keys.push(libc_key(target.debian));
        keys.extend(workspace.modules.iter().map(|module| sum_key(&module.debian, target.debian)));
    }
    let mut lines: Vec<String> = text.lines().map(|line| format!("{line}\n")).collect();
    for key in keys {
        let before = lines.len();
        lines.retain(|line| !line.starts_with(&key));
        ensure!(before == lines.len() + 1, "expected exactly one line that begins with {:?}: {REMEDY}", key.trim_end());
    }
    let unexpected = lines.iter().find(|line| !line.starts_with('#') && !line.trim().is_empty());
    ensure!(unexpected.is_none(), "unexpected line: {}: {REMEDY}", unexpected.map_or("", String::as_str).trim_end());
    Ok(())
}

/// The correct content of the file without building anything: the content at `path` if it is for these sources, else
/// a file without checksums.
pub fn current(sh: &Shell, workspace: &Workspace, path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let sources = release::sources(sh, workspace)?;
    // In a shallow clone nobody knows whether these sources are those of the release.
    let is_unknown = after(&text, SOURCES).is_some() && is_shallow(sh)?;
    Ok(if is_unknown || after(&text, SOURCES) == Some(&sources) { text } else { unreleased() })
}

fn unreleased() -> String {
    format!(
        "{HEAD}# These sources are in no release: `cargo xtask layer --prebuilt` writes the checksums of one.\n\
         RUST_MODULES_PREBUILT = \"\"\n"
    )
}

/// Compares the checksums at `path` with the packages in `dist/` that were made by the toolchain of the release.
///
/// # Errors
/// A checksum differs: the package is not the file that the recipe would download.
pub fn compare(sh: &Shell, path: &Path) -> Result<Compared> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {} failed", path.display()))?;
    if after(&text, SOURCES).is_none() {
        return Ok(Compared::NotCompared("these sources are not in a release".to_owned()));
    }
    if is_shallow(sh)? {
        return Ok(Compared::NotCompared(SHALLOW.to_owned()));
    }
    let workspace = modules::workspace(sh)?;
    require_form(&text, &workspace).with_context(|| format!("checking {} failed", path.display()))?;
    let (mut agree, mut not_compared) = (Vec::new(), Vec::new());
    for Made { target, toolchain, packages, .. } in release::made(sh, &workspace)? {
        let name = target.debian;
        let Some(packages) = packages else {
            not_compared.push(format!("{name}: no current packages in dist/: run cargo xtask dist"));
            continue;
        };
        if toolchain.as_deref() != after(&text, &toolchain_key(name)) {
            not_compared.push(format!("{name}: other versions of the compiler or C library than those of the release"));
            continue;
        }
        for package in packages {
            let sum = sum(&package)?;
            ensure!(
                text.lines().any(|line| line == sum),
                "wrong checksum: {}: {} has another: {REMEDY}",
                path.display(),
                package.display()
            );
        }
        agree.push(name);
    }
    let not_compared = not_compared.join("; ");
    Ok(match agree.as_slice() {
        [] => Compared::NotCompared(not_compared),
        _ if not_compared.is_empty() => Compared::Agree(agree.join(", ")),
        _ => Compared::Agree(format!("{}; not compared: {not_compared}", agree.join(", "))),
    })
}

fn toolchain_key(architecture: &str) -> String {
    format!("# toolchain {architecture}: ")
}

/// The beginning of the line with the C library of the packages for an architecture: their licence depends on it.
fn libc_key(architecture: &str) -> String {
    format!("RUST_MODULES_PREBUILT_LIBC[{architecture}] = ")
}

/// The rest of the line of `text` that begins with `key`.
fn after<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key))
}

/// The line with the checksum of `package`, whose name is `NAME_VERSION_ARCHITECTURE.deb`.
fn sum(package: &Path) -> Result<String> {
    let file = package.file_stem().unwrap_or_default().to_string_lossy();
    let mut parts = file.split('_');
    let (name, architecture) = (parts.next().unwrap_or_default(), parts.next_back().unwrap_or_default());
    let content = fs::read(package).with_context(|| format!("reading {} failed", package.display()))?;
    Ok(format!("{}\"{}\"", sum_key(name, architecture), cache::sha256(&content)))
}

/// The beginning of the line with the checksum of a package.
fn sum_key(name: &str, architecture: &str) -> String {
    format!("SRC_URI[{name}-{architecture}.sha256sum] = ")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::dist::modules::Module;

    #[test]
    fn missing_and_unexpected_lines_are_errors() {
        let module = Module { name: "deb".into(), version: "0.1.0".into(), debian: "mender-update-module-deb".into() };
        let workspace =
            Workspace { root: PathBuf::new(), target: PathBuf::new(), modules: vec![module], tools: Vec::new() };
        let mut text = format!("{HEAD}{SOURCES}abc\n");
        for target in TARGETS {
            let _ = writeln!(text, "{}abc", toolchain_key(target.debian));
        }
        let _ = writeln!(text, "RUST_MODULES_PREBUILT = \"0.1.0\"\n");
        for target in TARGETS {
            let _ = writeln!(text, "{}\"musl\"", libc_key(target.debian));
            let _ = writeln!(text, "{}\"abc\"", sum_key("mender-update-module-deb", target.debian));
        }
        require_form(&text, &workspace).unwrap();
        let without = |part: &str| text.lines().filter(|line| !line.contains(part)).collect::<Vec<_>>().join("\n");
        let sum = sum_key("mender-update-module-deb", "arm64");
        for bad in [
            without("deb-arm64"),
            without("PREBUILT"),
            without("toolchain armhf"),
            without("LIBC[amd64]"),
            text.replace("\"0.1.0\"", "\"\""),
            format!("{text}{sum}\"def\"\n"),
            format!("{text}RUST_MODULES_PREBUILT = \"\"\n"),
        ] {
            assert!(require_form(&bad, &workspace).is_err(), "{bad}");
        }
    }
}
