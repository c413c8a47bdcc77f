//! Mender Update Module `directory`: replaces a directory tree in one step.
//!
//! It accepts the payload of Mender's own module `directory`, with the files `dest_dir` and `update.tar`; and a
//! payload of one tar archive, with the destination in the artifact's meta-data.

mod destination;
mod keep;
mod location;
mod settings;
mod swap;
mod tar;
mod unpack;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use mender_update_module::{InTransactions, Payload, Payloads, Transactional, WorkTree};

use settings::{MetaData, Settings};
use swap::{Options, Swap};

struct Directory;

/// The longest path that Linux accepts, in bytes.
const PATH_MAX: u64 = 4096;

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
        let (destination, spooled) = match meta_data.dest_dir {
            Some(destination) => (destination, None),
            None => official(tree, payloads)?,
        };
        let options = Options {
            keep: [settings.keep, meta_data.keep].concat(),
            reserve: settings.reserve_mib.saturating_mul(1 << 20),
            unknown_xattrs: settings.unknown_xattrs,
        };
        Swap::plan(&destination, tree, options, spooled)
    }

    fn stage(&self, swap: &mut Swap, payloads: &mut Payloads) -> Result<()> {
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
            ensure!(archives == 1, "invalid artifact: file {name} beside the archive: put it into the archive");
            let size = payload.size;
            swap.unpack(payload, size).with_context(|| format!("unpacking the archive {name} failed"))?;
        }
        ensure!(archives == 1, "invalid artifact: no archive: add one with the new tree");
        swap.complete()
    }
}

/// Reads the payload up to the file `dest_dir`. Mender's artifact generator puts it first. An archive before it is
/// stored in the work tree, because the destination is not known yet.
fn official(tree: &WorkTree, payloads: &mut Payloads) -> Result<(PathBuf, Option<PathBuf>)> {
    let mut spooled = None;
    for payload in payloads {
        let mut payload = payload?;
        if payload.name.as_ref() == Path::new("dest_dir") {
            return Ok((dest_dir(&mut payload)?, spooled));
        }
        ensure!(
            payload.name.as_ref() == Path::new("update.tar") && spooled.is_none(),
            "invalid artifact: file {}: use the files dest_dir and update.tar, or one archive and dest_dir in the \
             meta-data",
            payload.name
        );
        let path = tree.tmp().join("update.tar");
        spool(&mut payload, &path).with_context(|| format!("storing the archive in {} failed", path.display()))?;
        spooled = Some(path);
    }
    bail!("invalid artifact: no destination: add a file dest_dir, or dest_dir to the meta-data")
}

/// The path in the payload's file `dest_dir`, without the newline at its end.
fn dest_dir(payload: &mut Payload) -> Result<PathBuf> {
    let mut text = Vec::new();
    payload.take(PATH_MAX + 1).read_to_end(&mut text).context("reading the payload file dest_dir failed")?;
    ensure!(text.len() as u64 <= PATH_MAX, "invalid artifact: dest_dir: longer than {PATH_MAX} bytes");
    while text.last() == Some(&b'\n') {
        text.pop();
    }
    ensure!(!text.contains(&0), "invalid artifact: dest_dir: NUL byte");
    Ok(OsString::from_vec(text).into())
}

fn spool(payload: &mut Payload, path: &Path) -> io::Result<()> {
    io::copy(payload, &mut File::create(path)?).map(drop)
}

fn main() -> ExitCode {
    mender_update_module::run(InTransactions(Directory))
}
