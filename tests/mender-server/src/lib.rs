//! Test code: HTTP servers of this process, which an emulated device reaches through QEMU's network. Nothing of it is
//! meant for a real fleet.
//!
//! - [`Server`] speaks Mender's device API to the client's daemon: authentication, deployments, artifacts with ranges,
//!   status, deployment log, inventory. A test adds a [`Fault`].
//! - [`Files`] serves the files below a directory, such as an APT repository.

mod deployment;
mod fault;
mod files;
mod http;
mod server;

pub use deployment::{Artifact, Deployment};
pub use fault::{Fault, Moment};
pub use files::Files;
pub use server::Server;
