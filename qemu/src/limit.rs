//! How long something may take. Every wait has a limit with a name, and the error shows it.

use std::fmt;
use std::time::Duration;

/// A named time limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    name: &'static str,
    seconds: u64,
}

/// From power-on to the guest's word that it is ready: measured 15 s (`raspi3b`) and 37 s (`raspi2b`) with
/// QEMU 7.2 on an idle host; QEMU 10 and busy hosts take several times as long.
pub const BOOT: Limit = Limit::new("BOOT", 300);
/// From going on with a saved machine to its word that it has its network: measured 3 to 5 s.
pub const RESUME: Limit = Limit::new("RESUME", 60);
/// For an answer of QEMU itself: measured 0.6 s to load a machine, 2.6 s to save one on a busy host.
pub(crate) const MONITOR: Limit = Limit::new("MONITOR", 120);
/// From the guest's word to an ssh connection: measured 0.6 s.
pub const CONNECT: Limit = Limit::new("CONNECT", 60);
/// From `systemctl poweroff` to the kernel's last line.
pub const POWER_OFF: Limit = Limit::new("POWER_OFF", 120);
/// Base of the limit for a file of any size; see [`copy`].
const COPY_SECONDS: u64 = 60;
/// Bytes per second that a copy must reach: half of what the slower direction was measured at.
const COPY_RATE: u64 = 50_000;

/// The limit for copying `size` bytes in or out.
pub(crate) const fn copy(size: u64) -> Limit {
    Limit::new("COPY", COPY_SECONDS + size / COPY_RATE)
}

impl Limit {
    /// `seconds` under the `name` that errors show: the constant's, in the code that calls this.
    pub const fn new(name: &'static str, seconds: u64) -> Self {
        Self { name, seconds }
    }

    /// The same as a duration.
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "limit {} ({} s)", self.name, self.seconds)
    }
}
