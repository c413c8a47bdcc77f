//! Emulated Raspberry Pis: images made of Debian's packages, and machines that run them in QEMU.
//!
//! - [`Board`] describes a Raspberry Pi. It is plain data.
//! - [`Image::ensure`] builds the image of a board once and keeps it in the user's cache directory.
//! - [`Overlay::create`] makes a disposable disk on top of an image.
//! - [`Machine::boot`] starts QEMU. Commands run in the machine by ssh through QEMU's user-mode network. The serial
//!   console is written to a file and searched for errors of the kernel and of systemd.
//! - [`Snapshot`] saves a booted machine, so that many scenarios start without a boot.

mod board;
mod command;
mod console;
mod cpio;
mod image;
mod limit;
mod machine;
mod overlay;
mod partition;
mod snapshot;
mod ssh;

pub use board::Board;
pub use image::Image;
pub use limit::{Limit, with_deadline};
pub use machine::Machine;
pub use overlay::Overlay;
pub use snapshot::Snapshot;
pub use ssh::{Background, Line, Output};

/// The Debian packages that the host needs to build images and to run machines.
pub const PACKAGES: &[&str] = &[
    "arch-test", // mmdebstrap runs it to see whether the host can run the board's programs
    "debian-archive-keyring",
    "e2fsprogs",
    "kmod", // depmod and modprobe, for the drivers in the initial RAM disk
    "mmdebstrap",
    "openssh-client",
    "qemu-system-arm",
    "qemu-user-static",
    "qemu-utils",
    "xz-utils",
];
