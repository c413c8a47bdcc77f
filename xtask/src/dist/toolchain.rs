//! Which compiler builds for a target: the active one where it has, or rustup can get it, the target's standard library; else
//! Debian's; else the active one with a standard library built from its source. Each target is decided alone, so its package
//! does not depend on what else is built.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use host::command::run;
use host::status::step;
use xshell::{Shell, cmd};

use super::modules::{Module, Workspace};
use super::{debian_rust, rust_source};
use crate::target::Target;

/// A compiler and what it links with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// The compiler; none stands for the active one.
    pub rustc: Option<PathBuf>,
    /// Its version, and so that of the standard library.
    pub release: String,
    /// Versions of everything that goes into an executable beside the work tree: compiler, linker, C library.
    pub identity: String,
}

impl Toolchain {
    /// Cargo's target directory for `target`. Compilers that share one make cargo build everything again at every change from one
    /// to the other.
    pub fn target_directory(&self, workspace: &Workspace, target: &Target) -> PathBuf {
        match self.rustc {
            None => workspace.target.clone(),
            Some(_) => workspace.target.join(target.triple),
        }
    }

    /// Where cargo puts the executable of `module` for `target`.
    pub fn executable(&self, workspace: &Workspace, module: &Module, target: &Target) -> PathBuf {
        self.target_directory(workspace, target).join(target.triple).join("release").join(&module.name)
    }
}

/// The toolchain for `target`, if it is there already. Neither network nor rustup is asked.
pub fn present(sh: &Shell, build: &Path, target: &Target) -> Result<Option<Toolchain>> {
    let triple = target.triple;
    let libraries = cmd!(sh, "rustc --print target-libdir --target {triple}")
        .quiet()
        .read()
        .context("asking rustc for its standard libraries: is Rust installed?")?;
    let rustc = if Path::new(&libraries).is_dir() {
        None
    } else {
        match fs::read_to_string(remembered(build, target)) {
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
        .context("asking dpkg for the versions of linker and C library")?;
    // One version may have standard libraries of several makes: their directory's name in the cache tells them apart.
    let identity = format!("{}\n{compiler}\n{linked}", program.display());
    let release = compiler.lines().find_map(|line| line.strip_prefix("release: "));
    let release = release.with_context(|| format!("{} prints no release", program.display()))?.to_owned();
    Ok(Some(Toolchain { rustc, release, identity }))
}

/// The toolchains for `targets`, fetched where they are not there yet.
pub fn provide(
    sh: &Shell,
    build: &Path,
    targets: &[&'static Target],
) -> Result<Vec<(&'static Target, Toolchain)>> {
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
                let path = remembered(build, target);
                fs::write(&path, rustc.as_os_str().as_encoded_bytes())
                    .with_context(|| format!("writing {}", path.display()))?;
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

/// Asks rustup for the standard libraries of `targets`. That it is not there or cannot fetch is no error: Debian serves.
fn add_with_rustup(sh: &Shell, targets: &[&Target]) {
    if targets.is_empty() || cmd!(sh, "rustup --version").quiet().ignore_stderr().read().is_err() {
        return;
    }
    let triples: Vec<_> = targets.iter().map(|target| target.triple).collect();
    let added = step(format!("rustup target add {}", triples.join(" ")), |step| {
        // One more attempt will do: there is another way.
        let add = cmd!(sh, "rustup target add {triples...}").env("RUSTUP_MAX_RETRIES", "1");
        anyhow::Ok(run(step, add).is_ok())
    });
    if !added.unwrap_or(false) {
        eprintln!("      rustup cannot fetch them; Debian's Rust is looked for");
    }
}

/// The file that keeps Debian's compiler, once taken, in use: a build does not depend on the network of the day.
fn remembered(build: &Path, target: &Target) -> PathBuf {
    build.join(format!("debian-rustc-{}", target.triple))
}
