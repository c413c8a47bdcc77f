//! `cargo xtask image`: the images of the emulated Raspberry Pis, made where the cache has none.

use anyhow::Result;
use clap::Args;
use qemu::Board;
use xshell::Shell;

use crate::needs::Needs;
use crate::target;

/// Builds the images of the emulated Raspberry Pis
///
/// Takes 12 to 20 minutes each on 2 cores, once. Needs root.
#[derive(Args)]
pub struct Image {
    /// QEMU's name of a machine, raspi3b or raspi2b; may be repeated [default: all]
    #[arg(long, value_name = "MACHINE", value_parser = target::board)]
    machine: Vec<&'static Board>,
}

impl Image {
    /// Makes what is missing and prints where each image lies.
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
