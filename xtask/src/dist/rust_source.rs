//! Rust's standard library, built from its source by the active compiler: for musl, and for a target for which rustup
//! does not have it.
//!
//! It is built for size, and without the code that shows the functions of a backtrace: executables without symbols
//! have none. This saves about 300 KB in each executable. The messages of panics remain.
//!
//! Only the standard library is built with cargo's unstable `-Z build-std`. The result is stored in the cache. The
//! modules are built with it as with any other standard library.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use host::cargo::cargo;
use host::command::run;
use host::script::{self, quoted};
use host::status::{Step, step};
use host::{cache, directory};
use xshell::{Shell, cmd};

use super::cargo_home::cargo_home;

/// The manifest of an empty crate, with which cargo builds the standard library, with the profile of the modules.
const MANIFEST: &str = "[package]\nname = \"empty\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
                        [workspace]\n\n[profile.release]\ncodegen-units = 1\nopt-level = \"z\"\npanic = \"abort\"\n";

/// The kind of entry in the cache.
pub const KIND: &str = "rust-std";

/// The source of the standard library in a sysroot.
const LIBRARY: &str = "lib/rustlib/src/rust/library";

/// The directory in that of a target with musl and the files that start an executable.
const SELF_CONTAINED: &str = "self-contained";

/// The active compiler.
pub struct Active {
    /// The directory with its `bin` and `lib`.
    sysroot: PathBuf,
    /// The output of `rustc --version --verbose`.
    pub version: String,
}

impl Active {
    /// Asks the active compiler.
    pub fn find(sh: &Shell) -> Result<Self> {
        let sysroot =
            cmd!(sh, "rustc --print sysroot").quiet().read().context("starting rustc failed: install Rust")?;
        let version = cmd!(sh, "rustc --version --verbose").quiet().read()?;
        Ok(Self { sysroot: sysroot.into(), version })
    }

    /// The directory of its standard library for `triple`.
    pub fn libraries(&self, triple: &str) -> PathBuf {
        self.sysroot.join("lib/rustlib").join(triple).join("lib")
    }

    /// Whether it has everything that building with musl for `triple` needs.
    pub fn has_musl(&self, triple: &str) -> bool {
        self.has_libraries(triple) && self.has_source()
    }

    /// Whether it has musl for `triple`.
    pub fn has_libraries(&self, triple: &str) -> bool {
        self.libraries(triple).join(SELF_CONTAINED).join("libc.a").is_file()
    }

    /// Whether it has the source of its standard library.
    pub fn has_source(&self) -> bool {
        self.library().join("Cargo.lock").is_file()
    }

    /// The static library of musl for `triple`.
    pub fn musl(&self, triple: &str) -> Result<Vec<u8>> {
        let path = self.libraries(triple).join(SELF_CONTAINED).join("libc.a");
        fs::read(&path).with_context(|| format!("reading {} failed: run rustup target add {triple}", path.display()))
    }

    /// The value of `field` in the version.
    fn field(&self, field: &str) -> Result<&str> {
        let value = self.version.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(": "));
        value.with_context(|| format!("no {field} in the output of rustc --version --verbose: {}", self.version))
    }

    fn library(&self) -> PathBuf {
        self.sysroot.join(LIBRARY)
    }

    /// The key of the cache entry. It depends on the compiler, the target, and the code that makes the library.
    fn key(&self, triple: &str) -> String {
        cache::key([self.version.as_str(), triple, MANIFEST, include_str!("rust_source.rs")].map(str::as_bytes))
    }
}

/// The directory of the standard library for `triple`, if the cache has it.
pub fn present(active: &Active, triple: &str) -> Result<Option<PathBuf>> {
    let directory = cache::directory()?.join(KIND).join(active.key(triple));
    Ok(directory.is_dir().then_some(directory))
}

/// Builds the standard library for `triple` if the cache does not have it.
pub fn provide(sh: &Shell, active: &Active, triple: &str) -> Result<()> {
    cache::entry(KIND, &active.key(triple), |directory| {
        step(format!("building Rust's standard library for {triple}, once"), |step| {
            add_source(sh, step, active)?;
            build(sh, step, active, triple, directory)
        })
    })?;
    Ok(())
}

fn add_source(sh: &Shell, step: &Step, active: &Active) -> Result<()> {
    if !active.has_source() {
        run(step, cmd!(sh, "rustup component add rust-src"))
            .context("downloading the source of Rust's standard library failed")?;
    }
    ensure!(
        active.has_source(),
        "no source of Rust's standard library in {}: run rustup component add rust-src",
        active.library().display()
    );
    Ok(())
}

fn build(sh: &Shell, step: &Step, active: &Active, triple: &str, directory: &Path) -> Result<()> {
    let workspace = directory.join("build");
    directory::write(&workspace.join("Cargo.toml"), MANIFEST)?;
    directory::write(&workspace.join("src/lib.rs"), "#![no_std]\n")?;
    // Symbols contain a hash of the path of a crate relative to the workspace, and the path of the active compiler
    // depends on the user's home directory.
    let copy = workspace.join("sysroot");
    let own = active.sysroot.join("lib/rustlib").join(triple).is_dir().then_some((triple, None));
    let rustc = sysroot(active, &copy, own.as_slice())?;
    link(&active.sysroot.join("lib/rustlib/src"), &copy.join("lib/rustlib/src"))?;
    let library = |prefix: &Path| {
        anyhow::Ok(format!("--remap-path-prefix={}=/rustc/{}/library", prefix.display(), active.field("commit-hash")?))
    };
    let flags = [
        "-Cembed-bitcode=yes".to_owned(), // for link time optimization of the modules
        "-Cforce-unwind-tables=no".to_owned(),
        // The directory in which cargo starts the compiler is in the hash of each crate. The last match counts.
        format!("--remap-path-prefix={}=build", workspace.display()),
        library(&active.library())?,
        library(&copy.join(LIBRARY))?,
        library(&Path::new("sysroot").join(LIBRARY))?,
        format!("--remap-path-prefix={}=cargo", cargo_home()?.display()),
    ];
    let objects = workspace.join("target");
    let manifest = workspace.join("Cargo.toml");
    let command = cmd!(sh, "cargo build --release -Z build-std=std,panic_abort -Z build-std-features=")
        .args(["--target", triple])
        .args([Path::new("--manifest-path"), &manifest])
        // For -Z and the unstable features of the standard library. The modules are built without it.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", &objects)
        .env("RUSTC", rustc)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    cargo(step, command).context("building Rust's standard library failed: check the network")?;
    collect(&objects.join(triple).join("release/deps"), directory)?;
    directory::remove(&workspace)
}

/// Moves the libraries in `objects` to `directory`.
fn collect(objects: &Path, directory: &Path) -> Result<()> {
    for path in directory::entries(objects)? {
        let name = path.file_name().unwrap_or_default();
        if path.extension().is_some_and(|extension| extension == "rlib") {
            fs::rename(&path, directory.join(name)).with_context(|| format!("moving {} failed", path.display()))?;
        }
    }
    Ok(())
}

fn link(original: &Path, link: &Path) -> Result<()> {
    symlink(original, link).with_context(|| format!("linking {} failed", link.display()))
}

/// Makes a sysroot in `directory` with the libraries of the host and those of `targets`, so that one call of cargo
/// builds for all of them. A target is its triple, and the directory of its standard library; `None` for the library
/// of the active compiler. Returns the path of the compiler with this sysroot.
pub fn sysroot(active: &Active, directory: &Path, targets: &[(&str, Option<&Path>)]) -> Result<PathBuf> {
    let rustlib = directory.join("lib/rustlib");
    directory::empty(&rustlib)?;
    let host = active.field("host")?;
    link(&active.sysroot.join("lib/rustlib").join(host), &rustlib.join(host))?;
    for (triple, library) in targets.iter().filter(|(triple, _)| *triple != host) {
        let Some(library) = library else {
            link(&active.sysroot.join("lib/rustlib").join(triple), &rustlib.join(triple))?;
            continue;
        };
        let libraries = rustlib.join(triple).join("lib");
        fs::create_dir_all(&libraries).with_context(|| format!("creating {} failed", libraries.display()))?;
        let musl = active.libraries(triple).join(SELF_CONTAINED);
        for original in directory::entries(library)?.iter().chain(musl.is_dir().then_some(&musl)) {
            link(original, &libraries.join(original.file_name().unwrap_or_default()))?;
        }
    }
    let rustc = directory.join("rustc");
    let compiler = active.sysroot.join("bin/rustc");
    script::write(&rustc, &format!("exec {} --sysroot {} \"$@\"\n", quoted(&compiler), quoted(directory)))?;
    Ok(rustc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_depends_on_compiler_and_target() {
        let active = |version: &str| Active { sysroot: "/rust".into(), version: version.into() };
        let one = active("rustc 1.95.0\ncommit-hash: abc\nhost: x86_64-unknown-linux-gnu");
        assert_eq!(one.field("commit-hash").unwrap(), "abc");
        assert!(one.field("release").unwrap_err().to_string().contains("no release in the output"));
        assert_eq!(one.key("arm"), one.key("arm"));
        assert_ne!(one.key("arm"), one.key("aarch64"));
        assert_ne!(one.key("arm"), active("rustc 1.96.0").key("arm"));
    }

    #[test]
    fn only_libraries_are_collected() {
        let temporary = tempfile::tempdir().unwrap();
        let (objects, directory) = (temporary.path().join("objects"), temporary.path().join("std"));
        for file in ["libstd-1.rlib", "libstd-1.rmeta", "std-1.d"] {
            directory::write(&objects.join(file), "").unwrap();
        }
        fs::create_dir(&directory).unwrap();
        collect(&objects, &directory).unwrap();
        assert_eq!(directory::entries(&directory).unwrap(), [directory.join("libstd-1.rlib")]);
    }

    #[test]
    fn a_sysroot_has_the_libraries_of_all_targets() {
        let temporary = tempfile::tempdir().unwrap();
        let (rust, built) = (temporary.path().join("rust"), temporary.path().join("built"));
        directory::write(&built.join("libstd-1.rlib"), "built").unwrap();
        for path in ["host/lib/libstd-2.rlib", "arm/lib/libstd-3.rlib", "musl/lib/self-contained/libc.a"] {
            directory::write(&rust.join("lib/rustlib").join(path), "rust").unwrap();
        }
        let active = Active { sysroot: rust, version: "host: host".into() };
        let made = temporary.path().join("sysroot");
        let targets = [("host", None), ("arm", None), ("musl", Some(built.as_path()))];
        for _ in 0..2 {
            assert_eq!(sysroot(&active, &made, &targets).unwrap(), made.join("rustc"));
        }
        let content = |path: &str| fs::read_to_string(made.join("lib/rustlib").join(path)).unwrap();
        assert_eq!(content("host/lib/libstd-2.rlib") + &content("arm/lib/libstd-3.rlib"), "rustrust");
        assert_eq!(content("musl/lib/libstd-1.rlib") + &content("musl/lib/self-contained/libc.a"), "builtrust");
    }
}
