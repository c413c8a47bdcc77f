//! The compiler for a target: the active one if it has the target's standard library or rustup can install it; else
//! Debian's; else the active one with a standard library that is built from its source. The choice for a target does
//! not depend on the other targets, so its package is always the same.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use host::command::run;
use host::status::step;
use xshell::{Shell, cmd};

use super::modules::{Module, Workspace};
use super::{debian_rust, rust_source};
use crate::target::Target;

/// A compiler with the libraries that it links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// The compiler; `None` for the active one.
    pub rustc: Option<PathBuf>,
    /// The version of the compiler and of its standard library.
    pub release: String,
    /// The versions of compiler, linker and C library: all that an executable depends on besides the work tree.
    pub identity: String,
}

impl Toolchain {
    /// Cargo's target directory for `target`. If compilers shared a directory, cargo would build everything again for
    /// each of them.
    pub fn target_directory(&self, workspace: &Workspace, target: &Target) -> PathBuf {
        match self.rustc {
            None => workspace.target.clone(),
            Some(_) => workspace.target.join(target.triple),
        }
    }

    /// The path of the executable of `module` for `target`.
    pub fn executable(&self, workspace: &Workspace, module: &Module, target: &Target) -> PathBuf {
        self.target_directory(workspace, target).join(target.triple).join("release").join(&module.name)
    }
}

/// The toolchain for `target`, if this machine has it. Uses neither the network nor rustup.
pub fn present(sh: &Shell, build: &Path, target: &Target) -> Result<Option<Toolchain>> {
    let triple = target.triple;
    let libraries = cmd!(sh, "rustc --print target-libdir --target {triple}")
        .quiet()
        .read()
        .context("reading the standard libraries of rustc failed: install Rust")?;
    let rustc = if Path::new(&libraries).is_dir() {
        None
    } else {
        match fs::read_to_string(compiler_record(build, target)) {
            Ok(rustc) if Path::new(&rustc).is_file() => Some(PathBuf::from(rustc)),
            _ => match rust_source::present(sh, target)? {
                Some(rustc) => Some(rustc),
                None => return Ok(None),
            },
        }
    };
    let program = rustc.as_deref().unwrap_or(Path::new("rustc"));
    let compiler = cmd!(sh, "{program} --version --verbose").quiet().read()?;
    let packages = target.packages;
    let linked = cmd!(sh, "dpkg-query --show {packages...}")
        .quiet()
        .ignore_status()
        .ignore_stderr()
        .read()
        .context("reading the versions of linker and C library with dpkg-query failed")?;
    // One version of the compiler may have standard libraries that were built differently. The path in the cache
    // distinguishes them.
    let identity = format!("{}\n{compiler}\n{linked}", program.display());
    let release = compiler.lines().find_map(|line| line.strip_prefix("release: "));
    let release = release
        .with_context(|| format!("no release in the output of {} --version --verbose", program.display()))?
        .to_owned();
    Ok(Some(Toolchain { rustc, release, identity }))
}

/// The toolchains for `targets`. Missing ones are installed or built.
pub fn provide(sh: &Shell, build: &Path, targets: &[&'static Target]) -> Result<Vec<(&'static Target, Toolchain)>> {
    let missing = |sh| -> Result<Vec<&'static Target>> {
        let mut missing = Vec::new();
        for target in targets {
            if present(sh, build, target)?.is_none() {
                missing.push(*target);
            }
        }
        Ok(missing)
    };
    add_with_rustup(sh, &missing(sh)?);
    let missing = missing(sh)?;
    for target in missing {
        match debian_rust::provide(sh, build, &[target]) {
            Ok(rustc) => {
                let path = compiler_record(build, target);
                fs::write(&path, rustc.as_os_str().as_encoded_bytes())
                    .with_context(|| format!("writing {} failed", path.display()))?;
            }
            Err(error) => {
                eprintln!("      {error:#}");
                rust_source::provide(sh, target).with_context(|| {
                    format!("no standard library of Rust for {0}: run rustup target add {0}", target.triple)
                })?;
            }
        }
    }
    targets
        .iter()
        .map(|target| {
            let toolchain = present(sh, build, target)?;
            Ok((*target, toolchain.with_context(|| format!("no compiler for {}", target.triple))?))
        })
        .collect()
}

/// Installs the standard libraries of `targets` with rustup. A missing rustup or a failed download is not an error,
/// because Debian's Rust is used instead.
fn add_with_rustup(sh: &Shell, targets: &[&Target]) {
    if targets.is_empty() || cmd!(sh, "rustup --version").quiet().ignore_stderr().read().is_err() {
        return;
    }
    let triples: Vec<_> = targets.iter().map(|target| target.triple).collect();
    let added = step(format!("rustup target add {}", triples.join(" ")), |step| {
        // One retry is enough, because there is an alternative.
        let add = cmd!(sh, "rustup target add {triples...}").env("RUSTUP_MAX_RETRIES", "1");
        anyhow::Ok(run(step, add).is_ok())
    });
    if !added.unwrap_or(false) {
        eprintln!("      rustup target add failed; using Debian's Rust");
    }
}

/// The file with the path of Debian's compiler, so that later builds use the same one and need no network.
fn compiler_record(build: &Path, target: &Target) -> PathBuf {
    build.join(format!("debian-rustc-{}", target.triple))
}
