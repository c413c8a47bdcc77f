//! What `directory` does, on real directories and archives of the real tar, with the client played.

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
