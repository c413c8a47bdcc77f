//! Images of Raspberry Pis, built once from Debian's packages and kept in the user's cache directory.

mod build;
mod recipe;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use host::cache;
use host::pool::side_by_side;
use xshell::Shell;

use crate::board::Board;

/// An image of a board. Machines run on overlays, so that the image does not change.
pub struct Image {
    directory: PathBuf,
    board: &'static Board,
}

impl Image {
    /// The image of `board`. Builds it if the cache does not have it for the current recipe, which takes 3 to 20
    /// minutes on 2 cores, and removes the remains of an interrupted build.
    ///
    /// Installs missing packages of [`crate::PACKAGES`] on the host.
    pub fn ensure(sh: &Shell, board: &'static Board) -> Result<Self> {
        host::packages::ensure(sh, crate::PACKAGES)?;
        let directory = cache::entry("image", &recipe::key(board), |directory| build::image(sh, board, directory))
            .with_context(|| format!("building the image for {}", board.machine))?;
        Ok(Self { directory, board })
    }

    /// Whether the cache has the image of `board`. Building one needs root.
    pub fn is_built(board: &Board) -> Result<bool> {
        cache::has("image", &recipe::key(board))
    }

    /// The images of `boards`. Missing ones are built in parallel, because dpkg, which takes most of the time, uses one
    /// core.
    pub fn ensure_all(sh: &Shell, boards: &[&'static Board]) -> Result<Vec<Self>> {
        // Before the builds start: two of them must not install packages at the same time.
        host::packages::ensure(sh, crate::PACKAGES)?;
        let here = sh.current_dir();
        let images = side_by_side(boards.len(), boards, |board| {
            let sh = Shell::new().context("reading the working directory failed")?;
            sh.change_dir(&here);
            Self::ensure(&sh, board)
        });
        images.into_iter().collect()
    }

    /// The board of this image.
    pub fn board(&self) -> &'static Board {
        self.board
    }

    /// The image's directory in the cache.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn card(&self) -> PathBuf {
        self.directory.join(build::CARD)
    }

    pub(crate) fn kernel(&self) -> PathBuf {
        self.directory.join(build::KERNEL)
    }

    pub(crate) fn initrd(&self) -> PathBuf {
        self.directory.join(build::INITRD)
    }

    pub(crate) fn device_tree(&self) -> PathBuf {
        self.directory.join(build::DEVICE_TREE)
    }

    /// The private key for root in every machine of this image.
    pub(crate) fn ssh_key(&self) -> PathBuf {
        self.directory.join(build::SSH_KEY)
    }
}
