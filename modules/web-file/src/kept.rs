//! The previous files: each has a second name in `kept/` before it loses its first.

use anyhow::{Result, bail, ensure};
use mender_update_module::durable::{Dir, Kind};
use mender_update_module::{FileName, log};

/// How many files an error lists.
const LISTED: usize = 10;

/// How many names are tried for what has to make room.
const NAMES: u32 = 1000;

/// Whether `name` is among `keep`, which is sorted.
pub fn is_in(keep: &[FileName], name: &FileName) -> bool {
    keep.binary_search(name).is_ok()
}

/// Puts back what has its second name in `old`. One that has none was not touched yet, or is back already.
///
/// # Errors
/// When a file cannot be put back, or another one has its name afterwards.
pub fn put_back(keep: &[FileName], old: Option<&Dir>, destination: &Dir) -> Result<()> {
    let Some(old) = old else { return Ok(()) };
    for name in keep {
        let inode = old.inode_of(name)?;
        if inode.is_none() {
            continue;
        }
        if destination.kind(name)? == Some(Kind::Directory) {
            make_room(destination, name)?;
        }
        old.rename(name, destination, name)?;
        ensure!(
            destination.inode_of(name)? == inode,
            "rollback incomplete: {}: {name} is another file: somebody has replaced it meanwhile",
            destination.path().display()
        );
    }
    Ok(())
}

/// Gives a directory that somebody has made where a previous file belongs another name.
fn make_room(destination: &Dir, name: &FileName) -> Result<()> {
    for number in 1..=NAMES {
        let mut aside = name.as_ref().as_os_str().to_owned();
        aside.push(format!(".aside-{number}"));
        let Ok(aside) = FileName::new(aside) else { continue };
        if destination.kind(&aside)?.is_none()
            && destination.rename_to_free(name, destination, &aside).is_ok()
        {
            log!(
                "moved aside: {}: the directory {name} is in the place of a previous file, and is called {aside} now: look \
                 at what is in it, and remove it",
                destination.path().display()
            );
            return Ok(());
        }
    }
    bail!(
        "the directory {name} in {} is in the place of a previous file, and cannot be renamed: move it away",
        destination.path().display()
    )
}

/// Refuses to call a rollback complete while one of `keep` is not in `destination`. Where nothing had been `activated`, one
/// that is missing was removed by somebody else, before it got its second name.
///
/// # Errors
/// The files that are missing.
pub fn require_back(keep: &[FileName], destination: &Dir, activated: bool) -> Result<()> {
    let mut missing = Vec::new();
    for name in keep.iter().filter(|_| activated) {
        if destination.kind(name)?.is_none() {
            missing.push(name.to_string());
        }
    }
    ensure!(
        missing.is_empty(),
        "rollback incomplete: {}: {} of {} previous files are missing: {}",
        destination.path().display(),
        missing.len(),
        keep.len(),
        missing[..missing.len().min(LISTED)].join(", ")
    );
    Ok(())
}
