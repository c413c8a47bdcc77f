//! The module `directory` with a mock client, on real directories and archives made by tar.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod archives;
mod destinations;
mod device;
mod health;
mod hostile;
mod keep;
mod limits;
mod tarball;
mod transaction;
