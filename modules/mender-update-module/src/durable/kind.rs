//! Types of directory entries.

/// The type of a directory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symlink, device, FIFO or socket.
    Other,
}

/// A FIFO or device file to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// A FIFO.
    Fifo,
    /// A character device.
    Character {
        /// The major number.
        major: u32,
        /// The minor number.
        minor: u32,
    },
    /// A block device.
    Block {
        /// The major number.
        major: u32,
        /// The minor number.
        minor: u32,
    },
}
