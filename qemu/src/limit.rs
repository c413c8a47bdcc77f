//! Time limits. Every wait has a limit with a name, and the error shows the name.
//!
//! A limit ends a wait that would never end; it does not measure. So it is many times what an idle host takes: beside
//! other programs on a busy host, emulated machines ran up to six times slower.

use std::fmt;
use std::time::Duration;

/// A named time limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    name: &'static str,
    seconds: u64,
}

/// From power-on to the guest's report that it is ready: measured 15 s (`raspi3b`) and 37 s (`raspi2b`) with QEMU 7.2
/// on an idle host, and more than 300 s on a busy one with QEMU 10.
pub const BOOT: Limit = Limit::new("BOOT", 1200);
/// From that report to an ssh connection: measured 0.6 s.
pub const CONNECT: Limit = Limit::new("CONNECT", 300);
/// From `systemctl poweroff` to the kernel's last line.
pub const POWER_OFF: Limit = Limit::new("POWER_OFF", 600);
/// Until a machine reboots by itself, with what it does before: an update of packages.
pub const REBOOT: Limit = Limit::new("REBOOT", 1800);
/// The limit for a copy of an empty file; see [`copy`].
const COPY_SECONDS: u64 = 300;
/// The lower bound for the rate of a copy, in bytes per second: a tenth of the measured rate.
const COPY_RATE: u64 = 20_000;

/// The limit for copying `size` bytes into a machine.
pub(crate) const fn copy(size: u64) -> Limit {
    Limit::new("COPY", COPY_SECONDS + size / COPY_RATE)
}

impl Limit {
    /// A limit of `seconds`. Errors show `name`, which is the name of the constant in the caller's code.
    pub const fn new(name: &'static str, seconds: u64) -> Self {
        Self { name, seconds }
    }

    /// The limit as a duration.
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "limit {} ({} s)", self.name, self.seconds)
    }
}
