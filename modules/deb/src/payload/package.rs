//! The packages in the staging directory.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use mender_update_module::FileName;
use mender_update_module::durable::{self, Dir};
use rustix::fs::statvfs;

use crate::dpkg::database::Database;
use crate::dpkg::stanza::{PackageKey, Stanza};
use crate::payload::deb::{self, Control, Item};

/// The limit of the control files and lists of configuration files of all packages together, in bytes.
const TEXTS_LIMIT: usize = 4 << 20;

/// One package that the update installs.
pub struct StagedPackage {
    pub path: PathBuf,
    pub key: PackageKey,
    pub control: Stanza,
    /// Its configuration files.
    pub conffiles: Vec<PathBuf>,
    /// Whether its `preinst` calls dpkg-divert.
    pub diverts: bool,
    /// Whether apt has downloaded it: it is not in the payload.
    pub downloaded: bool,
    /// Its files and directories, once [`read_items`] has run.
    pub items: Vec<Item>,
    /// The size of its files, once [`read_items`] has run.
    pub bytes: u64,
}

/// Identifies the packages in `directory`, and gives each file the package's real name.
///
/// # Errors
/// When a package is invalid, two are the same, or their control files exceed the limit.
pub fn identify(directory: &Path, database: &Database) -> Result<Vec<StagedPackage>> {
    let dir = Dir::open(directory)?;
    let mut staged: Vec<StagedPackage> = Vec::new();
    let mut texts = 0;
    for name in dir.names()? {
        let Control { stanza: control, conffiles, diverts } = deb::control(&directory.join(&name))?;
        texts += control.0.len() + conffiles.iter().map(|path| path.as_os_str().len()).sum::<usize>();
        ensure!(
            texts <= TEXTS_LIMIT,
            "invalid artifact: the control files of its packages have more than {TEXTS_LIMIT} bytes: split \
             the artifact"
        );
        let (key, real_name) = (control.key(&database.native)?, FileName::new(control.file_name()?)?);
        ensure!(
            staged.iter().all(|other| other.key != key),
            "invalid artifact: package {key} is there twice: keep one of them"
        );
        if real_name != name {
            dir.rename_to_free(&name, &dir, &real_name)?;
        }
        staged.push(StagedPackage {
            path: directory.join(&real_name),
            key,
            control,
            conffiles,
            diverts,
            downloaded: false,
            items: Vec::new(),
            bytes: 0,
        });
    }
    dir.sync()?;
    Ok(staged)
}

/// Reads the files and directories of the packages `staged`, at most `max_files` in total.
///
/// # Errors
/// When a package is invalid, there are more, or the files are larger than the free space of every
/// file system.
pub fn read_items(staged: &mut [StagedPackage], max_files: usize) -> Result<()> {
    let mut left = max_files;
    for package in staged {
        (package.items, package.bytes) = deb::items(&package.path, left, largest_free_space()?)
            .with_context(|| format!("package {} refused", package.key))?;
        left -= package.items.len();
    }
    Ok(())
}

/// The free bytes of the file system that has most of them.
fn largest_free_space() -> Result<u64> {
    let mounts = durable::mounts_at_or_below(Path::new("/"))?;
    let free = |mount: &PathBuf| Some(statvfs(mount).ok()?).map(|it| it.f_bavail.saturating_mul(it.f_frsize));
    Ok(mounts.iter().filter_map(free).max().unwrap_or(u64::MAX))
}
