//! Mender Update Module `directory`: replaces a directory tree in one step.
//!
//! It accepts the payload of Mender's own module `directory`, with the files `dest_dir` and `update.tar`; and a
//! payload of one tar archive, with the destination in the artifact's meta-data.

pub mod artifact;
mod destination;
#[doc(hidden)]
pub mod fuzzing;
mod keep;
mod location;
mod settings;
mod swap;
mod tar;
mod unpack;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use mender_update_module::durable::Dir;
use mender_update_module::{InTransactions, Payload, Payloads, Transactional, WorkTree};

use settings::{MetaData, Settings};
use swap::{Options, Swap};

struct Directory;

impl Transactional for Directory {
    const NAME: &'static str = "directory";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    type Update = Swap;

    fn check_settings(&self, file: &Path) -> Result<()> {
        mender_update_module::settings::check::<Settings>(file).map(drop)
    }

    fn plan(&self, tree: &WorkTree, payloads: &mut Payloads) -> Result<Swap> {
        let settings: Settings = mender_update_module::settings::load(Self::NAME)?;
        let meta_data: MetaData = tree.meta_data()?.unwrap_or_default();
        meta_data.log_unknown_keys();
        let reserve = settings.reserve_mib.saturating_mul(1 << 20);
        let (destination, spooled) = match meta_data.dest_dir {
            Some(destination) => (destination, None),
            None => official(tree, payloads, reserve)?,
        };
        let options = Options {
            keep: [settings.keep, meta_data.keep].concat(),
            reserve,
            unknown_xattrs: settings.unknown_xattrs,
        };
        Swap::plan(&destination, tree, options, spooled)
    }

    fn stage(&self, swap: &mut Swap, payloads: &mut Payloads) -> Result<()> {
        let storage = swap.open_storage()?;
        swap.check_exchange()?;
        let mut archives = 0;
        if let Some(path) = swap.spooled() {
            let file = File::open(path).with_context(|| format!("opening {} failed", path.display()))?;
            swap.unpack(file, None).context("unpacking the archive failed")?;
            archives += 1;
        }
        for payload in payloads {
            let payload = payload?;
            archives += 1;
            let name = payload.name.clone();
            artifact::require_one(archives, &name)?;
            let size = payload.size;
            swap.unpack(payload, size).with_context(|| format!("unpacking the archive {name} failed"))?;
        }
        artifact::require_archive(archives)?;
        storage.sync_filesystem()
    }
}

/// Reads the payload up to the file `dest_dir`. Mender's artifact generator puts it first. An archive before it is
/// stored in the work tree, because the destination is not known yet, and leaves `reserve` bytes free there.
fn official(tree: &WorkTree, payloads: &mut Payloads, reserve: u64) -> Result<(PathBuf, Option<PathBuf>)> {
    let mut spooled = None;
    for payload in payloads {
        let mut payload = payload?;
        if artifact::is_destination(&payload.name, spooled.is_some())? {
            return Ok((artifact::dest_dir(&mut payload)?, spooled));
        }
        let path = tree.tmp().join("update.tar");
        spool(&mut payload, &path, reserve)
            .with_context(|| format!("storing the archive in {} failed", path.display()))?;
        spooled = Some(path);
    }
    Err(artifact::no_destination())
}

fn spool(payload: &mut Payload, path: &Path, reserve: u64) -> Result<()> {
    let mut file = File::create(path)?;
    let directory = Dir::open(path.parent().unwrap_or(path))?;
    io::copy(&mut payload.with_space_checked(&directory, reserve)?, &mut file)?;
    Ok(())
}

/// Runs the module: the `main` of its executable.
pub fn main() -> ExitCode {
    mender_update_module::run(InTransactions(Directory))
}
