//! What each module is tried on.

mod container;
mod deb;
mod described;
mod directory;
mod single_file;
mod web_file;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use mock_client::{Generation, MockClient};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};

use crate::Subject;

/// The executable that is tried.
#[derive(Clone, Debug)]
pub struct Module {
    /// Its path.
    pub executable: PathBuf,
    /// Whether blanks in paths, extended attributes and fractions of seconds are spared it: a module that bears none of
    /// them at the best of times shall show what cuts do to it.
    pub spared: bool,
    /// A Debian system, for a module that is nothing without dpkg.
    pub debian: Option<PathBuf>,
    /// The directory of its payload in the conformance suite.
    pub payload: PathBuf,
}

/// The payload types that have devices of their own here.
pub const PAYLOAD_TYPES: &[&str] = &["container", "deb", "directory", "single-file", "web-file"];

/// What a module for payload type `name` is tried on. One that is not among [`PAYLOAD_TYPES`] is tried on its payload.
///
/// # Errors
/// When that payload cannot be read, or is not for a device such as the others here.
pub fn subjects(name: &str, module: &Module) -> Result<Vec<Box<dyn Subject>>> {
    Ok(match name {
        "container" => container::subjects(module),
        "deb" => deb::subjects(module),
        "directory" => directory::subjects(module),
        "single-file" => single_file::subjects(module),
        "web-file" => web_file::subjects(module),
        _ => described::subjects(name, module)?,
    })
}

impl Module {
    fn device(&self) -> Result<MockClient> {
        let client = if self.spared { MockClient::without_blanks } else { MockClient::new };
        client(self.executable.clone(), Generation::V5)
    }

    /// Gives each of `names` below `directory` the same time on every device, long ago; a symlink itself, not its target.
    fn set_times<'a>(&self, directory: &Path, names: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let then = Timespec { tv_sec: 1_234_567_890, tv_nsec: if self.spared { 0 } else { 987_654_321 } };
        let times = Timestamps { last_access: then, last_modification: then };
        for name in names {
            utimensat(CWD, directory.join(name), &times, AtFlags::SYMLINK_NOFOLLOW)
                .with_context(|| format!("setting the time of {}", directory.join(name).display()))?;
        }
        Ok(())
    }
}

/// Nothing of the update by module `name` of `destination`, a directory at the top of the device, may be left.
fn is_clean(device: &MockClient, destination: &str, name: &str) -> Result<()> {
    let staging = device.device().join(format!(".{destination}.{name}"));
    ensure!(!staging.exists(), "the staging place is left");
    is_ended(device, name)
}

/// No update by module `name` may be under way.
fn is_ended(device: &MockClient, name: &str) -> Result<()> {
    let journal = device.datastore().join("update-modules").join(name).join("journal.json");
    ensure!(!journal.exists(), "the journal is left");
    Ok(())
}
