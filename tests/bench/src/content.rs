//! The trees that are installed: as many files as wanted, of bytes that nothing compresses, each with its edition at
//! both ends, for the watcher to tell the old from the new.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// How much is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// The number of files.
    pub files: usize,
    /// The bytes of each.
    pub bytes: usize,
}

impl Size {
    /// The bytes of all files.
    pub fn total(self) -> u64 {
        self.files as u64 * self.bytes as u64
    }
}

/// The mark of what an update replaces.
pub const OLD: [u8; 3] = *b"old";
/// The mark of what it installs.
pub const NEW: [u8; 3] = *b"new";

/// Files in one directory of an archive.
const PER_DIRECTORY: usize = 100;

/// Bytes made once and written again and again: more than any compressing file system looks back.
const BLOCK: usize = 1 << 20;

/// The path of file `number` in a tree that is `flat` or has directories.
pub fn path(number: usize, flat: bool) -> PathBuf {
    let name = format!("file-{number:05}");
    if flat { name.into() } else { Path::new(&format!("directory-{:03}", number / PER_DIRECTORY)).join(name) }
}

/// Writes a tree of `size` to `directory`, every file marked with `edition`.
pub fn write(directory: &Path, size: Size, flat: bool, edition: [u8; 3]) -> Result<()> {
    let block = noise(edition);
    for number in 0..size.files {
        let path = directory.join(path(number, flat));
        let written = fs::create_dir_all(path.parent().unwrap_or(directory))
            .and_then(|()| File::create(&path))
            .and_then(|file| write_file(file, size.bytes, number, &block, edition));
        written.with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn write_file(
    mut file: File,
    bytes: usize,
    number: usize,
    block: &[u8],
    edition: [u8; 3],
) -> std::io::Result<()> {
    let mut start = number * 4096 % BLOCK;
    let mut left = bytes;
    while left > 0 {
        let length = left.min(BLOCK - start);
        file.write_all(&block[start..start + length])?;
        left -= length;
        start = 0;
    }
    file.rewind()?;
    file.write_all(&edition)?;
    file.seek(SeekFrom::End(-(edition.len() as i64)))?;
    file.write_all(&edition)
}

/// Bytes without a pattern, others for each edition: Marsaglia's xorshift.
fn noise(edition: [u8; 3]) -> Vec<u8> {
    let mut state = u64::from_le_bytes([edition[0], edition[1], edition[2], 1, 2, 3, 4, 5]);
    let mut words = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..BLOCK / 8).flat_map(|_| words()).collect()
}

/// The first mark of the first file and the last mark of the last one.
pub fn marks(size: Size, flat: bool) -> [(PathBuf, SeekFrom); 2] {
    let end = SeekFrom::End(-(NEW.len() as i64));
    [(path(0, flat), SeekFrom::Start(0)), (path(size.files - 1, flat), end)]
}

/// Reads a mark of a file.
pub fn mark(mut file: File, place: SeekFrom) -> Option<[u8; 3]> {
    let mut mark = [0; 3];
    file.seek(place).ok()?;
    file.read_exact(&mut mark).ok()?;
    Some(mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_have_their_size_and_their_marks() {
        let directory = tempfile::tempdir().unwrap();
        let size = Size { files: 102, bytes: BLOCK / 64 + 1 };
        write(directory.path(), size, false, NEW).unwrap();
        let last = directory.path().join("directory-001/file-00101");
        assert_eq!(last.metadata().unwrap().len(), size.bytes as u64);
        for (path, place) in marks(size, false) {
            assert_eq!(mark(File::open(directory.path().join(path)).unwrap(), place), Some(NEW));
        }
        assert_ne!(noise(OLD), noise(NEW));
    }
}
