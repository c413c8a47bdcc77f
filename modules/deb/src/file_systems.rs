//! The file systems that packages and maintainer scripts write to.

use std::path::Path;

use anyhow::Result;
use mender_update_module::durable::Dir;
use mender_update_module::log;

/// Directories on the file systems that every device has packages on.
const REQUIRED: [&str; 4] = ["/", "/usr", "/etc", "/var"];

/// Directories that may be on a file system of their own, and may be missing. `/boot/firmware` is the boot partition of
/// Debian and Ubuntu on a Raspberry Pi.
const OPTIONAL: [&str; 5] = ["/boot", "/boot/firmware", "/boot/efi", "/opt", "/srv"];

/// The file systems, opened before something is written to them.
///
/// The kernel reports a failed write to one sync of each file descriptor that was open then (`syncfs(2)`, since Linux
/// 5.8). So a write that was lost is noticed here, even where dpkg has failed at it, was started again, and has
/// succeeded.
pub struct FileSystems(Vec<Dir>);

impl FileSystems {
    /// # Errors
    /// When a directory that every device has cannot be opened.
    pub fn open() -> Result<Self> {
        let mut directories = Vec::new();
        for path in REQUIRED {
            directories.push(Dir::open(Path::new(path))?);
        }
        for path in OPTIONAL.map(Path::new).into_iter().filter(|path| path.is_dir()) {
            match Dir::open(path) {
                Ok(directory) => directories.push(directory),
                // A broken file system that no package uses is no reason to refuse an update.
                Err(error) => log!("writes below {} will not be synced: {error:#}", path.display()),
            }
        }
        Ok(Self(directories))
    }

    /// Makes all that was written durable. dpkg syncs its own files, maintainer scripts do not.
    ///
    /// # Errors
    /// When the storage fails, or has failed since the file systems were opened.
    pub fn sync(&self) -> Result<()> {
        self.0.iter().try_for_each(Dir::sync_filesystem)
    }
}
