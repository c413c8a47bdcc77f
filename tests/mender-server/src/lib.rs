//! Test code: HTTP servers of this process, which an emulated device reaches through QEMU's network. Nothing of it is
//! meant for a real fleet.
//!
//! - [`Files`] serves the files below a directory, such as an APT repository.

mod files;
pub mod http;

pub use files::Files;
