//! The system calls that read files, directories and their attributes.

#![expect(non_upper_case_globals, reason = "the names of libc: SYS_open and so on")]

use std::path::Path;

use anyhow::Result;
use nix::libc;

use super::call::Action;
use super::place::Target;
use super::tracee::Tracee;

/// The calls that [`reading`] knows. `fstat` is missing: the kernel has the attributes of an open file in memory.
pub const CALLS: &[i64] = {
    use libc::*;
    &[
        SYS_open,
        SYS_openat,
        SYS_openat2,
        SYS_read,
        SYS_readv,
        SYS_pread64,
        SYS_preadv,
        SYS_getdents64,
        SYS_stat,
        SYS_lstat,
        SYS_newfstatat,
        SYS_statx,
        SYS_access,
        SYS_faccessat,
        SYS_faccessat2,
        SYS_readlink,
        SYS_readlinkat,
        SYS_getxattr,
        SYS_lgetxattr,
        SYS_fgetxattr,
        SYS_listxattr,
        SYS_llistxattr,
        SYS_flistxattr,
    ]
};

/// What call `number` with `arguments` reads below `directory`; `None` if it reads nothing there, or what does not
/// exist.
pub fn reading(tracee: Tracee, number: i64, arguments: [u64; 6], directory: &Path) -> Result<Option<Action>> {
    use libc::*;
    let fd = |index: usize| arguments[index] as i32;
    let is_set = |index: usize, flag: i32| fd(index) & flag != 0;
    let at = |directory: i32, path: usize, follow: bool| -> Result<Option<Target>> {
        if arguments[path] == 0 {
            return Ok(None); // std asks in this way whether the kernel has statx(2)
        }
        let path = tracee.text(arguments[path])?;
        Ok(Target::find(tracee, directory, path.as_ref(), follow))
    };
    let open = |directory: i32, path: usize, flags: i32| {
        if flags & (O_CREAT | O_TRUNC) == 0 { at(directory, path, flags & O_NOFOLLOW == 0) } else { Ok(None) }
    };
    let target = match number {
        SYS_open => open(AT_FDCWD, 0, fd(1))?,
        SYS_openat => open(fd(0), 1, fd(2))?,
        SYS_openat2 => open(fd(0), 1, tracee.number(arguments[2])? as i32)?,
        SYS_read | SYS_readv | SYS_pread64 | SYS_preadv | SYS_getdents64 | SYS_fgetxattr | SYS_flistxattr => {
            Target::open(tracee, fd(0))
        }
        SYS_stat | SYS_access | SYS_getxattr | SYS_listxattr => at(AT_FDCWD, 0, true)?,
        SYS_lstat | SYS_readlink | SYS_lgetxattr | SYS_llistxattr => at(AT_FDCWD, 0, false)?,
        SYS_newfstatat if is_set(3, AT_EMPTY_PATH) => None,
        SYS_statx if is_set(2, AT_EMPTY_PATH) => None,
        SYS_newfstatat => at(fd(0), 1, !is_set(3, AT_SYMLINK_NOFOLLOW))?,
        SYS_statx => at(fd(0), 1, !is_set(2, AT_SYMLINK_NOFOLLOW))?,
        SYS_faccessat => at(fd(0), 1, true)?,
        SYS_faccessat2 => at(fd(0), 1, !is_set(3, AT_SYMLINK_NOFOLLOW))?,
        SYS_readlinkat => at(fd(0), 1, false)?,
        _ => None,
    };
    Ok(target.filter(|target| target.is_within(directory)).map(Action::Read))
}
