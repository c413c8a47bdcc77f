//! Images of Raspberry Pis, made once from Debian's packages and kept in the user's cache.

mod build;
mod recipe;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use host::cache;
use host::pool::side_by_side;
use xshell::Shell;

use crate::board::Board;

/// What a machine starts from. Nothing in it is ever written to: machines run on overlays.
pub struct Image {
    directory: PathBuf,
    board: &'static Board,
}

impl Image {
    /// The image of `board`, made where the cache has none for today's recipe: about 3 minutes on 2 cores.
    ///
    /// Installs [`crate::PACKAGES`] where they are missing.
    ///
    /// # Errors
    /// When host packages are missing and may not be installed, the mirror does not answer, or the disk is
    /// full. What an interrupted attempt leaves is removed by the next one.
    pub fn ensure(sh: &Shell, board: &'static Board) -> Result<Self> {
        host::packages::ensure(sh, crate::PACKAGES)?;
        let directory =
            cache::entry("image", &recipe::key(board), |directory| build::image(sh, board, directory))
                .with_context(|| format!("making the image for {}", board.machine))?;
        Ok(Self { directory, board })
    }

    /// Whether the cache has the image of `board`: making one takes root.
    ///
    /// # Errors
    /// When there is no place for a cache.
    pub fn is_made(board: &Board) -> Result<bool> {
        cache::has("image", &recipe::key(board))
    }

    /// The images of `boards`. Those that are missing are made side by side: what takes the time in each is dpkg, on one core.
    ///
    /// # Errors
    /// As [`ensure`](Self::ensure), for one of them.
    pub fn ensure_all(sh: &Shell, boards: &[&'static Board]) -> Result<Vec<Self>> {
        // Before there are two that could want to: only one apt at a time may install.
        host::packages::ensure(sh, crate::PACKAGES)?;
        let here = sh.current_dir();
        let made = side_by_side(boards.len(), boards, |board| {
            let sh = Shell::new().context("finding the working directory")?;
            sh.change_dir(&here);
            Self::ensure(&sh, board)
        });
        made.into_iter().collect()
    }

    /// The board it is for.
    pub fn board(&self) -> &'static Board {
        self.board
    }

    /// The directory in the cache that holds all of it.
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

    /// The private key that opens root's account in every machine of this image.
    pub(crate) fn ssh_key(&self) -> PathBuf {
        self.directory.join(build::SSH_KEY)
    }
}
