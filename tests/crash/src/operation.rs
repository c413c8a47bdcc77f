//! What system calls did to a directory: the tracer writes it down, the replay of lost writes reads it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::image::{Image, Inode, Time};

/// A traced program: the directory as it was when it started, and every call that was to change it.
pub struct Recording {
    /// The directory before the first call.
    pub before: Image,
    /// The calls, in order; call number N is the N-th of them, from 1.
    pub calls: Vec<Call>,
}

/// One call that changes the directory, or orders when a change gets to the medium.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    /// For the report: the call and the files that it is about.
    pub shown: String,
    /// Whether it succeeded.
    pub done: bool,
    /// When it ended: the modification time that a kernel gives.
    pub time: Time,
    /// What it did; `None` where that was nothing, as for opening a file with `O_CREAT` that is there.
    pub operation: Option<Operation>,
}

/// The effect of a call, by inode number: names may change under it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Operation {
    /// A new inode, `at` a name.
    Make {
        /// Its number.
        inode: u64,
        /// What it is, still empty.
        made: Inode,
        /// Its first name.
        at: NameChange,
    },
    /// Names changed, all at once: link, unlink, rename, exchange.
    Names(Vec<NameChange>),
    /// The file was cut or extended with zeros to `length`.
    Resize {
        /// The file.
        inode: u64,
        /// In bytes.
        length: u64,
    },
    /// `data` was written.
    Write {
        /// The file.
        inode: u64,
        /// Where.
        offset: u64,
        /// What.
        data: Vec<u8>,
    },
    /// New permissions.
    Mode {
        /// The file or directory.
        inode: u64,
        /// All of `st_mode`.
        mode: u32,
    },
    /// A new owner and group, and the mode that the kernel left.
    Owner {
        /// The file or directory.
        inode: u64,
        /// User and group.
        owner: (u32, u32),
        /// All of `st_mode`: a change of owner takes set-user-id away.
        mode: u32,
    },
    /// A new modification time.
    Modified {
        /// The file or directory.
        inode: u64,
        /// The time.
        modified: Time,
    },
    /// An extended attribute set, or removed.
    Attribute {
        /// The file or directory.
        inode: u64,
        /// The attribute's name.
        name: String,
        /// `None`: removed.
        value: Option<Vec<u8>>,
        /// All of `st_mode`, where it came with the attribute: an access control list sets it, too.
        mode: Option<u32>,
    },
    /// What was done to this inode before is durable: of a directory, its names.
    Sync {
        /// The file or directory.
        inode: u64,
    },
    /// Everything done before is durable.
    SyncAll,
}

/// One name in a directory, before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameChange {
    /// The directory's inode.
    pub directory: u64,
    /// The name.
    pub name: String,
    /// The inode that had the name.
    pub from: Option<u64>,
    /// The inode that has it now.
    pub to: Option<u64>,
}

impl Recording {
    /// Reads what the tracer wrote to `log`: a line with the directory, and one for each call.
    ///
    /// # Errors
    /// When the log is missing or not whole.
    pub fn read(log: &Path) -> Result<Self> {
        let text = fs::read_to_string(log)
            .with_context(|| format!("reading the tracer's log {}: did it start?", log.display()))?;
        let mut lines = text.lines();
        let before = lines.next().context("the tracer's log is empty")?;
        Ok(Self {
            before: serde_json::from_str(before).context("reading the directory in the tracer's log")?,
            calls: lines
                .map(|line| serde_json::from_str(line).with_context(|| format!("reading the call {line}")))
                .collect::<Result<_>>()?,
        })
    }
}
