//! The previous files: each has a hard link in `kept/` before its name in the destination changes.

use anyhow::{Result, bail, ensure};
use mender_update_module::durable::{Dir, Kind};
use mender_update_module::{FileName, log};

/// The largest number of files in a message.
const LISTED: usize = 10;

/// The number of names that are tried for a directory that is moved aside.
const NAMES: u32 = 1000;

/// Whether `name` is in `previous`, which is sorted.
pub fn is_in(previous: &[FileName], name: &FileName) -> bool {
    previous.binary_search(name).is_ok()
}

/// Restores the files of `previous` that have a link in `kept`. A file without one has not changed, or is restored
/// already.
///
/// # Errors
/// When a file cannot be restored, or is another one afterwards.
pub fn restore(previous: &[FileName], kept: Option<&Dir>, destination: &Dir) -> Result<()> {
    let Some(kept) = kept else { return Ok(()) };
    for name in previous {
        let inode = kept.inode_of(name)?;
        if inode.is_none() {
            continue;
        }
        if destination.kind(name)? == Some(Kind::Directory) {
            move_aside(destination, name)?;
        }
        kept.rename(name, destination, name)?;
        ensure!(
            destination.inode_of(name)? == inode,
            "{}/{name}: another program replaced it meanwhile",
            destination.path().display()
        );
    }
    Ok(())
}

/// Renames a directory that has the name of a previous file.
fn move_aside(destination: &Dir, name: &FileName) -> Result<()> {
    for number in 1..=NAMES {
        let mut aside = name.as_ref().as_os_str().to_owned();
        aside.push(format!(".aside-{number}"));
        let Ok(aside) = FileName::new(aside) else { continue };
        if destination.kind(&aside)?.is_none() && destination.rename_to_free(name, destination, &aside).is_ok() {
            log!(
                "moved aside: {}/{name}: a directory with the name of a previous file; it is {aside} now: check its content, \
                 and remove it",
                destination.path().display()
            );
            return Ok(());
        }
    }
    bail!(
        "{}/{name}: a directory with the name of a previous file, which cannot be renamed: move it away",
        destination.path().display()
    )
}

/// Checks that all of `previous` are in `destination`. If nothing was `activated`, another program removed a missing
/// file before the update changed anything.
///
/// # Errors
/// When files are missing.
pub fn require_restored(previous: &[FileName], destination: &Dir, activated: bool) -> Result<()> {
    let mut missing = Vec::new();
    for name in previous.iter().filter(|_| activated) {
        if destination.kind(name)?.is_none() {
            missing.push(name.to_string());
        }
    }
    ensure!(
        missing.is_empty(),
        "{}: {} of {} previous files are missing: {}",
        destination.path().display(),
        missing.len(),
        previous.len(),
        missing[..missing.len().min(LISTED)].join(", ")
    );
    Ok(())
}
