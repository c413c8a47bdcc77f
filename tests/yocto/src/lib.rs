//! Tests of the Yocto layer, in three levels:
//!
//! 1. BitBake's engine alone parses the recipes. This level runs on every host.
//! 2. BitBake with OE-Core parses and checks the layer. It needs a checkout of OE-Core.
//! 3. BitBake builds packages and root file systems. Debian's tools replace the native ones that OE-Core would download
//!    and build.
//!
//! The network is needed only for crates and Python packages, from the registries of the host's settings.

mod artifacts;
mod bitbake;
mod build;
mod checks;
mod client;
mod downloads;
mod everywhere;
mod lists;
mod release;
mod rootfs;

use std::path::{Path, PathBuf};

use anyhow::Result;

pub use bitbake::HOST_PACKAGES;
pub use build::{BUILDS, Build, Built};
pub use everywhere::EVERYWHERE_PACKAGES;
pub use release::{Release, compatible, meta_mender, releases};

/// The layer, and the inputs of its tests.
pub struct Layer {
    /// Its directory.
    pub directory: PathBuf,
    /// The directory of these tests, with the layers that replace others.
    pub tests: PathBuf,
    /// The directory of all files that the tests write.
    pub scratch: PathBuf,
    /// The names of the modules that have recipes.
    pub modules: Vec<String>,
    /// The sources and packages that its recipes would download, made by `cargo xtask dist`.
    pub released: Vec<PathBuf>,
    /// The directory with the compiler and cargo.
    pub toolchain: PathBuf,
    /// A DL_DIR of BitBake with the source of the Mender client, if the user has one.
    pub downloads: Option<PathBuf>,
    /// The executable opkg, if the user has one.
    pub opkg: Option<PathBuf>,
}

impl Layer {
    /// Runs level 1 and returns a summary.
    pub fn everywhere(&self, sh: &xshell::Shell) -> Result<String> {
        everywhere::run(sh, self)
    }

    /// Runs level 2 with one release and returns a summary.
    pub fn checked(&self, sh: &xshell::Shell, release: &Release) -> Result<String> {
        checks::run(sh, self, release)
    }

    /// The reason why no root file system can be made with the client of `meta_mender`, or `None`.
    pub fn client_obstacle(&self, sh: &xshell::Shell, meta_mender: &Path) -> Result<Option<String>> {
        client::obstacle(sh, self, meta_mender)
    }

    /// Runs the part of level 3 that makes root file systems with the client of `meta_mender` and the project's
    /// packages. Returns a summary.
    pub fn assembled(&self, sh: &xshell::Shell, release: &Release, meta_mender: &Path) -> Result<String> {
        rootfs::run(sh, self, release, meta_mender)
    }

    /// Runs the part of level 3 that builds packages, for one machine. Returns those of the project's modules.
    pub fn built(
        &self,
        sh: &xshell::Shell,
        release: &Release,
        build: &Build,
        meta_mender: Option<&Path>,
    ) -> Result<Vec<Built>> {
        build::run(sh, self, release, build, meta_mender)
    }
}
