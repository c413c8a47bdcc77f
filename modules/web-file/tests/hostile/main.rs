//! The executable on a device with a local attacker, full disks, and clients that are killed.
//!
//! Every test needs root, for owners, mounts and attributes. Without root, each test prints that it is skipped.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod attacks;
mod clients;
mod destinations;
mod device;
mod installed;
mod rollbacks;
mod space;
mod storage;
mod units;
