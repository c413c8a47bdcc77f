//! The trees that are installed: any number of files with incompressible bytes. Each file begins and ends with the
//! mark of its version, by which the observer distinguishes the previous from the new version.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The size of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// The number of files.
    pub files: usize,
    /// The size of each file in bytes.
    pub bytes: usize,
}

impl Size {
    /// The size of all files together in bytes.
    pub fn total(self) -> u64 {
        self.files as u64 * self.bytes as u64
    }
}

/// The mark of the previous version.
pub const PREVIOUS: [u8; 3] = *b"pre";
/// The mark of the new version.
pub const NEW: [u8; 3] = *b"new";

/// The number of files in one directory of an archive.
const PER_DIRECTORY: usize = 100;

/// The number of bytes that are generated once and written repeatedly: more than the window of any compressing file
/// system.
const BLOCK: usize = 1 << 20;

/// The path of file `number` in a tree, which is `flat` or has directories.
pub fn path(number: usize, flat: bool) -> PathBuf {
    let name = format!("file-{number:05}");
    if flat { name.into() } else { Path::new(&format!("directory-{:03}", number / PER_DIRECTORY)).join(name) }
}

/// Writes a tree of `size` to `directory`, and marks every file with `version`.
pub fn write(directory: &Path, size: Size, flat: bool, version: [u8; 3]) -> Result<()> {
    let block = noise(version);
    for number in 0..size.files {
        let path = directory.join(path(number, flat));
        let written = fs::create_dir_all(path.parent().unwrap_or(directory))
            .and_then(|()| File::create(&path))
            .and_then(|file| write_file(file, size.bytes, number, &block, version));
        written.with_context(|| format!("writing {} failed", path.display()))?;
    }
    Ok(())
}

fn write_file(mut file: File, bytes: usize, number: usize, block: &[u8], version: [u8; 3]) -> std::io::Result<()> {
    let mut start = number * 4096 % BLOCK;
    let mut left = bytes;
    while left > 0 {
        let length = left.min(BLOCK - start);
        file.write_all(&block[start..start + length])?;
        left -= length;
        start = 0;
    }
    file.rewind()?;
    file.write_all(&version)?;
    file.seek(SeekFrom::End(-(version.len() as i64)))?;
    file.write_all(&version)
}

/// Bytes without a pattern, different for each version: Marsaglia's xorshift.
fn noise(version: [u8; 3]) -> Vec<u8> {
    let mut state = u64::from_le_bytes([version[0], version[1], version[2], 1, 2, 3, 4, 5]);
    let mut words = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..BLOCK / 8).flat_map(|_| words()).collect()
}

/// The path and position of the first mark of the first file, and of the last mark of the last file.
pub fn marks(size: Size, flat: bool) -> [(PathBuf, SeekFrom); 2] {
    let end = SeekFrom::End(-(NEW.len() as i64));
    [(path(0, flat), SeekFrom::Start(0)), (path(size.files - 1, flat), end)]
}

/// Reads the mark at `position` of `file`.
pub fn mark(mut file: File, position: SeekFrom) -> Option<[u8; 3]> {
    let mut mark = [0; 3];
    file.seek(position).ok()?;
    file.read_exact(&mut mark).ok()?;
    Some(mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_have_their_size_and_marks() {
        let directory = tempfile::tempdir().unwrap();
        let size = Size { files: 102, bytes: BLOCK / 64 + 1 };
        write(directory.path(), size, false, NEW).unwrap();
        let last = directory.path().join("directory-001/file-00101");
        assert_eq!(last.metadata().unwrap().len(), size.bytes as u64);
        for (path, position) in marks(size, false) {
            assert_eq!(mark(File::open(directory.path().join(path)).unwrap(), position), Some(NEW));
        }
        assert_ne!(noise(PREVIOUS), noise(NEW));
    }
}
