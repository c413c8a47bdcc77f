//! `cargo xtask shell`: an emulated Raspberry Pi with everything installed, and a person at its prompt.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use host::status::step;
use qemu::{Board, Image, Limit, Machine, Overlay};

use crate::needs::Needs;
use crate::target;

/// Installing one package: measured 30 s, as apt and dpkg read their databases from a slow card.
const INSTALL: Limit = Limit::new("INSTALL", 180);

/// Boots an emulated Raspberry Pi with the packages of dist/ and opens a shell in it
///
/// Takes about 3 minutes when the image is there. Needs QEMU.
#[derive(Args)]
pub struct Shell {
    /// QEMU's name of the machine, raspi3b or raspi2b
    #[arg(long, value_name = "MACHINE", value_parser = target::board, default_value = "raspi3b")]
    machine: &'static Board,
}

impl Shell {
    /// Boots a fresh overlay; what the person changes in the machine ends with it.
    pub fn run(self, sh: &xshell::Shell) -> Result<()> {
        let board = self.machine;
        Needs::machines(&[board])?.provide(sh)?;
        let image = Image::ensure(sh, board)?;
        let directory = sh.current_dir().join("target/shell").join(board.machine);
        fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
        let machine = step(format!("booting {}", board.machine), |step| {
            let overlay = Overlay::create(step, &image, &directory.join("card.qcow2"))?;
            Machine::boot(step, &image, &overlay, &directory)
        })?;
        let packages = packages(sh, board)?;
        for package in &packages {
            install(&machine, package)?;
        }
        if packages.is_empty() {
            println!("dist/ has no package for {}: cargo xtask dist makes them.", board.architecture);
        }
        println!(
            "\nThis is {}, its device type {}. From another terminal, copy an artifact in with\n    \
             scp -F {} FILE.mender pi:\nand install it here with\n    mender install FILE.mender\n\
             Leave with exit or Ctrl-D: the machine and all that was changed in it go.\n",
            board.machine,
            board.device_type,
            machine.ssh_config().display()
        );
        machine.shell()?;
        machine.power_cut()
    }
}

/// The packages in `dist/` for `board`.
fn packages(sh: &xshell::Shell, board: &Board) -> Result<Vec<PathBuf>> {
    let dist = sh.current_dir().join("dist");
    if !dist.exists() {
        return Ok(Vec::new());
    }
    let ending = format!("_{}.deb", board.architecture);
    let files = sh.read_dir(&dist)?;
    Ok(files.into_iter().filter(|file| file.to_string_lossy().ends_with(&ending)).collect())
}

fn install(machine: &Machine, package: &Path) -> Result<()> {
    let name = package.file_name().context("a package is a file")?.to_string_lossy().into_owned();
    step(format!("installing {name}"), |_| {
        let inside = format!("/tmp/{name}");
        machine.copy_in(package, &inside)?;
        machine.check(
            &format!(
                "DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends '{inside}'"
            ),
            INSTALL,
        )
    })?;
    Ok(())
}
