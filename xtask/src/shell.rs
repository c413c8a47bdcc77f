//! `cargo xtask shell`: an interactive shell in an emulated Raspberry Pi with the project's update modules.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use host::status::step;
use host::{cache, directory};
use qemu::{Board, Image, Limit, Machine, Overlay};

use crate::distribution::archive::is_update_module;
use crate::needs::Needs;
use crate::target;

/// The installation of one package: measured 30 s, because apt and dpkg read their databases from a slow card. The same
/// limit as in the end-to-end tests, for a host that is busy.
const INSTALL: Limit = Limit::new("INSTALL", 1800);

/// Boots an emulated Raspberry Pi with the update modules of dist/ and opens a shell in it
///
/// Takes about 3 minutes with an image in the cache. Needs QEMU, and root to build the image.
#[derive(Args)]
pub struct Shell {
    /// QEMU's name of the machine, raspi3b or raspi2b
    #[arg(long, value_name = "MACHINE", value_parser = target::board, default_value = "raspi3b")]
    machine: &'static Board,
}

impl Shell {
    /// Boots a machine with a new overlay. Changes in the machine are discarded at the end.
    pub fn run(self, sh: &xshell::Shell) -> Result<()> {
        let board = self.machine;
        Needs::machines(&[board])?.provide(sh)?;
        let image = Image::ensure(sh, board)?;
        let directory = sh.current_dir().join("target/shell").join(board.machine);
        fs::create_dir_all(&directory).with_context(|| format!("creating {} failed", directory.display()))?;
        let _lock = cache::lock(&directory.with_extension("lock"))?;
        let machine = step(format!("booting {}", board.machine), |step| {
            let overlay = Overlay::create(step, &image, &directory.join("card.qcow2"))?;
            Machine::boot(step, &image, &overlay, &directory)
        })?;
        let packages = packages(&sh.current_dir().join("dist"), board)?;
        for package in &packages {
            install(&machine, package)?;
        }
        if packages.is_empty() {
            println!("no package for {} in dist/: run cargo xtask dist", board.architecture);
        }
        println!(
            "\nShell on {}, device type {}. Copy an artifact to it from another terminal with\n    \
             scp -F {} FILE.mender pi:\nand install it in this shell with\n    mender install FILE.mender\n\
             Leave the shell with exit or Ctrl-D. All changes in the machine are discarded then.\n",
            board.machine,
            board.device_type,
            machine.ssh_config().display()
        );
        machine.shell()?;
        machine.power_loss()
    }
}

/// The packages of modules in `dist` for `board`. Those of programs for workstations cannot be installed on a device.
fn packages(dist: &Path, board: &Board) -> Result<Vec<PathBuf>> {
    if !dist.exists() {
        return Ok(Vec::new());
    }
    let ending = format!("_{}.deb", board.architecture);
    let is_it = |file: &PathBuf| file.to_string_lossy().ends_with(&ending) && is_update_module(file);
    Ok(directory::entries(dist)?.into_iter().filter(is_it).collect())
}

fn install(machine: &Machine, package: &Path) -> Result<()> {
    let name = package.file_name().context("package without a file name")?.to_string_lossy().into_owned();
    step(format!("installing {name}"), |_| {
        let path = format!("/tmp/{name}");
        machine.copy_in(package, &path)?;
        machine.check(
            &format!("DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends '{path}'"),
            INSTALL,
        )
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_gets_the_packages_of_modules_for_its_architecture() {
        let dist = tempfile::tempdir().unwrap();
        let expected = "mender-update-module-web-file_0.1.0_arm64.deb";
        for name in [
            expected,
            "mender-update-module-web-file_0.1.0_armhf.deb",
            "mender-artifact-gen_0.1.0_arm64.deb",
            "mender-update-modules_0.1.0_all.deb",
            "mender-update-modules-0.1.0-arm64.tar.gz",
        ] {
            fs::write(dist.path().join(name), "").unwrap();
        }
        let found = packages(dist.path(), target::board("raspi3b").unwrap()).unwrap();
        assert_eq!(found, [dist.path().join(expected)]);
        assert_eq!(packages(&dist.path().join("none"), target::board("raspi3b").unwrap()).unwrap().len(), 0);
    }
}
