//! Tests of `deb` with the real dpkg and apt, on a Debian system of its own for each test, and with a mock
//! client.
//!
//! `cargo xtask debian` makes the system, sets `MENDER_TEST_DEBIAN` to its path, and runs the tests.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod broken;
mod conffiles;
mod configuration;
mod device;
mod encodings;
mod exact;
mod files;
mod kinds;
mod limits;
mod maintainer_scripts;
mod others;
mod raw;
mod refused;
mod relations;
mod storage;
mod system;
mod transaction;
