//! Reads tar archives as streams: ustar, GNU and pax.

mod acl;
mod archive;
mod entry;
mod pax;
mod sparse;

pub use archive::Archive;
pub use entry::{Content, Entry, Names};
pub use sparse::Part;

/// The block size of tar archives, in bytes.
const BLOCK: usize = 512;
