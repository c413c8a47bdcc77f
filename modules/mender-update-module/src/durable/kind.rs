//! What a name in a folder may stand for.

/// What a name in a folder stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A regular file.
    File,
    /// A symlink, device, FIFO or socket.
    Other,
}

/// What has a name in a folder and is neither file, folder nor symlink.
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
