//! Debian's Rust compiler with the standard libraries of foreign targets, unpacked in the user's cache directory.
//!
//! Only the shared libraries of the compiler are installed on the host. apt cannot install the foreign standard
//! libraries beside the host's, because their dependencies conflict. And the compiler must have exactly their
//! version, which is often not the version that apt would choose. All packages are unpacked into one directory, which
//! is the sysroot.

use std::fs;
use std::iter;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use host::apt::{self, Root};
use host::status::{Step, step};
use host::{cache, packages, script};
use xshell::{Shell, cmd};

use crate::dpkg;
use crate::target::Target;

/// The packages of compiler and standard library, in order of preference: those of the release, and the newer ones that
/// Debian has for browsers. Debian 12 needs the latter.
const FLAVOURS: [(&str, &str); 2] = [("rustc", "libstd-rust-dev"), ("rustc-web", "libstd-rust-web-dev")];

/// The script that runs the compiler. Debian's executable does not find its libraries and its sysroot in another
/// directory.
const WRAPPER: &str = r#"here=$(dirname "$0")
LD_LIBRARY_PATH=$(echo "$here"/usr/lib/*-linux-gnu) exec "$here/usr/bin/rustc" --sysroot "$here/usr" "$@"
"#;

/// A compiler package, its standard library, and a version that all architectures have.
#[derive(Debug, PartialEq, Eq)]
struct Choice {
    compiler: &'static str,
    library: &'static str,
    version: String,
}

/// The path of a compiler for `targets` only, because a mirror may lack other architectures for a while. Package
/// lists are stored in a directory in `build`.
pub fn provide(sh: &Shell, build: &Path, targets: &[&Target]) -> Result<PathBuf> {
    // The package lists of the host are in one directory, also for several targets in parallel.
    let _lock = cache::lock(&build.join("apt.lock"))?;
    let release = apt::codename()?;
    let host = dpkg::architecture(sh)?;
    let mut roots = Vec::new();
    let (roots, choice) = step(format!("choosing Debian's Rust in {release}"), |step| {
        for architecture in architectures(&host, targets) {
            let directory = build.join("apt").join(architecture);
            roots.push((architecture, Root::new(sh, step, &directory, &release, architecture)?));
        }
        let choice = choose(&host, targets, |architecture, package| {
            let root = roots.iter().find(|(name, _)| *name == architecture);
            root.map_or_else(|| Ok(Vec::new()), |(_, root)| root.versions(package))
        })?;
        anyhow::Ok((roots, choice))
    })?;
    let key = [vec![choice.compiler, &choice.version, WRAPPER], architectures(&host, targets)].concat();
    let key = cache::key(key.into_iter().map(str::as_bytes));
    let directory = cache::entry("debian-rust", &key, |directory| {
        step(format!("unpacking {} {}", choice.compiler, choice.version), |step| {
            for (architecture, root) in &roots {
                unpack(sh, step, root, &choice, *architecture == host, directory)?;
            }
            script::write(&directory.join("rustc"), WRAPPER)
        })
    })?;
    let libraries = fs::read_to_string(directory.join(NEEDS))
        .context("reading the shared libraries of the cached compiler failed")?;
    packages::ensure(sh, &libraries.lines().collect::<Vec<_>>())?;
    Ok(directory.join("rustc"))
}

/// The host's architecture, for build scripts and macros, and the architectures of `targets`.
fn architectures<'a>(host: &'a str, targets: &[&'a Target]) -> Vec<&'a str> {
    let foreign = targets.iter().map(|target| target.glibc.libraries).filter(|name| *name != host);
    iter::once(host).chain(foreign).collect()
}

/// The file in the cache with the host packages of the compiler's shared libraries, one on each line.
const NEEDS: &str = "needs";

fn unpack(sh: &Shell, step: &Step, root: &Root, choice: &Choice, host: bool, directory: &Path) -> Result<()> {
    let pinned = |package: &str| format!("{package}={}", choice.version);
    let library = root.download(step, &[&pinned(choice.library)])?;
    let mut debs = library.clone();
    if host {
        // The compiler itself is a shared library. The name of its package contains the version of the compiler.
        let driver = first_dependency(&depends(sh, &library[0])?)?;
        let driver = root.download(step, &[&pinned(&driver)])?;
        let needs = library_names(&depends(sh, &driver[0])?).join("\n");
        fs::write(directory.join(NEEDS), needs)
            .context("writing the shared libraries of the compiler to the cache failed")?;
        debs.extend(driver);
        debs.extend(root.download(step, &[&pinned(choice.compiler)])?);
    }
    for deb in debs {
        dpkg::unpack(sh, step, &deb, directory)?;
    }
    Ok(())
}

fn depends(sh: &Shell, deb: &Path) -> Result<String> {
    Ok(cmd!(sh, "dpkg-deb --field {deb} Depends").quiet().read()?)
}

fn first_dependency(depends: &str) -> Result<String> {
    let first = depends.split([',', ' ']).next().filter(|name| name.starts_with("libstd-rust"));
    Ok(first
        .with_context(|| format!("no libstd-rust in the dependencies of Debian's standard library: {depends:?}"))?
        .to_owned())
}

/// The names of packages in a `Depends` field without alternatives.
fn library_names(depends: &str) -> Vec<&str> {
    depends.split(',').filter_map(|dependency| dependency.split_whitespace().next()).collect()
}

/// The newest version that has a compiler for the host and a library for every architecture, of the first flavour
/// that is new enough.
fn choose(host: &str, targets: &[&Target], versions: impl Fn(&str, &str) -> Result<Vec<String>>) -> Result<Choice> {
    for (compiler, library) in FLAVOURS {
        let mut common = versions(host, compiler)?;
        common.retain(|version| new_enough(version));
        for architecture in architectures(host, targets) {
            let available = versions(architecture, library)?;
            common.retain(|version| available.contains(version));
        }
        if let Some(version) = common.into_iter().next() {
            return Ok(Choice { compiler, library, version });
        }
    }
    anyhow::bail!(
        "no suitable Rust in Debian's archive: needed is one version, {} or newer, for {} and this machine",
        env!("CARGO_PKG_RUST_VERSION"),
        targets.iter().map(|target| target.glibc.libraries).collect::<Vec<_>>().join(", ")
    )
}

/// Whether this Debian version of Rust builds this work tree.
fn new_enough(version: &str) -> bool {
    let numbers = |text: &str| -> Option<(u32, u32)> {
        let mut parts = text.split('.').map(|part| part.parse().ok());
        Some((parts.next()??, parts.next()??))
    };
    numbers(version) >= numbers(env!("CARGO_PKG_RUST_VERSION"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::TARGETS;

    /// The choice from an archive of lines `architecture package version version …`, newest version first.
    fn chosen(archive: &str) -> Result<Choice> {
        let targets: Vec<&Target> = TARGETS.iter().collect();
        choose("amd64", &targets, |architecture, package| {
            let start = format!("{architecture} {package} ");
            let found = archive.lines().find_map(|line| line.trim().strip_prefix(&start));
            Ok(found.unwrap_or_default().split_whitespace().map(str::to_owned).collect())
        })
    }

    #[test]
    fn debian_12_uses_the_newest_common_rustc_web() {
        let choice = chosen(
            "amd64 rustc 1.63.0+dfsg1-2
             amd64 libstd-rust-dev 1.63.0+dfsg1-2
             arm64 libstd-rust-dev 1.63.0+dfsg1-2
             armel libstd-rust-dev 1.63.0+dfsg1-2
             amd64 rustc-web 1.96.0-1 1.90.0-1 1.85.0-1 1.84.0-1
             amd64 libstd-rust-web-dev 1.96.0-1 1.90.0-1 1.85.0-1 1.84.0-1
             arm64 libstd-rust-web-dev 1.90.0-1 1.85.0-1 1.84.0-1
             armel libstd-rust-web-dev 1.85.0-1 1.84.0-1",
        );
        let expected = Choice { compiler: "rustc-web", library: "libstd-rust-web-dev", version: "1.85.0-1".into() };
        assert_eq!(choice.unwrap(), expected);
    }

    #[test]
    fn debian_13_uses_its_own_rustc() {
        let choice = chosen(
            "amd64 rustc 1.85.1-1
             amd64 libstd-rust-dev 1.85.1-1
             arm64 libstd-rust-dev 1.85.1-1
             armel libstd-rust-dev 1.85.1-1
             amd64 rustc-web 1.96.0-1+b1",
        );
        assert_eq!(choice.unwrap().version, "1.85.1-1");
    }

    #[test]
    fn no_common_version_is_an_error() {
        let error = chosen("amd64 rustc 1.85.1-1\namd64 libstd-rust-dev 1.85.1-1").unwrap_err();
        assert!(error.to_string().ends_with("for arm64, armel, amd64 and this machine"), "{error}");
    }

    #[test]
    fn versions_are_compared_by_number() {
        assert!(new_enough("1.85.0+dfsg3-1~deb12u3") && new_enough("1.100.0-1") && new_enough("2.0.0-1"));
        assert!(!new_enough("1.63.0+dfsg1-2") && !new_enough("unknown"));
    }

    #[test]
    fn dependencies_are_names() {
        assert_eq!(first_dependency("libstd-rust-web-1.85 (= 1.85.0)").unwrap(), "libstd-rust-web-1.85");
        assert!(first_dependency("libc6 (>= 2.34)").is_err());
        assert_eq!(
            library_names("libc6 (>= 2.34), libllvm19, libstdc++6 (>= 11)"),
            ["libc6", "libllvm19", "libstdc++6"]
        );
    }
}
