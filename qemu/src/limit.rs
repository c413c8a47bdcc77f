//! Time limits. Every wait has a limit with a name, and the error shows the name.
//!
//! A limit ends a wait that would never end; it does not measure. So it is many times what an idle host takes: beside
//! other programs on a busy host, emulated machines ran up to six times slower.
//!
//! So the sum of some waits can be hours. A [`with_deadline`] around them ends all of them together.

use std::cell::Cell;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

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

    /// Starts a wait that ends after this limit, or at the deadline of this thread if that is earlier.
    pub(crate) fn start(self) -> Wait {
        let end = Instant::now() + self.duration();
        match DEADLINE.get() {
            Some(deadline) if deadline.end < end => deadline,
            _ => Wait { limit: self, end, is_deadline: false },
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "limit {} ({} s)", self.name, self.seconds)
    }
}

thread_local! {
    /// The deadline of the waits of this thread. Every wait runs in the thread of its caller.
    static DEADLINE: Cell<Option<Wait>> = const { Cell::new(None) };
}

/// Calls `work`. When `limit` is over, every wait in it fails, also one that has just started. The error names `limit`.
///
/// The deadline is for waits in this thread.
pub fn with_deadline<T>(limit: Limit, work: impl FnOnce() -> T) -> T {
    /// Restores the deadline of the caller, also if `work` panics.
    struct Restored(Option<Wait>);
    impl Drop for Restored {
        fn drop(&mut self) {
            DEADLINE.set(self.0);
        }
    }
    let deadline = Wait { is_deadline: true, ..limit.start() };
    let _restored = Restored(DEADLINE.replace(Some(deadline)));
    work()
}

/// A wait that has started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    limit: Limit,
    end: Instant,
    is_deadline: bool,
}

impl Wait {
    /// The time that is left, or `None` when the wait is over.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// Fails if no time is left.
    pub(crate) fn check(&self) -> Result<()> {
        if self.left().is_none() {
            bail!("{self} expired");
        }
        Ok(())
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_deadline {
            let Limit { name, seconds } = self.limit;
            return write!(f, "deadline {name} ({seconds} s for all steps together)");
        }
        self.limit.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Limit = Limit::new("SHORT", 0);
    const LONG: Limit = Limit::new("LONG", 3600);

    fn expired(limit: Limit) -> Option<String> {
        limit.start().check().err().map(|error| error.to_string())
    }

    #[test]
    fn a_wait_after_the_deadline_fails_and_names_the_deadline() {
        let deadline = "deadline SHORT (0 s for all steps together) expired";
        assert_eq!(with_deadline(SHORT, || expired(LONG)).as_deref(), Some(deadline));
        assert_eq!(expired(LONG), None, "after the work there is no deadline");
    }

    #[test]
    fn a_wait_before_the_deadline_ends_at_its_own_limit() {
        assert_eq!(with_deadline(LONG, || expired(SHORT)).as_deref(), Some("limit SHORT (0 s) expired"));
        assert!(with_deadline(LONG, || LONG.start().left()).is_some());
    }

    #[test]
    fn a_deadline_within_another_does_not_extend_it() {
        let (within, after) = with_deadline(SHORT, || (with_deadline(LONG, || expired(LONG)), expired(LONG)));
        assert!(within.is_some_and(|error| error.contains("deadline SHORT")));
        assert!(after.is_some_and(|error| error.contains("deadline SHORT")));
    }
}
