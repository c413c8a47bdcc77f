//! The new files: written to the staging directory once, synced, and read back.

use std::fs::File;
use std::hash::Hasher;
use std::io::{self, Read, Write};

use anyhow::{Context, Result, ensure};
use mender_update_module::durable::{Dir, Kind, Writeback};
use mender_update_module::{FileName, Payload, log};
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

/// The space that an update leaves free on the destination's file system, in bytes.
pub const RESERVE: u64 = 4 << 20;

/// The size of the copy buffer, in bytes: the memory for a payload of any size.
const BUFFER: usize = 128 << 10;

/// A file in the staging directory. The journal has names and inodes only, to be small for many files.
#[derive(Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct Staged {
    /// The name, in the staging directory and in the destination.
    pub name: FileName,
    /// The inode number; `None` if the file system does not keep inode numbers across a boot.
    pub inode: Option<u64>,
    #[serde(skip)]
    bytes: u64,
    #[serde(skip)]
    checksum: u64,
}

/// The form in the journal. Builds before the first release had no inodes.
#[derive(Deserialize)]
struct Stored {
    name: FileName,
    #[serde(default)]
    inode: Option<u64>,
}

impl From<Stored> for Staged {
    fn from(Stored { name, inode }: Stored) -> Self {
        Self { name, inode, bytes: 0, checksum: 0 }
    }
}

/// The directory of the staged files, and the attributes that they get.
pub struct Target {
    /// The directory.
    pub new: Dir,
    /// The user ID of the owner.
    pub owner: u32,
    /// The group ID.
    pub group: u32,
    /// The permissions.
    pub mode: u32,
    /// Whether the file system keeps inode numbers across a boot.
    pub keeps_inodes: bool,
}

impl Staged {
    /// Writes `payload` to the directory of `target`, with its attributes.
    ///
    /// # Errors
    /// When the name is in the artifact twice, there is not enough space, or the file cannot be written.
    pub fn write(mut payload: Payload, target: &Target) -> Result<Self> {
        let Target { new, owner, group, mode, keeps_inodes } = target;
        let name = payload.name.clone();
        let mut content = payload.with_space_checked(new, RESERVE).with_context(|| format!("staging {name} failed"))?;
        ensure!(new.kind(&name)?.is_none(), "invalid artifact: file {name} twice: remove one");
        let mut file = new.create_file(&name)?;
        let mut early = WrittenEarly { file: &mut file, bytes: 0, writeback: Writeback::default() };
        let (bytes, checksum) = copy(&mut content, &mut early).with_context(|| {
            format!("writing {name} to {} failed (if the file system is full, free some space)", new.path().display())
        })?;
        new.set_owner_and_mode(&name, &file, *owner, *group, *mode)?;
        let inode = if *keeps_inodes { new.inode_of(&name)? } else { None };
        Ok(Self { name, inode, bytes, checksum })
    }

    /// Reads the file back from storage, and compares.
    fn verify(&self, new: &Dir) -> Result<()> {
        let mut file = new.open_from_storage(&self.name)?;
        let (bytes, checksum) = copy(&mut file, &mut io::sink())
            .with_context(|| format!("reading back {} from {} failed", self.name, new.path().display()))?;
        ensure!(
            (bytes, checksum) == (self.bytes, self.checksum),
            "storage failed: {}/{}: {} bytes with checksum {:016x} written, {bytes} bytes with checksum {checksum:016x} \
             read: replace the storage",
            new.path().display(),
            self.name,
            self.bytes,
            self.checksum
        );
        Ok(())
    }

    /// Checks that the file in `new` is the one that was written.
    ///
    /// # Errors
    /// When it is missing, or another file.
    pub fn require(&self, new: &Dir) -> Result<()> {
        ensure!(
            new.kind(&self.name)? == Some(Kind::File) && self.is(new.inode_of(&self.name)?),
            "update refused: {}/{} was removed or replaced after the download: install again",
            new.path().display(),
            self.name
        );
        Ok(())
    }

    /// Whether `inode` can be the inode of this file.
    pub fn is(&self, inode: Option<u64>) -> bool {
        self.inode.is_none() || self.inode == inode
    }
}

/// Makes the files `staged` in the directory `new` durable, reads them back, and compares.
///
/// # Errors
/// When the storage fails, or returns other data than was written.
pub fn verify(staged: &[Staged], new: &Dir) -> Result<()> {
    new.sync_filesystem()?;
    staged.iter().try_for_each(|file| file.verify(new))?;
    let bytes = staged.iter().fold(0_u64, |sum, file| sum.saturating_add(file.bytes));
    log!("staged: {} files, {bytes} bytes in {}, read back and compared", staged.len(), new.path().display());
    Ok(())
}

/// A staged file that the kernel begins to write to storage while it is received.
struct WrittenEarly<'a> {
    file: &'a mut File,
    bytes: u64,
    writeback: Writeback,
}

impl Write for WrittenEarly<'_> {
    fn write(&mut self, content: &[u8]) -> io::Result<usize> {
        let written = self.file.write(content)?;
        self.bytes = self.bytes.saturating_add(written as u64);
        self.writeback.received(self.file, self.bytes);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Copies everything, and returns the number of bytes, and their checksum (XXH3, 64 bits). The client has verified the
/// SHA-256 of the payload. This checksum finds storage that returns other data than was written, and needs a twentieth
/// of the time of SHA-256 on a Cortex-A53, which has no instructions for that.
fn copy(from: &mut impl Read, to: &mut impl Write) -> Result<(u64, u64)> {
    let mut buffer = vec![0; BUFFER];
    let (mut bytes, mut hash) = (0, XxHash3_64::new());
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok((bytes, hash.finish())),
            Ok(read) => {
                to.write_all(&buffer[..read])?;
                hash.write(&buffer[..read]);
                bytes += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use mender_update_module_test::failing_storage::FailingStorage;

    use super::*;

    #[test]
    fn a_file_that_differs_in_the_storage_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let Some(storage) = FailingStorage::mount(directory.path()) else { return };
        let new = Dir::open(directory.path()).unwrap();
        let name = FileName::new("index.html").unwrap();
        let content = "the whole content ".repeat(500);
        let (bytes, checksum) = copy(&mut content.as_bytes(), &mut new.create_file(&name).unwrap()).unwrap();
        let staged = [Staged { name, inode: None, bytes, checksum }];
        verify(&staged, &new).unwrap();
        storage.damage(b"the whole", b"the wrong").unwrap();
        let error = format!("{:#}", verify(&staged, &new).unwrap_err());
        assert!(error.contains("storage failed") && error.contains("replace the storage"), "{error}");
    }

    #[test]
    fn a_file_that_reads_back_differently_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let new = Dir::open(directory.path()).unwrap();
        let name = FileName::new("index.html").unwrap();
        let mut file = new.create_file(&name).unwrap();
        let (bytes, checksum) = copy(&mut &b"content"[..], &mut file).unwrap();
        let staged = |bytes, checksum| [Staged { name: name.clone(), inode: None, bytes, checksum }];
        verify(&staged(bytes, checksum), &new).unwrap();
        for (bytes, checksum) in [(bytes, checksum + 1), (bytes + 1, checksum)] {
            let error = format!("{:#}", verify(&staged(bytes, checksum), &new).unwrap_err());
            assert!(error.contains("storage failed"), "{error}");
        }
    }

    /// Fails once with an error of this kind, before its content.
    struct Failing(Option<io::ErrorKind>, &'static [u8]);

    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.take().map_or_else(|| self.1.read(buffer), |kind| Err(kind.into()))
        }
    }

    #[test]
    fn an_interrupted_read_is_repeated_and_another_error_is_one() {
        let copied = |kind| {
            let mut to = Vec::new();
            copy(&mut Failing(kind, b"content"), &mut to).map(|result| (result, to))
        };
        let whole = copied(None).unwrap();
        assert_eq!((whole.0.0, &whole.1[..]), (7, &b"content"[..]));
        assert_eq!(copied(Some(io::ErrorKind::Interrupted)).unwrap(), whole);
        assert!(copied(Some(io::ErrorKind::UnexpectedEof)).is_err());
    }

    #[test]
    fn a_file_has_its_inode_if_that_is_known() {
        let staged = |inode| Staged { name: FileName::new("x").unwrap(), inode, bytes: 0, checksum: 0 };
        assert!(staged(None).is(None) && staged(None).is(Some(1)) && staged(Some(1)).is(Some(1)));
        assert!(!staged(Some(1)).is(Some(2)) && !staged(Some(1)).is(None));
    }
}
