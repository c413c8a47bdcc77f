//! Rust's standard library, built from its source by the active compiler, for a target for which neither rustup nor
//! Debian has it. Debian 12 has no Rust for armel that is new enough.
//!
//! Only the standard library is built with cargo's unstable `-Z build-std`. The result is a sysroot in the cache. The
//! modules are built with it as with any other compiler.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use host::command::run;
use host::status::{Step, step};
use host::{cache, directory};
use xshell::{Shell, cmd};

use super::cargo_home::cargo_home;
use crate::target::Target;

/// The manifest of an empty crate, with which cargo builds the standard library. It aborts on a panic, as the modules
/// do.
const MANIFEST: &str = "[package]\nname = \"empty\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
                        [workspace]\n\n[profile.release]\ncodegen-units = 1\npanic = \"abort\"\n";

/// The kind of entry in the cache.
const KIND: &str = "rust-std";

/// The active compiler.
struct Active {
    /// The directory with its `bin` and `lib`.
    sysroot: PathBuf,
    /// The output of `rustc --version --verbose`.
    version: String,
}

impl Active {
    fn find(sh: &Shell) -> Result<Self> {
        let sysroot = cmd!(sh, "rustc --print sysroot").quiet().read()?;
        let version = cmd!(sh, "rustc --version --verbose").quiet().read()?;
        Ok(Self { sysroot: sysroot.into(), version })
    }

    /// The value of `field` in the version.
    fn field(&self, field: &str) -> Result<&str> {
        let value = self.version.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(": "));
        value.with_context(|| format!("no {field} in the output of rustc --version --verbose: {}", self.version))
    }

    fn library(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib/src/rust/library")
    }

    /// The key of the cache entry. It depends on the compiler, the target, and the code that makes the sysroot.
    fn key(&self, target: &Target) -> String {
        let sysroot = self.sysroot.to_string_lossy();
        cache::key(
            [self.version.as_str(), &sysroot, target.triple, MANIFEST, include_str!("rust_source.rs")]
                .map(str::as_bytes),
        )
    }
}

/// The compiler with the standard library for `target`, if the cache has it.
pub fn present(sh: &Shell, target: &Target) -> Result<Option<PathBuf>> {
    let rustc = cache::directory()?.join(KIND).join(Active::find(sh)?.key(target)).join("rustc");
    Ok(rustc.is_file().then_some(rustc))
}

/// Builds the standard library for `target` if the cache does not have it, and returns the compiler.
pub fn provide(sh: &Shell, target: &Target) -> Result<PathBuf> {
    let active = Active::find(sh)?;
    let directory = cache::entry(KIND, &active.key(target), |directory| {
        step(format!("building Rust's standard library for {}, once", target.triple), |step| {
            add_source(sh, step, &active)?;
            build(sh, step, &active, target, directory)
        })
    })?;
    Ok(directory.join("rustc"))
}

fn add_source(sh: &Shell, step: &Step, active: &Active) -> Result<()> {
    let lock = active.library().join("Cargo.lock");
    if !lock.is_file() {
        run(step, cmd!(sh, "rustup component add rust-src"))
            .context("downloading the source of Rust's standard library failed")?;
    }
    ensure!(
        lock.is_file(),
        "no source of Rust's standard library: {} does not exist: run rustup component add rust-src",
        lock.display()
    );
    Ok(())
}

fn build(sh: &Shell, step: &Step, active: &Active, target: &Target, directory: &Path) -> Result<()> {
    let workspace = directory.join("build");
    directory::write(&workspace.join("Cargo.toml"), MANIFEST)?;
    directory::write(&workspace.join("src/lib.rs"), "#![no_std]\n")?;
    let flags = [
        "-Cembed-bitcode=yes".to_owned(), // for link time optimization of the modules
        format!("--remap-path-prefix={}=/rustc/{}/library", active.library().display(), active.field("commit-hash")?),
        format!("--remap-path-prefix={}=cargo", cargo_home()?.display()),
    ];
    let objects = workspace.join("target");
    let (manifest, triple) = (workspace.join("Cargo.toml"), target.triple);
    let cargo = cmd!(sh, "cargo build --release -Z build-std=std,panic_abort --target {triple}")
        .args([Path::new("--manifest-path"), &manifest])
        // For -Z and the unstable features of the standard library. The modules are built without it.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", &objects)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    run(step, cargo).context("building Rust's standard library failed: check the network")?;
    collect(active, triple, &objects, directory)?;
    directory::remove(&workspace)
}

/// Fills `directory` as a sysroot: with the libraries in `objects` for `triple`, and links to the libraries of the
/// host.
fn collect(active: &Active, triple: &str, objects: &Path, directory: &Path) -> Result<()> {
    let rustlib = directory.join("lib/rustlib");
    let libraries = rustlib.join(triple).join("lib");
    fs::create_dir_all(&libraries).with_context(|| format!("creating {} failed", libraries.display()))?;
    for path in directory::entries(&objects.join(triple).join("release/deps"))? {
        let name = path.file_name().unwrap_or_default();
        if path.extension().is_some_and(|extension| extension == "rlib") {
            fs::rename(&path, libraries.join(name)).with_context(|| format!("moving {} failed", path.display()))?;
        }
    }
    let host = active.field("host")?;
    symlink(active.sysroot.join("lib/rustlib").join(host), rustlib.join(host))
        .context("linking to the libraries of the host failed")?;
    let rustc = directory.join("rustc");
    let wrapper = format!(
        "#!/bin/sh\nexec '{}' --sysroot \"$(dirname \"$0\")\" \"$@\"\n",
        active.sysroot.join("bin/rustc").display()
    );
    fs::write(&rustc, wrapper).with_context(|| format!("writing {} failed", rustc.display()))?;
    fs::set_permissions(&rustc, Permissions::from_mode(0o755))
        .with_context(|| format!("making {} executable failed", rustc.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target;

    #[test]
    fn the_key_depends_on_compiler_and_target() {
        let active = |version: &str| Active { sysroot: "/rust".into(), version: version.into() };
        let one = active("rustc 1.95.0\ncommit-hash: abc\nhost: x86_64-unknown-linux-gnu");
        assert_eq!(one.field("commit-hash").unwrap(), "abc");
        assert!(one.field("release").unwrap_err().to_string().contains("no release in the output"));
        let key = |active: &Active, name| active.key(target::find(name).unwrap());
        assert_eq!(key(&one, "armhf"), key(&one, "armhf"));
        assert_ne!(key(&one, "armhf"), key(&one, "arm64"));
        assert_ne!(key(&one, "armhf"), key(&active("rustc 1.96.0"), "armhf"));
    }

    #[test]
    fn only_libraries_are_collected() {
        let temporary = tempfile::tempdir().unwrap();
        let (objects, directory) = (temporary.path().join("objects"), temporary.path().join("sysroot"));
        for file in ["libstd-1.rlib", "libstd-1.rmeta", "std-1.d"] {
            directory::write(&objects.join("triple/release/deps").join(file), "").unwrap();
        }
        let active = Active { sysroot: "/rust".into(), version: "host: this".into() };
        collect(&active, "triple", &objects, &directory).unwrap();
        let libraries = directory::entries(&directory.join("lib/rustlib/triple/lib")).unwrap();
        assert_eq!(libraries, [directory.join("lib/rustlib/triple/lib/libstd-1.rlib")]);
        assert_eq!(fs::read_link(directory.join("lib/rustlib/this")).unwrap(), Path::new("/rust/lib/rustlib/this"));
    }
}
