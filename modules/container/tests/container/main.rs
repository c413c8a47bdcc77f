//! What `container` does, with the client played and with a mock of podman and systemd: the real ones are met in
//! `cargo xtask engines` and on the emulated Pi.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]

mod device;
mod hostile;
mod images;
mod refused;
mod scratch;
mod transaction;
