//! Emulated Raspberry Pis: images made from Debian's packages, and the machines that run them.
//!
//! A [`Board`] is plain data. [`Image::ensure`] makes its image once and keeps it in the user's cache.
//! [`Overlay::create`] gives a scenario a disposable disk on top of it, and [`Machine::boot`] runs it:
//! commands by ssh through QEMU's user-mode network, the serial console as a log that is watched for
//! the kernel's and systemd's cries for help. What many scenarios begin with is booted once: [`Saved`].

mod board;
mod command;
mod console;
mod cpio;
mod disk;
mod image;
mod limit;
mod machine;
mod monitor;
mod saved;
mod ssh;

pub use board::Board;
pub use disk::Overlay;
pub use image::Image;
pub use limit::Limit;
pub use machine::Machine;
pub use saved::Saved;
pub use ssh::{Background, Output};

/// The Debian packages that making images and running machines needs on the host.
pub const PACKAGES: &[&str] = &[
    "arch-test", // mmdebstrap asks it whether the host can run the board's programs
    "debian-archive-keyring",
    "e2fsprogs",
    "kmod", // depmod and modprobe, for the initial RAM disk's drivers
    "mmdebstrap",
    "openssh-client",
    "qemu-system-arm",
    "qemu-user-static",
    "qemu-utils",
    "xz-utils",
];
