//! What fault injection says of Linux, tried with the kernel of this machine.

use std::fs::File;

use mender_update_module_test::debian::own_mounts;
use mender_update_module_test::failing_storage::FailingStorage;
use mender_update_module_test::privileged::or_skipped;
use rustix::io::Errno;

/// The tracer lets a sync of the whole file system fail after that of a file; `deb` relies on it.
#[test]
fn a_write_that_was_lost_is_reported_once_to_each_sync_of_the_whole_file_system() {
    let mounted = tempfile::tempdir().unwrap();
    let Some(storage) = or_skipped(own_mounts()).and_then(|()| FailingStorage::mount(mounted.path())) else { return };
    let directory = || File::open(mounted.path()).unwrap();
    let before = directory();
    storage.lose_a_write().unwrap();
    let synced =
        |directory: &File| rustix::fs::syncfs(directory).map_err(|error| [Errno::NOSPC, Errno::IO].contains(&error));
    let after = directory();
    assert_eq!(synced(&after), Err(true), "opened later, and the error was not reported yet");
    assert_eq!(synced(&directory()), Ok(()), "opened when the error was reported");
    assert_eq!(synced(&before), Err(true), "opened before the write");
    assert_eq!(synced(&before), Ok(()));
}
