//! Early writing of large files to storage.

use std::fs::File;
use std::num::NonZeroU64;

use rustix::fs::{Advice, fadvise};

/// The bytes after which the kernel is asked to write. Smaller files are written by the sync alone.
const STEP: u64 = 8 << 20;

/// Lets the kernel write a file to storage while more of it is received, so that the sync at the end has less to wait
/// for. Nothing is durable before that sync.
#[derive(Default)]
pub struct Writeback {
    begun: u64,
}

impl Writeback {
    /// Tells that the first `length` bytes of `file` are in the page cache.
    pub fn received(&mut self, file: &File, length: u64) {
        let Some(step) = length.checked_sub(self.begun).filter(|step| *step >= STEP).and_then(NonZeroU64::new) else {
            return;
        };
        // For dirty pages, Linux begins to write them, and returns. Only advice: a failure costs time.
        let _ = fadvise(file, self.begun, Some(step), Advice::DontNeed);
        self.begun = length;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};

    use super::*;

    #[test]
    fn the_content_is_unchanged() {
        let mut file = tempfile::tempfile().unwrap();
        let (mut writeback, mut length) = (Writeback::default(), 0);
        for _ in 0..5 {
            file.write_all(&vec![7; 4 << 20]).unwrap();
            length += 4 << 20;
            writeback.received(&file, length);
        }
        assert_eq!((writeback.begun, file.metadata().unwrap().len()), (16 << 20, 20 << 20));
        let mut content = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut content).unwrap();
        assert!(content.iter().all(|byte| *byte == 7) && content.len() == 20 << 20);
    }
}
