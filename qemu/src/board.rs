//! What sets one emulated Raspberry Pi apart from another.

/// A Raspberry Pi that QEMU emulates. Plain data: the rows stand in xtask's table of targets.
#[derive(Debug, PartialEq, Eq)]
pub struct Board {
    /// QEMU's name of the machine, which is what people type.
    pub machine: &'static str,
    /// The program that emulates it.
    pub qemu: &'static str,
    /// Debian's name of the architecture.
    pub architecture: &'static str,
    /// QEMU's name of the architecture, as in `/usr/lib/binfmt.d/qemu-NAME.conf`.
    pub binfmt: &'static str,
    /// Debian's meta-package for the kernel; its dependency is the real one.
    pub kernel: &'static str,
    /// The device tree's file name in the kernel's package.
    pub device_tree: &'static str,
    /// What the Mender client calls the device.
    pub device_type: &'static str,
    /// The kernel's name of the serial line that carries the console.
    pub console: &'static str,
    /// Which of QEMU's `-serial` options that line is, counted from 0.
    pub serial: usize,
    /// Debian packages that this board's image has beside those of every image.
    pub packages: &'static [&'static str],
    /// Drivers that it loads beside those of every image.
    pub drivers: &'static [&'static str],
}
