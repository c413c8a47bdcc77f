//! The subjects of fault injection: for each of our modules, devices with a previous version and a payload.

mod container;
mod deb;
mod directory;
mod single_file;
mod web_file;

use std::os::unix::fs::lchown;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use mender_update_module_test::fault_injection::{Subject, described, directory_for_devices};
use mender_update_module_test::{Generation, MockClient};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

/// A module under test.
#[derive(Clone, Debug)]
pub struct Module {
    /// The path of its executable.
    pub executable: PathBuf,
    /// Whether paths contain no spaces, and files have no extended attributes and no nanoseconds in their times: for a
    /// module that cannot handle these, interruptions still say something.
    pub plain: bool,
    /// A Debian system, for a module that needs dpkg.
    pub debian: Option<PathBuf>,
    /// Its payload directory, for a module without a device of its own here.
    pub payload: PathBuf,
}

/// The payload types with devices of their own here.
pub const PAYLOAD_TYPES: &[&str] = &["container", "deb", "directory", "single-file", "web-file"];

/// The subjects of a module for the payload type `name`. One that is not in [`PAYLOAD_TYPES`] is tested with its
/// payload directory.
///
/// # Errors
/// When that payload cannot be read, or is for a Debian system.
pub fn subjects(name: &str, module: &Module) -> Result<Vec<Box<dyn Subject>>> {
    Ok(match name {
        "container" => container::subjects(module),
        "deb" => deb::subjects(module),
        "directory" => directory::subjects(module),
        "single-file" => single_file::subjects(module),
        "web-file" => web_file::subjects(module),
        _ => {
            let subjects = described(&module.executable, &module.payload)?.into_iter();
            subjects.map(|subject| subject as Box<dyn Subject>).collect()
        }
    })
}

impl Module {
    fn device(&self) -> Result<MockClient> {
        let client = if self.plain { MockClient::without_spaces_in } else { MockClient::new_in };
        client(directory_for_devices(), self.executable.clone(), Generation::V5)
    }

    /// Sets the same time, long ago, on each of `names` below `directory`; on a symlink itself, not on its target.
    fn set_times<'a>(&self, directory: &Path, names: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let then = Timespec { tv_sec: 1_234_567_890, tv_nsec: if self.plain { 0 } else { 987_654_321 } };
        let times = Timestamps { last_access: then, last_modification: then };
        for name in names {
            utimensat(CWD, directory.join(name), &times, AtFlags::SYMLINK_NOFOLLOW)
                .with_context(|| format!("setting the time of {} failed", directory.join(name).display()))?;
        }
        Ok(())
    }
}

/// A user and a group other than root's, for files of the previous version.
const PREVIOUS_OWNER: (u32, u32) = (1001, 1002);

/// Another user and group, for files of the new version.
const NEW_OWNER: (u32, u32) = (1003, 1004);

/// Whether files can be given to other users.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Gives each of `names` in `directory` itself, not the target of a symlink, to `owner`, if that is possible.
fn give<'a>(directory: &Path, names: impl IntoIterator<Item = &'a str>, owner: (u32, u32)) -> Result<()> {
    if is_root() {
        for name in names {
            let path = directory.join(name);
            lchown(&path, Some(owner.0), Some(owner.1))
                .with_context(|| format!("changing the owner of {} failed", path.display()))?;
        }
    }
    Ok(())
}

/// Checks that the update of `device` has changed the same as `make_new` does on a device with the previous version,
/// apart from times.
fn is_same_as(
    subject: &dyn Subject,
    device: &MockClient,
    make_new: impl FnOnce(&MockClient) -> Result<()>,
) -> Result<()> {
    let other = subject.device()?;
    make_new(&other).context("making the new version without the module failed")?;
    let active =
        |device: &MockClient| -> Result<_> { Ok(subject.active(device)?.below(device.device()).without_times()) };
    let (expected, found) = (active(&other)?, active(device)?);
    let different: Vec<_> = found.differences(&expected).iter().map(|path| path.display().to_string()).collect();
    ensure!(different.is_empty(), "different from what the payload describes: {}", different.join(", "));
    Ok(())
}

/// Checks that nothing of an update by the module `name` of `destination`, a directory at the top of the device, is
/// left.
fn is_clean(device: &MockClient, destination: &str, name: &str) -> Result<()> {
    let staging = device.device().join(format!(".{destination}.{name}"));
    ensure!(!staging.exists(), "the update is not ended: its staging directory is left");
    let journal = device.datastore().join("update-modules").join(name).join("journal.json");
    ensure!(!journal.exists(), "the update is not ended: its journal is left");
    Ok(())
}
