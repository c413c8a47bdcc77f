//! Mender Update Module `directory`: replaces a directory tree, whole and in one step.
//!
//! It takes the payload of Mender's own module of this name, the files `dest_dir` and `update.tar`, and a form in which
//! the destination is in the artifact's meta-data and the payload is one tar archive of any name.

mod acl;
mod archive;
mod destination;
mod entry;
mod keep;
mod pax;
mod place;
mod settings;
mod sparse;
mod swap;
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

/// The longest path that Linux takes.
const PATH_MAX: u64 = 4096;

impl Transactional for Directory {
    const NAME: &'static str = "directory";

    type Update = Swap;

    fn plan(&self, tree: &WorkTree, payloads: &mut Payloads) -> Result<Swap> {
        let settings: Settings = mender_update_module::settings::load(Self::NAME)?;
        let meta_data: MetaData = tree.meta_data()?.unwrap_or_default();
        meta_data.name_unknown_keys();
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
        swap.try_out()?;
        let mut archives = 0;
        if let Some(path) = swap.spooled() {
            let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
            swap.unpack(file, None).context("in the archive")?;
            archives += 1;
        }
        for payload in payloads {
            let payload = payload?;
            archives += 1;
            let name = payload.name.clone();
            ensure!(
                archives == 1,
                "the artifact has {name} beside its archive: one archive is the whole tree"
            );
            let size = payload.size;
            swap.unpack(payload, size).with_context(|| format!("in the archive {name}"))?;
        }
        ensure!(archives == 1, "the artifact has no archive with the new tree");
        swap.complete()
    }
}

/// Reads the payload up to its file `dest_dir`. Mender's generator puts it first; an archive that comes before it has to
/// be put aside in the work tree, for nobody knows yet where to unpack it.
fn official(tree: &WorkTree, payloads: &mut Payloads) -> Result<(PathBuf, Option<PathBuf>)> {
    let mut spooled = None;
    for payload in payloads {
        let mut payload = payload?;
        if payload.name.as_ref() == Path::new("dest_dir") {
            return Ok((dest_dir(&mut payload)?, spooled));
        }
        ensure!(
            payload.name.as_ref() == Path::new("update.tar") && spooled.is_none(),
            "the artifact has a file {}: those of the form known are dest_dir and update.tar, or one archive with \
             dest_dir in the meta-data",
            payload.name
        );
        let path = tree.tmp().join("update.tar");
        spool(&mut payload, &path)
            .with_context(|| format!("putting the archive aside in {}", path.display()))?;
        spooled = Some(path);
    }
    bail!("the artifact names no destination: neither in a file dest_dir nor as dest_dir in its meta-data")
}

/// The path in the payload's file `dest_dir`, without the newline that shells put behind it.
fn dest_dir(payload: &mut Payload) -> Result<PathBuf> {
    let mut text = Vec::new();
    payload.take(PATH_MAX + 1).read_to_end(&mut text).context("reading the payload file dest_dir")?;
    ensure!(text.len() as u64 <= PATH_MAX, "the payload file dest_dir is longer than a path can be");
    while text.last() == Some(&b'\n') {
        text.pop();
    }
    ensure!(!text.contains(&0), "the payload file dest_dir has a NUL byte in its path");
    Ok(OsString::from_vec(text).into())
}

fn spool(payload: &mut Payload, path: &Path) -> io::Result<()> {
    io::copy(payload, &mut File::create(path)?).map(drop)
}

fn main() -> ExitCode {
    mender_update_module::run(InTransactions(Directory))
}
