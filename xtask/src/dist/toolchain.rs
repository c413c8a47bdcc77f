//! The toolchain for a target. With musl: the active compiler, and the standard library built from its source. With
//! the GNU C library: the active compiler if it has the target's standard library or rustup can install it; else a
//! standard library that is built from its source; else Debian's compiler. The choice for a target does not depend on
//! the other targets, so its package is always the same.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use host::cache;
use host::command::{run, shell_in};
use host::pool::{both, side_by_side};
use host::status::step;
use xshell::{Shell, cmd};

use super::modules::{Module, Workspace};
use super::rust_source::Active;
use super::{debian_rust, rust_source};
use crate::target::{Libc, Target};

/// The C library that the user wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Choice {
    /// The tested one: musl for arm64 and amd64 if rustup has the target, else glibc
    #[default]
    Auto,
    /// musl, with the linker and the C library of Rust
    Musl,
    /// The GNU C library, with Debian's cross compilers
    Glibc,
}

impl Choice {
    /// The value of the option.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Musl => "musl",
            Self::Glibc => "glibc",
        }
    }
}

/// The compiler of a toolchain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compiler {
    /// The active one, with its own standard library.
    Active,
    /// The active one, with a standard library that was built from its source, in this directory.
    Source(PathBuf),
    /// Debian's, at this path.
    Debian(PathBuf),
}

/// A compiler with the libraries that it links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// The compiler.
    pub compiler: Compiler,
    /// The C library.
    pub libc: Libc,
    /// The version of the compiler and of its standard library.
    pub release: String,
    /// The versions of compiler, linker and C library: all that an executable depends on besides the work tree.
    pub identity: String,
}

impl Toolchain {
    /// Cargo's target directory for `target`. If compilers shared a directory, cargo would build everything again for
    /// each of them.
    pub fn target_directory(&self, workspace: &Workspace, target: &Target) -> PathBuf {
        match self.compiler {
            Compiler::Active | Compiler::Source(_) => workspace.target.clone(),
            Compiler::Debian(_) => workspace.target.join(target.triple(self.libc)),
        }
    }

    /// The path of the executable of `module` for `target`.
    pub fn executable(&self, workspace: &Workspace, module: &Module, target: &Target) -> PathBuf {
        let directory = self.target_directory(workspace, target).join(target.triple(self.libc));
        directory.join(module.profile()).join(&module.name)
    }
}

#[cfg(test)]
impl Toolchain {
    /// A toolchain with this identity.
    pub fn example(identity: &str) -> Self {
        let compiler = Compiler::Active;
        Self { compiler, libc: Libc::Glibc, release: "1.95.0".into(), identity: identity.into() }
    }
}

/// The C library for `target` by `choice` and by what this machine has. Uses neither the network nor rustup.
pub fn libc(active: &Active, target: &Target, choice: Choice) -> Libc {
    match choice {
        Choice::Musl => Libc::Musl,
        Choice::Auto if target.libc == Libc::Musl && active.has_musl(target.musl) => Libc::Musl,
        Choice::Auto | Choice::Glibc => Libc::Glibc,
    }
}

/// The toolchain for `target`, if this machine has it. Uses neither the network nor rustup.
pub fn present(sh: &Shell, build: &Path, target: &Target, choice: Choice) -> Result<Option<Toolchain>> {
    let active = Active::find(sh)?;
    let libc = libc(&active, target, choice);
    let triple = target.triple(libc);
    let source = || rust_source::present(&active, triple);
    let compiler = match libc {
        Libc::Musl => source()?.map(Compiler::Source),
        Libc::Glibc if active.libraries(triple).is_dir() => Some(Compiler::Active),
        Libc::Glibc => source()?.map(Compiler::Source).or_else(|| recorded(build, triple)),
    };
    let Some(compiler) = compiler else { return Ok(None) };
    // One version of the compiler may have standard libraries that were built differently: the names of their
    // directories in the cache distinguish them.
    let (version, library) = match &compiler {
        Compiler::Active => (active.version.clone(), String::new()),
        Compiler::Source(directory) => (active.version.clone(), name(directory)),
        Compiler::Debian(rustc) => {
            (cmd!(sh, "{rustc} --version --verbose").quiet().read()?, rustc.parent().map(name).unwrap_or_default())
        }
    };
    let linked = match libc {
        Libc::Musl => cache::sha256(&active.musl(triple)?),
        Libc::Glibc => debian_versions(sh, target)?,
    };
    let identity = format!("{library}\n{version}\n{}\n{linked}", libc.name());
    let release = version.lines().find_map(|line| line.strip_prefix("release: "));
    let release = release.context("no release in the output of rustc --version --verbose")?.to_owned();
    Ok(Some(Toolchain { compiler, libc, release, identity }))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Debian's compiler for `triple`, if an earlier build has used it.
fn recorded(build: &Path, triple: &str) -> Option<Compiler> {
    let rustc = PathBuf::from(fs::read_to_string(compiler_record(build, triple)).ok()?);
    rustc.is_file().then_some(Compiler::Debian(rustc))
}

/// The versions of linker and C library.
fn debian_versions(sh: &Shell, target: &Target) -> Result<String> {
    let packages = target.glibc.packages;
    cmd!(sh, "dpkg-query --show {packages...}")
        .quiet()
        .ignore_status()
        .ignore_stderr()
        .read()
        .context("reading the versions of linker and C library with dpkg-query failed")
}

/// Adds the musl targets of `targets`, and the source of the standard library, with rustup, where they are missing.
///
/// # Errors
/// `choice` is musl and rustup does not have it. Otherwise the GNU C library is used.
pub fn add_musl(sh: &Shell, targets: &[&Target], choice: Choice) -> Result<()> {
    let active = Active::find(sh)?;
    let wanted = |target: &&&Target| match choice {
        Choice::Auto => target.libc == Libc::Musl,
        Choice::Musl => true,
        Choice::Glibc => false,
    };
    let missing = targets.iter().filter(wanted).filter(|target| !active.has_musl(target.musl));
    for target in missing {
        let added = active.has_libraries(target.musl) || add_with_rustup(sh, &["target", "add", target.musl]);
        let source = added && (active.has_source() || add_with_rustup(sh, &["component", "add", "rust-src"]));
        ensure!(
            source || choice == Choice::Auto,
            "no Rust for {0}: run rustup target add {0} and rustup component add rust-src",
            target.musl
        );
        if !source {
            eprintln!("      building for {} with glibc: rustup does not have {}", target.debian, target.musl);
        }
    }
    Ok(())
}

/// The toolchains for `targets`. Missing ones are installed or built, `beside` the other work.
pub fn provide<T: Send>(
    sh: &Shell,
    build: &Path,
    targets: &[&'static Target],
    choice: Choice,
    beside: impl FnOnce(&Shell) -> Result<T> + Send,
) -> Result<(Vec<(&'static Target, Toolchain)>, T)> {
    let mut missing = Vec::new();
    for target in targets {
        if present(sh, build, target, choice)?.is_none() {
            missing.push(*target);
        }
    }
    let active = Active::find(sh)?;
    let directory = sh.current_dir();
    // The standard library is a chain of crates that cannot use two processors.
    let one = |target: &&Target| provide_one(&shell_in(&directory)?, build, &active, target, choice);
    let (other, provided) = both(|| beside(&shell_in(&directory)?), || side_by_side(missing.len(), &missing, one));
    provided.into_iter().collect::<Result<()>>()?;
    let other = other?;
    let toolchain = |target: &&'static Target| {
        let toolchain = present(sh, build, target, choice)?;
        Ok((*target, toolchain.with_context(|| format!("no compiler for {}", target.debian))?))
    };
    Ok((targets.iter().map(toolchain).collect::<Result<_>>()?, other))
}

/// Installs or builds what is missing for `target`.
fn provide_one(sh: &Shell, build: &Path, active: &Active, target: &Target, choice: Choice) -> Result<()> {
    let libc = libc(active, target, choice);
    let triple = target.triple(libc);
    if libc == Libc::Glibc && add_with_rustup(sh, &["target", "add", triple]) {
        return Ok(());
    }
    let built = rust_source::provide(sh, active, triple);
    if libc == Libc::Musl {
        return built;
    }
    let Err(error) = built else { return Ok(()) };
    eprintln!("      {error:#}: using Debian's Rust");
    let rustc = debian_rust::provide(sh, build, &[target])
        .with_context(|| format!("no standard library of Rust for {triple}: run rustup target add {triple}"))?;
    let path = compiler_record(build, triple);
    fs::write(&path, rustc.as_os_str().as_encoded_bytes()).with_context(|| format!("writing {} failed", path.display()))
}

/// Runs rustup with `arguments`, and returns whether it succeeded. A missing rustup or a failed download is not an
/// error, because there is an alternative.
fn add_with_rustup(sh: &Shell, arguments: &[&str]) -> bool {
    if cmd!(sh, "rustup --version").quiet().ignore_stderr().read().is_err() {
        return false;
    }
    let added = step(format!("rustup {}", arguments.join(" ")), |step| {
        // One retry is enough, because there is an alternative.
        let add = cmd!(sh, "rustup {arguments...}").env("RUSTUP_MAX_RETRIES", "1");
        anyhow::Ok(run(step, add).is_ok())
    });
    added.unwrap_or(false)
}

/// The file with the path of Debian's compiler, so that later builds use the same one and need no network.
fn compiler_record(build: &Path, triple: &str) -> PathBuf {
    build.join(format!("debian-rustc-{triple}"))
}
