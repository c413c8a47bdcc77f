//! The Yocto layer under test, in three levels: BitBake's engine alone, everywhere; BitBake with OE-Core, where that is at hand;
//! and there real builds, with Debian's tools in the place of the native ones that OE-Core would download and build.
//!
//! Nothing here needs a network but the crates and the Python packages, from the registries that the host is set up for.

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

/// The layer, and what it is tested with.
pub struct Layer {
    /// Its directory.
    pub directory: PathBuf,
    /// The directory of these tests, with the layers that stand in for others.
    pub tests: PathBuf,
    /// Where everything is made.
    pub scratch: PathBuf,
    /// The names of the modules that it has recipes for.
    pub modules: Vec<String>,
    /// The sources and packages that its recipes would download, as `cargo xtask dist` has made them.
    pub released: Vec<PathBuf>,
    /// The directory with the compiler and cargo.
    pub toolchain: PathBuf,
    /// A DL_DIR of BitBake's that has the source of the Mender client, where one is at hand.
    pub downloads: Option<PathBuf>,
    /// The program opkg, where it is at hand.
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
