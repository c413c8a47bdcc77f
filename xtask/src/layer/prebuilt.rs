//! `prebuilt.inc`: the checksums of a release's packages, for the recipes that download them.
//!
//! They are right for one state of the sources only. The file names that state, and the toolchains that made the packages. As
//! soon as the sources are others, it has no checksums, and the recipes leave themselves out.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use host::cache;
use xshell::Shell;

use crate::dist::Dist;
use crate::dist::modules::{self, Workspace};
use crate::dist::release::{self, Made};
use crate::target::TARGETS;

const HEAD: &str = "# Made by `cargo xtask layer`: not to be edited.\n";

/// What stands before the hash of the sources that the checksums are of.
const SOURCES: &str = "# sources: ";

/// What comparing the checksums with `dist/` has shown.
pub enum Compared {
    /// They agree: of which architectures, and which were not compared.
    Agree(String),
    /// None was compared, and why.
    NotCompared(String),
}

/// The file for a release: builds every package.
///
/// # Errors
/// When a package cannot be built.
pub fn release(sh: &Shell, workspace: &Workspace) -> Result<String> {
    Dist::default().run(sh)?;
    let mut text = format!(
        "{HEAD}# The packages that `cargo xtask dist` makes.\n{SOURCES}{}\n",
        release::sources(sh, workspace)?
    );
    let (mut toolchains, mut sums) = (String::new(), String::new());
    for Made { target, toolchain, packages } in release::made(sh, workspace)? {
        let name = target.debian;
        let toolchain =
            toolchain.with_context(|| format!("no toolchain for {name}, although it was just used"))?;
        let packages =
            packages.with_context(|| format!("the packages for {name} changed since they were built"))?;
        let _ = writeln!(toolchains, "{}{toolchain}", toolchain_key(name)); // to a String: no error
        for package in packages {
            let _ = writeln!(sums, "{}", sum(&package)?);
        }
    }
    let _ = writeln!(text, "{toolchains}{}\n\n{sums}", version(workspace)?);
    Ok(text.trim_end().to_owned() + "\n")
}

/// The line with the version of the release.
fn version(workspace: &Workspace) -> Result<String> {
    let version = &workspace.modules.first().context("the workspace has no module")?.version;
    Ok(format!("RUST_MODULES_PREBUILT = \"{version}\""))
}

/// Refuses a file of a release that lacks a line, or has one that does not belong there: BitBake takes the last of two.
fn require_form(text: &str, workspace: &Workspace) -> Result<()> {
    let mut keys = vec![version(workspace)? + "\n"];
    for target in TARGETS {
        keys.push(toolchain_key(target.debian));
        keys.extend(workspace.modules.iter().map(|module| sum_key(&module.debian, target.debian)));
    }
    let mut lines: Vec<String> = text.lines().map(|line| format!("{line}\n")).collect();
    for key in keys {
        let before = lines.len();
        lines.retain(|line| !line.starts_with(&key));
        ensure!(before == lines.len() + 1, "not exactly one line that begins with {:?}", key.trim_end());
    }
    let more = lines.iter().find(|line| !line.starts_with('#') && !line.trim().is_empty());
    ensure!(
        more.is_none(),
        "a line that does not belong there: {}",
        more.map_or("", String::as_str).trim_end()
    );
    Ok(())
}

/// The file as it has to be without building anything: as it is at `path` where that is of these sources, else without checksums.
///
/// # Errors
/// When git cannot be asked, or a file not be read.
pub fn kept(sh: &Shell, workspace: &Workspace, path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let sources = release::sources(sh, workspace)?;
    Ok(if after(&text, SOURCES) == Some(&sources) { text } else { unreleased() })
}

fn unreleased() -> String {
    format!(
        "{HEAD}# These sources are in no release: `cargo xtask layer --prebuilt` writes the checksums of one.\n\
         RUST_MODULES_PREBUILT = \"\"\n"
    )
}

/// Compares the checksums at `path` with the packages in `dist/`, where those were made by the toolchain of the release.
///
/// # Errors
/// When they differ: a package is not what the recipe would download.
pub fn compare(sh: &Shell, path: &Path) -> Result<Compared> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    if after(&text, SOURCES).is_none() {
        return Ok(Compared::NotCompared("these sources are in no release".to_owned()));
    }
    let workspace = modules::workspace(sh)?;
    require_form(&text, &workspace)
        .with_context(|| format!("{}: run cargo xtask layer --prebuilt and commit", path.display()))?;
    let (mut agree, mut not_compared) = (Vec::new(), Vec::new());
    for Made { target, toolchain, packages } in release::made(sh, &workspace)? {
        let name = target.debian;
        let Some(packages) = packages else {
            not_compared.push(format!("{name}: dist/ does not have its packages; run cargo xtask dist"));
            continue;
        };
        if toolchain.as_deref() != after(&text, &toolchain_key(name)) {
            not_compared
                .push(format!("{name}: the release was made by other versions of compiler or C library"));
            continue;
        }
        for package in packages {
            let sum = sum(&package)?;
            ensure!(
                text.lines().any(|line| line == sum),
                "wrong checksum in {}: {} is another file: run cargo xtask layer --prebuilt and commit",
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

/// What follows `key` in the line of `text` that begins with it.
fn after<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key))
}

/// The line with the checksum of `package`, whose name is `NAME_VERSION_ARCHITECTURE.deb`.
fn sum(package: &Path) -> Result<String> {
    let file = package.file_stem().unwrap_or_default().to_string_lossy();
    let mut parts = file.split('_');
    let (name, architecture) = (parts.next().unwrap_or_default(), parts.next_back().unwrap_or_default());
    let content = fs::read(package).with_context(|| format!("reading {}", package.display()))?;
    Ok(format!("{}\"{}\"", sum_key(name, architecture), cache::sha256(&content)))
}

/// What the line with the checksum of a package begins with.
fn sum_key(name: &str, architecture: &str) -> String {
    format!("SRC_URI[{name}-{architecture}.sha256sum] = ")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::dist::modules::Module;

    #[test]
    fn a_line_too_few_or_too_many_is_noticed() {
        let module =
            Module { name: "deb".into(), version: "0.1.0".into(), debian: "mender-update-module-deb".into() };
        let workspace = Workspace { root: PathBuf::new(), target: PathBuf::new(), modules: vec![module] };
        let mut text = format!("{HEAD}{SOURCES}abc\n");
        for target in TARGETS {
            let _ = writeln!(text, "{}abc", toolchain_key(target.debian));
        }
        let _ = writeln!(text, "RUST_MODULES_PREBUILT = \"0.1.0\"\n");
        for target in TARGETS {
            let _ = writeln!(text, "{}\"abc\"", sum_key("mender-update-module-deb", target.debian));
        }
        require_form(&text, &workspace).unwrap();
        let without =
            |part: &str| text.lines().filter(|line| !line.contains(part)).collect::<Vec<_>>().join("\n");
        let sum = sum_key("mender-update-module-deb", "arm64");
        for bad in [
            without("deb-arm64"),
            without("PREBUILT"),
            without("toolchain armhf"),
            text.replace("\"0.1.0\"", "\"\""),
            format!("{text}{sum}\"def\"\n"),
            format!("{text}RUST_MODULES_PREBUILT = \"\"\n"),
        ] {
            assert!(require_form(&bad, &workspace).is_err(), "{bad}");
        }
    }
}
