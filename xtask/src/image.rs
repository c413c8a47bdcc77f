//! `cargo xtask image`: builds the images of the emulated Raspberry Pis that are not in the cache.

use anyhow::Result;
use clap::Args;
use qemu::Board;
use xshell::Shell;

use crate::needs::Needs;
use crate::target;

/// Builds the images of the emulated Raspberry Pis
///
/// Takes 5 to 20 minutes for both on 2 cores. Images in the cache are not built again. Needs root.
#[derive(Args)]
pub struct Image {
    /// QEMU's name of a machine, raspi3b or raspi2b; may be repeated [default: all]
    #[arg(long, value_name = "MACHINE", value_parser = target::board)]
    machine: Vec<&'static Board>,
}

impl Image {
    /// Builds missing images and prints the directory of each image.
    pub fn run(self, sh: &Shell) -> Result<()> {
        let wanted = |row: &&'static Board| self.machine.is_empty() || self.machine.contains(row);
        let boards: Vec<_> = target::boards().filter(wanted).collect();
        Needs::machines(&boards)?.provide(sh)?;
        for image in qemu::Image::ensure_all(sh, &boards)? {
            println!("{}  {}", image.board().machine, image.directory().display());
        }
        Ok(())
    }
}
