//! What `deb` does with the real dpkg and apt, on a Debian system of its own for each test; the client is played.
//!
//! `cargo xtask debian` makes the system, names it in `MENDER_TEST_DEBIAN`, and runs this.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod broken;
mod conffiles;
mod device;
mod exact;
mod files;
mod kinds;
mod limits;
mod raw;
mod refused;
mod relations;
mod system;
mod transaction;
