//! The effects of system calls on directories: recorded by the tracer, replayed with unsynced writes lost.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::fault_injection::image::{Image, Inode, Time};

/// The record of a traced program: the directories before it, and every call that changed them.
pub struct Recording {
    /// The directories before the first call.
    pub before: Image,
    /// The calls, in order; call number N is the N-th of them, from 1.
    pub calls: Vec<Call>,
}

/// One call that changes the directory, or makes changes durable.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    /// The call and its files, for the report.
    pub shown: String,
    /// Whether the call succeeded.
    pub done: bool,
    /// Whether it is a sync that may fail; sync(2) cannot.
    pub is_sync: bool,
    /// When the call ended: the modification time that the kernel sets.
    pub time: Time,
    /// The effect; `None` if there was none, as for opening an existing file with `O_CREAT`.
    pub operation: Option<Operation>,
}

/// The effect of a call. Inodes are identified by number, because names may change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Operation {
    /// A new inode.
    Make {
        /// Its number.
        inode: u64,
        /// The inode, without content.
        made: Inode,
        /// Its first name.
        at: NameChange,
    },
    /// Names changed in one step: link, unlink, rename, exchange.
    Names(Vec<NameChange>),
    /// The file was truncated, or extended with zeros, to `length`.
    Resize {
        /// The file.
        inode: u64,
        /// In bytes.
        length: u64,
    },
    /// Data was written.
    Write {
        /// The file.
        inode: u64,
        /// In bytes from the start of the file.
        offset: u64,
        /// The data.
        data: Vec<u8>,
    },
    /// New permissions.
    Mode {
        /// The file or directory.
        inode: u64,
        /// All of `st_mode`.
        mode: u32,
    },
    /// A new owner and group, and the mode afterwards.
    Owner {
        /// The file or directory.
        inode: u64,
        /// User and group.
        owner: (u32, u32),
        /// All of `st_mode`: a change of owner clears the set-user-ID bit.
        mode: u32,
    },
    /// A new modification time.
    Modified {
        /// The file or directory.
        inode: u64,
        /// The time.
        modified: Time,
    },
    /// An extended attribute was set or removed.
    Attribute {
        /// The file or directory.
        inode: u64,
        /// The attribute's name.
        name: String,
        /// `None`: removed.
        value: Option<Vec<u8>>,
        /// All of `st_mode`, if the attribute changes it: an access control list does.
        mode: Option<u32>,
    },
    /// Earlier changes of this inode are durable; of a directory, its names.
    Sync {
        /// The file or directory.
        inode: u64,
    },
    /// All earlier changes on the file system of this inode are durable.
    SyncFileSystem {
        /// The file or directory.
        inode: u64,
    },
    /// All earlier changes are durable.
    SyncAll,
    /// A sync that failed: the changes that it had to make durable will never be, as on Linux, which takes the pages of
    /// a failed write for clean.
    FailedSync(Box<Self>),
}

/// One name in a directory, before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameChange {
    /// The directory's inode.
    pub directory: u64,
    /// The name.
    pub name: String,
    /// The inode that had the name before.
    pub from: Option<u64>,
    /// The inode that has the name afterwards.
    pub to: Option<u64>,
}

impl Recording {
    /// This recording, followed by that of a later state.
    #[must_use]
    pub fn followed_by(mut self, later: Self) -> Self {
        self.calls.extend(later.calls);
        self
    }

    /// Reads the tracer's `log`: one line with the directories, then one line for each call.
    ///
    /// # Errors
    /// When the log is missing or incomplete.
    pub fn read(log: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(log).with_context(|| format!("reading the tracer's log {} failed", log.display()))?;
        let mut lines = text.lines();
        let before = lines.next().context("the tracer's log is empty")?;
        Ok(Self {
            before: serde_json::from_str(before).context("reading the directories in the tracer's log failed")?,
            calls: lines
                .map(|line| {
                    serde_json::from_str(line)
                        .with_context(|| format!("reading a call in the tracer's log failed: {line}"))
                })
                .collect::<Result<_>>()?,
        })
    }
}
