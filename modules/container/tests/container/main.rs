//! Tests of `container` with mocks of the client, podman and systemd. `cargo xtask engines` and the emulated Pi run
//! it with the real ones.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod boot;
mod compose;
mod device;
mod hostile;
mod images;
mod load_directory;
mod refused;
mod storage;
mod transaction;
mod trust;
mod units;
