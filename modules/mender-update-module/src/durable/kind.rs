//! What a name in a directory may stand for.

/// What a name in a directory stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symlink, device, FIFO or socket.
    Other,
}

/// What has a name in a directory and is neither file, directory nor symlink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// A named pipe.
    Fifo,
    /// A character device with its numbers.
    Character {
        /// The driver.
        major: u32,
        /// The device.
        minor: u32,
    },
    /// A block device with its numbers.
    Block {
        /// The driver.
        major: u32,
        /// The device.
        minor: u32,
    },
}
