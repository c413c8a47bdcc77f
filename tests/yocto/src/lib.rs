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
    /// Level 1. Returns what was shown.
    ///
    /// # Errors
    /// When a recipe does not parse, its source is not what it says, or a linter finds something.
    pub fn everywhere(&self, sh: &xshell::Shell) -> Result<String> {
        everywhere::run(sh, self)
    }

    /// Level 2, on one release. Returns what was shown.
    ///
    /// # Errors
    /// When the layer does not parse, lacks a recipe, or is not compatible.
    pub fn checked(&self, sh: &xshell::Shell, release: &Release) -> Result<String> {
        checks::run(sh, self, release)
    }

    /// Why no root file system of `release` can be assembled with the client of `meta_mender`, if so.
    ///
    /// # Errors
    /// When a recipe of the client cannot be read.
    pub fn client_obstacle(&self, sh: &xshell::Shell, meta_mender: &Path) -> Result<Option<String>> {
        client::obstacle(sh, self, meta_mender)
    }

    /// Level 3, root file systems with the client of `meta_mender` and our packages. Returns what was shown.
    ///
    /// # Errors
    /// When one cannot be assembled, or has other modules than it should.
    pub fn assembled(&self, sh: &xshell::Shell, release: &Release, meta_mender: &Path) -> Result<String> {
        rootfs::run(sh, self, release, meta_mender)
    }

    /// Level 3, one build. Returns the packages of our modules.
    ///
    /// # Errors
    /// When something is not built, or is not as it should be.
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
