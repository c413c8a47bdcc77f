//! Rust's standard library, built from its source by the active compiler: for a target that neither rustup's server nor Debian
//! has it for. Debian 12 has no Rust of armel that is new enough.
//!
//! Only the standard library is built with cargo's unstable `-Z build-std`. It is kept in the cache as a sysroot, so that the
//! modules are built with it as with any other.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use host::command::run;
use host::status::{Step, step};
use host::{cache, directory};
use xshell::{Shell, cmd};

use super::build::cargo_home;
use crate::target::Target;

/// An empty crate: cargo builds the standard library that it would be linked with. As the modules are, it is built to abort on
/// a panic.
const MANIFEST: &str = "[package]\nname = \"empty\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
                        [workspace]\n\n[profile.release]\ncodegen-units = 1\npanic = \"abort\"\n";

/// The kind of entry in the cache.
const KIND: &str = "rust-std";

/// The active compiler.
struct Active {
    /// The directory that has its `bin` and `lib`.
    sysroot: PathBuf,
    /// What `rustc --version --verbose` prints.
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
        value.with_context(|| format!("rustc --version --verbose prints no {field}: {}", self.version))
    }

    fn library(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib/src/rust/library")
    }

    /// Another compiler or target is another entry of the cache, and so is a sysroot that is made differently.
    fn key(&self, target: &Target) -> String {
        let sysroot = self.sysroot.to_string_lossy();
        cache::key(
            [self.version.as_str(), &sysroot, target.triple, MANIFEST, include_str!("rust_source.rs")]
                .map(str::as_bytes),
        )
    }
}

/// The compiler with the standard library for `target`, if that was built already.
pub fn present(sh: &Shell, target: &Target) -> Result<Option<PathBuf>> {
    let rustc = cache::directory()?.join(KIND).join(Active::find(sh)?.key(target)).join("rustc");
    Ok(rustc.is_file().then_some(rustc))
}

/// Builds the standard library for `target`, where the cache does not have it, and returns the compiler.
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
            .context("fetching the source of Rust's standard library")?;
    }
    ensure!(lock.is_file(), "the source of Rust's standard library is not there: {}", lock.display());
    Ok(())
}

fn build(sh: &Shell, step: &Step, active: &Active, target: &Target, directory: &Path) -> Result<()> {
    let scratch = directory.join("build");
    directory::write(&scratch.join("Cargo.toml"), MANIFEST)?;
    directory::write(&scratch.join("src/lib.rs"), "#![no_std]\n")?;
    let flags = [
        "-Cembed-bitcode=yes".to_owned(), // for link time optimization of the modules
        format!(
            "--remap-path-prefix={}=/rustc/{}/library",
            active.library().display(),
            active.field("commit-hash")?
        ),
        format!("--remap-path-prefix={}=cargo", cargo_home()?.display()),
    ];
    let objects = scratch.join("target");
    let (manifest, triple) = (scratch.join("Cargo.toml"), target.triple);
    let cargo = cmd!(sh, "cargo build --release -Z build-std=std,panic_abort --target {triple}")
        .args([Path::new("--manifest-path"), &manifest])
        .env("RUSTC_BOOTSTRAP", "1") // the standard library and -Z are unstable; the modules are built without it
        .env("CARGO_TARGET_DIR", &objects)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    run(step, cargo).context("building Rust's standard library: is the network up?")?;
    collect(active, triple, &objects, directory)?;
    directory::remove(&scratch)
}

/// Lays out `directory` as a sysroot: the libraries in `objects` for `triple`, links to the compiler's own for the host.
fn collect(active: &Active, triple: &str, objects: &Path, directory: &Path) -> Result<()> {
    let rustlib = directory.join("lib/rustlib");
    let libraries = rustlib.join(triple).join("lib");
    fs::create_dir_all(&libraries).with_context(|| format!("making {}", libraries.display()))?;
    for path in directory::entries(&objects.join(triple).join("release/deps"))? {
        let name = path.file_name().unwrap_or_default();
        if path.extension().is_some_and(|extension| extension == "rlib") {
            fs::rename(&path, libraries.join(name)).with_context(|| format!("moving {}", path.display()))?;
        }
    }
    let host = active.field("host")?;
    symlink(active.sysroot.join("lib/rustlib").join(host), rustlib.join(host))
        .context("linking to the compiler's own libraries")?;
    let rustc = directory.join("rustc");
    let wrapper = format!(
        "#!/bin/sh\nexec '{}' --sysroot \"$(dirname \"$0\")\" \"$@\"\n",
        active.sysroot.join("bin/rustc").display()
    );
    fs::write(&rustc, wrapper).with_context(|| format!("writing {}", rustc.display()))?;
    fs::set_permissions(&rustc, Permissions::from_mode(0o755))
        .with_context(|| format!("making {} executable", rustc.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target;

    #[test]
    fn a_sysroot_is_of_one_compiler_and_one_target() {
        let active = |version: &str| Active { sysroot: "/rust".into(), version: version.into() };
        let one = active("rustc 1.95.0\ncommit-hash: abc\nhost: x86_64-unknown-linux-gnu");
        assert_eq!(one.field("commit-hash").unwrap(), "abc");
        assert!(one.field("release").unwrap_err().to_string().contains("prints no release"));
        let key = |active: &Active, name| active.key(target::find(name).unwrap());
        assert_eq!(key(&one, "armhf"), key(&one, "armhf"));
        assert_ne!(key(&one, "armhf"), key(&one, "arm64"));
        assert_ne!(key(&one, "armhf"), key(&active("rustc 1.96.0"), "armhf"));
    }

    #[test]
    fn only_libraries_are_collected() {
        let scratch = tempfile::tempdir().unwrap();
        let (objects, directory) = (scratch.path().join("objects"), scratch.path().join("sysroot"));
        for file in ["libstd-1.rlib", "libstd-1.rmeta", "std-1.d"] {
            directory::write(&objects.join("triple/release/deps").join(file), "").unwrap();
        }
        let active = Active { sysroot: "/rust".into(), version: "host: this".into() };
        collect(&active, "triple", &objects, &directory).unwrap();
        let libraries = directory::entries(&directory.join("lib/rustlib/triple/lib")).unwrap();
        assert_eq!(libraries, [directory.join("lib/rustlib/triple/lib/libstd-1.rlib")]);
        assert_eq!(
            fs::read_link(directory.join("lib/rustlib/this")).unwrap(),
            Path::new("/rust/lib/rustlib/this")
        );
    }
}
