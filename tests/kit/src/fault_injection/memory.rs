//! The file system for the devices of fault injection.

use std::env;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{StatVfsMountFlags, XattrFlags, fsetxattr, fstatfs, fstatvfs};

/// Where Linux systems have a tmpfs.
const MEMORY: &str = "/dev/shm";

/// The file system type of a tmpfs, from linux/magic.h.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// The free bytes that are required: hundreds of devices, each of some tens of KiB, or a few Debian systems.
const SPACE: u64 = 1 << 30;

/// The directory for devices: in memory, unless TMPDIR names another one, or the memory lacks what a device needs.
///
/// Losses of power are simulated, so real syncs show nothing. They would take most of the time, above all beside other
/// programs that write, for example emulated devices.
pub fn directory_for_devices() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let memory = Path::new(MEMORY);
        if env::var_os("TMPDIR").is_none() && is_suitable(memory) { memory.to_owned() } else { env::temp_dir() }
    })
}

/// Whether `directory` is a tmpfs for devices: with space, executables, and extended attributes, which a tmpfs has
/// since Linux 6.6.
fn is_suitable(directory: &Path) -> bool {
    let Ok(file) = tempfile::tempfile_in(directory) else { return false };
    let has_space = fstatvfs(file.as_fd()).is_ok_and(|found| {
        found.f_bavail * found.f_frsize >= SPACE && !found.f_flag.contains(StatVfsMountFlags::NOEXEC)
    });
    let is_tmpfs = fstatfs(file.as_fd()).is_ok_and(|found| u64::try_from(found.f_type) == Ok(TMPFS_MAGIC));
    is_tmpfs && has_space && fsetxattr(&file, "user.test", b"", XattrFlags::CREATE).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_without_a_tmpfs_is_not_suitable() {
        assert!(!is_suitable(Path::new("/proc")));
        assert!(!is_suitable(Path::new("/no/such/directory")));
    }
}
