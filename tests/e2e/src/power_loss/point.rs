//! Points: the moment of a power loss, which unsynced writes it loses, and whether the recovery is interrupted too.

use std::time::Duration;

use crate::device::random;
use crate::managed::{CONTAINER, DEB, DIRECTORY, Subject, WEB_FILE};

/// The modules that lose power, and what they install.
pub const SUBJECTS: [&Subject; 4] = [&WEB_FILE, &DIRECTORY, &DEB, &CONTAINER];

/// Who runs the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The daemon, for a server.
    Managed,
    /// A user on the device.
    Standalone,
}

/// The part of an update in which the power is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Download.
    Download,
    /// ArtifactInstall.
    Install,
    /// The health check, at the end of ArtifactInstall.
    HealthCheck,
    /// The reboot that the module requests: the shutdown and the boot.
    Reboot,
    /// ArtifactCommit.
    Commit,
    /// Cleanup after ArtifactCommit.
    Cleanup,
    /// ArtifactRollback.
    Rollback,
    /// Cleanup after ArtifactRollback.
    CleanupAfterRollback,
}

/// The moments of an update in either mode. The reboot follows for a module that requests one.
const MOMENTS: [Moment; 7] = [
    Moment::Download,
    Moment::Install,
    Moment::HealthCheck,
    Moment::Commit,
    Moment::Cleanup,
    Moment::Rollback,
    Moment::CleanupAfterRollback,
];

impl Moment {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::HealthCheck => "health check",
            Self::Reboot => "reboot",
            Self::Cleanup => "Cleanup after the commit",
            Self::CleanupAfterRollback => "Cleanup after the rollback",
            Self::Download | Self::Install | Self::Commit | Self::Rollback => self.call(),
        }
    }

    /// The call of the module, or of the health check, at which the delay of the point begins.
    pub fn call(self) -> &'static str {
        match self {
            Self::Download => "Download",
            Self::Install => "ArtifactInstall",
            Self::HealthCheck => "health-check",
            Self::Reboot => "reboot",
            Self::Commit => "ArtifactCommit",
            Self::Rollback => "ArtifactRollback",
            Self::Cleanup | Self::CleanupAfterRollback => "Cleanup",
        }
    }

    /// Whether the update is rolled back.
    pub fn is_in_rollback(self) -> bool {
        matches!(self, Self::Rollback | Self::CleanupAfterRollback)
    }
}

/// What the kernel has written to the card before the power loss, of what no program has synced. The rest is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writeback {
    /// Nothing.
    Nothing,
    /// As usual: ext4's journal every 5 s, other data after 30 s.
    Usual,
    /// The journal of the root file system every second, nothing of `/data`.
    OnlyRoot,
    /// The journal of `/data` every second, nothing of the root file system.
    OnlyData,
}

const WRITEBACKS: [Writeback; 4] = [Writeback::Nothing, Writeback::Usual, Writeback::OnlyRoot, Writeback::OnlyData];

/// An interval in seconds in which ext4 does not write its journal during a point.
const NEVER: u32 = 3600;

impl Writeback {
    /// Its description in the records.
    pub fn description(self) -> &'static str {
        match self {
            Self::Nothing => "everything unsynced",
            Self::Usual => "what the kernel had not written back",
            Self::OnlyRoot => "everything unsynced in /data, and in / what ext4 had not committed for 1 s",
            Self::OnlyData => "everything unsynced in /, and in /data what ext4 had not committed for 1 s",
        }
    }

    /// The commands that configure the device.
    pub fn commands(self) -> String {
        let (root, data) = match self {
            Self::Usual => return "true".to_owned(),
            Self::Nothing => (NEVER, NEVER),
            Self::OnlyRoot => (1, NEVER),
            Self::OnlyData => (NEVER, 1),
        };
        let expire = NEVER * 100;
        format!(
            "mount -o remount,commit={root} / && mount -o remount,commit={data} /data \
             && echo {expire} >/proc/sys/vm/dirty_expire_centisecs"
        )
    }
}

/// A power loss.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Its number, from which everything else follows.
    pub number: u32,
    /// What is installed.
    pub subject: &'static Subject,
    /// Who runs the client.
    pub mode: Mode,
    /// The part of the update.
    pub moment: Moment,
    /// From the start of the moment's call to the power loss.
    pub delay: Duration,
    /// What is not lost of the unsynced writes.
    pub writeback: Writeback,
    /// From the start of the recovery at boot to a second power loss.
    pub second: Option<Duration>,
}

/// The longest delay of a second power loss. It covers the recovery and the first calls of the daemon.
const LONGEST_SECOND: Duration = Duration::from_secs(16);

impl Point {
    /// Point `number` of `subject`. The points of two rounds differ in their delays and lost writes.
    pub fn new(subject: &'static Subject, number: u32) -> Self {
        let steps = steps(subject.module);
        let (index, round) = (number as usize % steps.len(), number as usize / steps.len());
        let (mode, moment) = steps[index];
        // The first numbers of the generator depend little on its seed.
        let random = random(&format!("{}-{number}", subject.module), 64);
        let random = |index: usize| u32::from(random[63 - index]);
        let delay = usual(subject.module, moment) * random(0) / 255;
        let second = ((index + round) % 4 == 3).then(|| {
            // Half of them in the first eighth, in which the recovery of file modules is.
            let longest = if random(1) % 2 == 0 { LONGEST_SECOND / 8 } else { LONGEST_SECOND };
            longest * random(2) / 255
        });
        let writeback = WRITEBACKS[(random(3) % 4) as usize];
        Self { number, subject, mode, moment, delay, writeback, second }
    }
}

/// Every mode and moment of `module`.
pub fn steps(module: &str) -> Vec<(Mode, Moment)> {
    let has_reboot = module == DEB.module;
    let managed = MOMENTS.iter().chain(has_reboot.then_some(&Moment::Reboot));
    let managed = managed.map(|moment| (Mode::Managed, *moment));
    let standalone = MOMENTS.iter().map(|moment| (Mode::Standalone, *moment));
    // Alternating, so that a few points have both modes and different moments.
    let (managed, mut standalone): (Vec<_>, Vec<_>) = (managed.collect(), standalone.collect());
    standalone.rotate_left(MOMENTS.len() / 2);
    let mut standalone = standalone.into_iter();
    managed.into_iter().flat_map(|step| [Some(step), standalone.next()]).flatten().collect()
}

/// The usual duration of a moment: measured on raspi3b on a busy host, and estimated for deb and for the rollback. On a
/// machine with another speed the points are spread over a part of the moment, or reach into the next one: the record
/// of a point has the state in which the power was lost.
fn usual(module: &str, moment: Moment) -> Duration {
    let (download, install, rollback) = match module {
        "container" => (24_000, 15_000, 12_000),
        "deb" => (2_000, 14_000, 12_000),
        _ => (1_100, 500, 500),
    };
    Duration::from_millis(match moment {
        Moment::Download => download,
        Moment::Install => install,
        Moment::Rollback => rollback,
        Moment::HealthCheck => 3_800,
        Moment::Reboot => 30_000,
        Moment::Commit | Moment::Cleanup | Moment::CleanupAfterRollback => 500,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_has_every_moment_in_both_modes() {
        for subject in SUBJECTS {
            let steps = steps(subject.module);
            for moment in MOMENTS {
                assert!(steps.contains(&(Mode::Managed, moment)) && steps.contains(&(Mode::Standalone, moment)));
            }
            assert_eq!(steps.contains(&(Mode::Managed, Moment::Reboot)), subject.module == "deb");
            assert_eq!(steps.len(), 2 * MOMENTS.len() + usize::from(subject.module == "deb"));
        }
    }

    #[test]
    fn a_hundred_points_lose_every_kind_of_writes_in_every_moment_and_interrupt_a_quarter_of_the_recoveries() {
        for subject in SUBJECTS {
            let points: Vec<_> = (0..100).map(|number| Point::new(subject, number)).collect();
            let seconds = points.iter().filter(|point| point.second.is_some()).count();
            assert!((20..=30).contains(&seconds), "{seconds}");
            for writeback in WRITEBACKS {
                let count = points.iter().filter(|point| point.writeback == writeback).count();
                assert!((15..=35).contains(&count), "{writeback:?}: {count}");
            }
            for step in steps(subject.module) {
                let of_step = points.iter().filter(|point| (point.mode, point.moment) == step);
                assert!(of_step.filter(|point| point.second.is_some()).count() > 0, "{step:?}");
            }
        }
    }

    #[test]
    fn a_number_is_always_the_same_point() {
        let text = |number| format!("{:?}", Point::new(&WEB_FILE, number).delay);
        assert_eq!(text(7), text(7));
        assert_ne!(text(7), text(21), "another round");
    }
}
