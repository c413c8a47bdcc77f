//! Programs from crates.io that make packages and fuzz targets. Each is compiled on first use, in a pinned version, so
//! that packages change only with this work tree. As dependencies of xtask they would double the compile time before
//! the first command in a new clone.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use host::cargo::cargo;
use host::status::step;
use host::{cache, directory};
use xshell::{Shell, cmd};

/// Makes Debian packages.
const CARGO_DEB: Tool = Tool { name: "cargo-deb", version: "3.8.0", features: &["--no-default-features"] };

/// Adds the list of linked crates to executables, in the section that vulnerability scanners read.
const CARGO_AUDITABLE: Tool = Tool { name: "cargo-auditable", version: "0.7.7", features: &[] };

/// Reads that list from an executable.
const RUST_AUDIT_INFO: Tool = Tool { name: "rust-audit-info", version: "0.5.4", features: &[] };

/// Makes the executables of fuzzing.
const CARGO_FUZZ: Tool = Tool { name: "cargo-fuzz", version: "0.13.2", features: &[] };

/// Makes mutants of the code.
const CARGO_MUTANTS: Tool = Tool { name: "cargo-mutants", version: "26.0.0", features: &[] };

/// The path of cargo-deb.
pub fn cargo_deb(sh: &Shell) -> Result<PathBuf> {
    CARGO_DEB.provide(sh)
}

/// The path of cargo-auditable.
pub fn cargo_auditable(sh: &Shell) -> Result<PathBuf> {
    CARGO_AUDITABLE.provide(sh)
}

/// The path of rust-audit-info, which a check needs.
pub fn rust_audit_info(sh: &Shell) -> Result<PathBuf> {
    RUST_AUDIT_INFO.provide(sh)
}

/// The path of cargo-fuzz.
pub fn cargo_fuzz(sh: &Shell) -> Result<PathBuf> {
    CARGO_FUZZ.provide(sh)
}

/// The path of cargo-mutants.
pub fn cargo_mutants(sh: &Shell) -> Result<PathBuf> {
    CARGO_MUTANTS.provide(sh)
}

/// A program with the name of its crate.
struct Tool {
    name: &'static str,
    version: &'static str,
    features: &'static [&'static str],
}

impl Tool {
    /// The path of the program, which is compiled if the cache does not have it.
    fn provide(&self, sh: &Shell) -> Result<PathBuf> {
        let Self { name, version, features } = self;
        let root = cache::entry(name, &cache::key([version.as_bytes()]), |root| {
            step(format!("compiling {name} {version}, once"), |step| {
                let objects = root.join("build");
                // It handles a few small files: a debug build is enough.
                let install = cmd!(sh, "cargo install --locked --debug --no-track")
                    .args(*features)
                    .args(["--version", version, name])
                    .args([Path::new("--root"), root, Path::new("--target-dir"), &objects])
                    .env("CARGO_PROFILE_DEV_DEBUG", "false");
                cargo(step, install).with_context(|| {
                    format!(
                        "installing {name} from crates.io into the cache failed: check the network and the free space"
                    )
                })?;
                directory::remove(&objects)
            })
        })?;
        Ok(root.join("bin").join(name))
    }
}
