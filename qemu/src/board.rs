//! The differences between the emulated Raspberry Pis.

/// A Raspberry Pi that QEMU emulates. Plain data: xtask's table of targets has the rows.
#[derive(Debug, PartialEq, Eq)]
pub struct Board {
    /// QEMU's name of the machine, which users type.
    pub machine: &'static str,
    /// The QEMU executable that emulates it.
    pub qemu: &'static str,
    /// Debian's name of the architecture.
    pub architecture: &'static str,
    /// QEMU's name of the architecture, as in `/usr/lib/binfmt.d/qemu-NAME.conf`.
    pub binfmt: &'static str,
    /// Debian's meta-package of the kernel. It depends on the package that has the kernel.
    pub kernel: &'static str,
    /// The file name of the device tree in the kernel's package.
    pub device_tree: &'static str,
    /// The device type for the Mender client.
    pub device_type: &'static str,
    /// The kernel's name of the serial line that carries the console.
    pub console: &'static str,
    /// The number of QEMU's `-serial` option for that line, counted from 0.
    pub serial: usize,
    /// Debian packages in this board's image, in addition to those of every image.
    pub packages: &'static [&'static str],
    /// Drivers that the initial RAM disk loads, in addition to those of every image.
    pub drivers: &'static [&'static str],
}
