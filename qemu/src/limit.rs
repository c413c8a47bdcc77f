//! Time limits. Every wait has a limit with a name, and the error shows the name.

use std::fmt;
use std::time::Duration;

/// A named time limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    name: &'static str,
    seconds: u64,
}

/// From power-on to the guest's report that it is ready: measured 15 s (`raspi3b`) and 37 s (`raspi2b`) with QEMU 7.2
/// on an idle host. QEMU 10 and busy hosts take several times as long.
pub const BOOT: Limit = Limit::new("BOOT", 300);
/// From that report to an ssh connection: measured 0.6 s.
pub const CONNECT: Limit = Limit::new("CONNECT", 60);
/// From `systemctl poweroff` to the kernel's last line.
pub const POWER_OFF: Limit = Limit::new("POWER_OFF", 120);
/// Until a machine reboots by itself, with what it does before: an update of packages.
pub const REBOOT: Limit = Limit::new("REBOOT", 900);
/// The limit for a copy of an empty file; see [`copy`].
const COPY_SECONDS: u64 = 60;
/// The lower bound for the rate of a copy, in bytes per second: a quarter of the measured rate.
const COPY_RATE: u64 = 50_000;

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
