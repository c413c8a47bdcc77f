//! The file systems that an update or its rollback writes to.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Result;
use mender_update_module::durable::Dir;
use mender_update_module::log;

/// Directories on the file systems that every update writes to.
const ALWAYS: [&str; 5] = ["/", "/usr", "/etc", "/var", "/var/lib/dpkg"];

/// Directories on file systems that maintainer scripts write to, usually kernels and what boots them.
const OFTEN: [&str; 3] = ["/boot", "/boot/firmware", "/boot/efi"];

/// The file systems, opened before something is written to them.
///
/// The kernel reports a failed write to one sync of each file descriptor that was open then (`syncfs(2)`, since Linux
/// 5.8). So a write that was lost is noticed here, even where dpkg has failed at it, was started again, and has
/// succeeded.
pub struct FileSystems {
    /// Those with files of the update.
    needed: Vec<Dir>,
    /// Others that scripts may write to.
    others: Vec<Dir>,
}

impl FileSystems {
    /// The file systems with `paths`, which may not exist yet, and those that every update writes to.
    ///
    /// # Errors
    /// When a directory that every device has cannot be opened.
    pub fn open<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Result<Self> {
        let (mut known, mut needed, mut others) = (BTreeSet::new(), Vec::new(), Vec::new());
        let mut is_new = |directory: &Path| device(directory).is_none_or(|device| known.insert(device));
        let of_paths: BTreeSet<_> = paths.into_iter().filter_map(existing_directory).collect();
        for directory in ALWAYS.map(Path::new).into_iter().chain(of_paths) {
            if is_new(directory) {
                needed.push(Dir::open(directory)?);
            }
        }
        for directory in OFTEN.map(Path::new).into_iter().filter(|directory| directory.is_dir()) {
            match is_new(directory).then(|| Dir::open(directory)).transpose() {
                Ok(directory) => others.extend(directory),
                Err(error) => log!("writes below {} will not be synced: {error:#}", directory.display()),
            }
        }
        Ok(Self { needed, others })
    }

    /// Logs writes of other programs that were lost before, so that [`sync`](Self::sync) does not report them.
    pub fn log_earlier_errors(&self) {
        for directory in self.needed.iter().chain(&self.others) {
            if let Err(error) = directory.sync_filesystem() {
                log!("before this update, a write was lost: {error:#}");
            }
        }
    }

    /// Makes all that was written durable. dpkg syncs its own files, maintainer scripts do not.
    ///
    /// # Errors
    /// When the storage of a file system with files of the update fails, or has lost a write that no sync has reported
    /// yet. That of another one is only logged: it is no reason to undo the update.
    pub fn sync(&self) -> Result<()> {
        for directory in &self.others {
            if let Err(error) = directory.sync_filesystem() {
                log!("what maintainer scripts wrote may be lost: {error:#}");
            }
        }
        self.needed.iter().try_for_each(Dir::sync_filesystem)
    }
}

/// The directory that `path` is in, or the closest one above it that exists.
fn existing_directory(path: &Path) -> Option<&Path> {
    path.ancestors().skip(1).find(|directory| directory.is_dir())
}

fn device(directory: &Path) -> Option<u64> {
    directory.metadata().ok().map(|found| found.dev())
}

#[cfg(test)]
mod tests {
    use mender_update_module_test::failing_storage::FailingStorage;

    use super::*;

    #[test]
    fn the_file_systems_of_paths_are_opened_once_each() {
        let number = |paths: &[&str]| FileSystems::open(paths.iter().copied().map(Path::new)).unwrap().needed.len();
        let always = number(&[]);
        assert_eq!(number(&["/usr/bin/sh", "/etc/no/such/directory/file", "/"]), always);
        // /proc is never on the file system of a directory that is always synced.
        assert_eq!(number(&["/proc/self/no/such", "/proc/version"]), always + 1);
    }

    #[test]
    fn a_lost_write_is_an_error_once_and_one_of_scripts_is_logged() {
        let directory = tempfile::tempdir().unwrap();
        let mounted = directory.path().join("mounted");
        std::fs::create_dir(&mounted).unwrap();
        let Some(storage) = FailingStorage::mount(&mounted) else { return };
        let open = || vec![Dir::open(&mounted).unwrap()];
        // Each descriptor reports the loss once.
        let systems = [(); 2].map(|()| FileSystems { needed: open(), others: Vec::new() });
        let of_scripts = FileSystems { needed: Vec::new(), others: open() };
        systems[0].sync().unwrap();
        storage.lose_a_write().and_then(|()| storage.repair()).unwrap();
        systems[0].log_earlier_errors();
        systems[0].sync().unwrap();
        of_scripts.sync().unwrap();
        assert!(systems[1].sync().is_err());
    }
}
