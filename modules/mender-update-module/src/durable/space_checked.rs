//! A reader that checks the space for what it reads.

use std::io::{self, Read};

use anyhow::Result;

/// Content of unknown size, which the caller writes as it reads: the space for each block is checked before the block
/// is returned.
///
/// ```
/// use std::io::Read;
///
/// use mender_update_module::durable::{Dir, SpaceChecked};
///
/// # let directory = tempfile::tempdir()?;
/// let directory = Dir::open(directory.path())?;
/// let mut content = SpaceChecked::new(&b"content"[..], |block, _total| directory.check_space(block, 1 << 62));
/// let error = content.read(&mut [0; 16]).unwrap_err();
/// assert!(error.to_string().starts_with("not enough space in "));
/// # anyhow::Ok(())
/// ```
pub struct SpaceChecked<R, C> {
    from: R,
    total: u64,
    check: C,
}

impl<R: Read, C: FnMut(u64, u64) -> Result<()>> SpaceChecked<R, C> {
    /// Reads `from`. `check` gets the size of the block in bytes, and that of all content up to its end.
    pub fn new(from: R, check: C) -> Self {
        Self { from, total: 0, check }
    }
}

impl<R: Read, C: FnMut(u64, u64) -> Result<()>> Read for SpaceChecked<R, C> {
    /// Fails with the error of the check.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        if read > 0 {
            self.total = self.total.saturating_add(read as u64);
            (self.check)(read as u64, self.total).map_err(io::Error::other)?;
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::ensure;

    use super::*;

    #[test]
    fn each_block_is_checked_and_the_end_is_not() {
        let mut checked = Vec::new();
        let mut content = SpaceChecked::new(&b"12345"[..], |block, total| {
            checked.push((block, total));
            Ok(())
        });
        for expected in [3, 2, 0] {
            assert_eq!(content.read(&mut [0; 3]).unwrap(), expected);
        }
        assert_eq!(checked, [(3, 3), (2, 5)]);
    }

    #[test]
    fn a_block_that_does_not_fit_is_an_error_with_its_cause() {
        let mut content = SpaceChecked::new(&b"12345"[..], |_, total| {
            ensure!(total <= 3, "not enough space");
            Ok(())
        });
        assert_eq!(content.read(&mut [0; 3]).unwrap(), 3);
        assert_eq!(content.read(&mut [0; 3]).unwrap_err().to_string(), "not enough space");
    }
}
