//! The new files: written to the staging directory once, synced, and read back.

use std::io::{self, Read, Write};

use anyhow::{Context, Result, ensure};
use mender_update_module::durable::{Dir, Kind};
use mender_update_module::{FileName, Payload, log};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Space that staging leaves free on the destination's file system, in bytes.
pub const RESERVE: u64 = 4 << 20;

/// Bytes copied at a time: the peak of what a payload of any size takes in memory.
const BUFFER: usize = 128 << 10;

/// A file in the staging directory. Of ten thousand, the journal needs the names and inodes only.
#[derive(Serialize, Deserialize)]
#[serde(from = "Form")]
pub struct Staged {
    /// Its name, here and in the destination.
    pub name: FileName,
    /// The number of the file that was written; `None` where the file system has others after a boot.
    pub inode: Option<u64>,
    #[serde(skip)]
    bytes: u64,
    #[serde(skip)]
    sha256: String,
}

/// A journal of version 0.1.0 had no inodes.
#[derive(Deserialize)]
struct Form {
    name: FileName,
    #[serde(default)]
    inode: Option<u64>,
}

impl From<Form> for Staged {
    fn from(Form { name, inode }: Form) -> Self {
        Self { name, inode, bytes: 0, sha256: String::new() }
    }
}

impl Staged {
    /// Writes `payload` to the directory `new`, with its owner, group and permissions.
    ///
    /// # Errors
    /// When its name comes twice, space is short, or it cannot be written.
    pub fn write(mut payload: Payload, new: &Dir, owner: u32, group: u32, mode: u32) -> Result<Self> {
        let name = payload.name.clone();
        new.check_space(payload.size.unwrap_or(0), RESERVE)
            .with_context(|| format!("the payload file {name}"))?;
        ensure!(
            new.kind(&name)?.is_none(),
            "the artifact has the file {name} twice: remove one of them from the artifact"
        );
        let mut file = new.create_file(&name)?;
        let (bytes, sha256) = copy(&mut payload, &mut file).with_context(|| {
            format!(
                "writing the payload file {name} to {} (on a full disk: free some space there and install again)",
                new.path().display()
            )
        })?;
        new.give(&name, &file, owner, group, mode)?;
        let inode = if new.keeps_inodes()? { new.inode_of(&name)? } else { None };
        Ok(Self { name, inode, bytes, sha256 })
    }

    /// Reads it back from storage, and compares.
    fn verify(&self, new: &Dir) -> Result<()> {
        let mut file = new.open_from_medium(&self.name)?;
        let (bytes, sha256) = copy(&mut file, &mut io::sink())
            .with_context(|| format!("reading back {} from {}", self.name, new.path().display()))?;
        ensure!(
            (bytes, &sha256) == (self.bytes, &self.sha256),
            "{} in {} is not what was written: {} bytes, sha256 {}, read {bytes} bytes, sha256 {sha256}: \
             the storage is failing",
            self.name,
            new.path().display(),
            self.bytes,
            self.sha256
        );
        Ok(())
    }

    /// Refuses a file in `new` that is not the one that was written.
    ///
    /// # Errors
    /// When it is missing, or another one has its name.
    pub fn require(&self, new: &Dir) -> Result<()> {
        ensure!(
            new.kind(&self.name)? == Some(Kind::File) && self.is(new.inode_of(&self.name)?),
            "{} in {} is missing or has been replaced since the download: install again",
            self.name,
            new.path().display()
        );
        Ok(())
    }

    /// Whether `inode` can be this file's.
    pub fn is(&self, inode: Option<u64>) -> bool {
        self.inode.is_none() || self.inode == inode
    }
}

/// Makes all of `staged` in the directory `new` durable, reads it back, and compares.
///
/// # Errors
/// When the storage fails or returns something else than was written.
pub fn verify(staged: &[Staged], new: &Dir) -> Result<()> {
    new.sync_filesystem()?;
    staged.iter().try_for_each(|file| file.verify(new))?;
    let bytes = staged.iter().fold(0_u64, |sum, file| sum.saturating_add(file.bytes));
    log!("{} files, {bytes} bytes staged and verified in {}", staged.len(), new.path().display());
    Ok(())
}

/// Copies to the end: bytes, and their sha256 in hexadecimal.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<(u64, String)> {
    let mut buffer = vec![0; BUFFER];
    let (mut bytes, mut hash) = (0, Sha256::new());
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok((bytes, format!("{:x}", hash.finalize()))),
            Ok(read) => {
                to.write_all(&buffer[..read])?;
                hash.update(&buffer[..read]);
                bytes += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
