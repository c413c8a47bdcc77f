//! The rounds: everybody in turn, so that what disturbs the machine for a while disturbs all alike.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::content::{Size, mark};
use crate::contestant::{Contestant, Entry, New};
use crate::medium::Medium;
use crate::watch::{Seen, while_watched};

/// What is measured, and how often.
pub struct Plan {
    /// The payload.
    pub large: Size,
    /// A smaller one, of the same shape: what does not depend on size takes as long for it.
    pub small: Size,
    /// How often, for the median.
    pub rounds: usize,
    /// Where: a directory on the storage that is measured.
    pub directory: PathBuf,
}

/// What came of one payload.
pub struct Comparison {
    /// What was installed.
    pub plan: Plan,
    /// What came of each contestant, the floor last.
    pub rows: Vec<(String, Figures)>,
}

/// What came of one contestant: medians of times, the least that was written, the sum of what was seen. Of the floor,
/// only the first two.
#[derive(Debug, Default)]
pub struct Figures {
    /// Bytes written to the medium in a whole update; none where nobody counts them.
    pub written: Option<u64>,
    /// Download, ArtifactInstall, ArtifactCommit and Cleanup, each synced.
    pub total: Duration,
    /// The downloads alone.
    pub download: Duration,
    /// ArtifactInstall of the large and of the small payload.
    pub install: Option<[Duration; 2]>,
    /// ArtifactRollback of both.
    pub rollback: Option<[Duration; 2]>,
    /// The destination during one ArtifactInstall and one ArtifactRollback.
    pub seen: Option<Seen>,
    /// The most memory that one process had, in KiB.
    pub memory: Option<u64>,
    /// The size of the executable in bytes.
    pub executable: Option<u64>,
}

/// One measurement of each kind.
#[derive(Default)]
struct Samples {
    written: Vec<Option<u64>>,
    total: Vec<Duration>,
    download: Vec<Duration>,
    install: [Vec<Duration>; 2],
    rollback: [Vec<Duration>; 2],
}

/// Measures `contestants`, who all take the same kind of payload, and tells `progress` what is going on.
///
/// # Errors
/// When a contestant fails, or something cannot be measured.
pub fn compare(plan: Plan, contestants: &[Contestant], progress: impl Fn(String)) -> Result<Comparison> {
    let directory = &plan.directory;
    fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    let medium = Medium::of(directory)?;
    progress("making the payloads".into());
    let archive = contestants.first().context("nobody is measured")?.means.is_archive();
    let news = [New::make(directory, plan.large, archive)?, New::make(directory, plan.small, archive)?];
    let enter =
        |new| contestants.iter().map(|one| Entry::new(directory, one, new)).collect::<Result<Vec<_>>>();
    let [large, small] = [enter(&news[0])?, enter(&news[1])?];
    let mut figures: Vec<_> = contestants.iter().map(|_| Figures::default()).collect();
    let mut samples: Vec<_> = contestants.iter().map(|_| Samples::default()).collect();
    for (entry, figures) in large.into_iter().zip(&mut figures) {
        progress(format!("watching {}", entry.contestant.title));
        watched(entry, &medium, figures)?;
    }
    let large = enter(&news[0])?;
    for round in 1..=plan.rounds {
        for ((large, small), samples) in large.iter().zip(&small).zip(&mut samples) {
            progress(format!("round {round} of {}: {}", plan.rounds, large.contestant.title));
            if large.contestant.means.module().is_none() {
                floor(large, &medium, samples)?;
                continue;
            }
            for (number, entry) in [large, small].into_iter().enumerate() {
                taken_back(entry, &medium, samples, number)?;
            }
            update(large, &medium, samples)?;
        }
    }
    drop((large, small));
    for new in &news {
        fs::remove_dir_all(&new.tree).with_context(|| format!("removing {}", new.tree.display()))?;
    }
    let rows = contestants.iter().zip(figures).zip(samples);
    let rows = rows.map(|((one, figures), samples)| (one.title.clone(), samples.summed_up(figures)));
    Ok(Comparison { rows: rows.collect(), plan })
}

/// An update that is committed: its time, and what it has written.
fn update(entry: &Entry, medium: &Medium, samples: &mut Samples) -> Result<()> {
    medium.sync()?;
    let (before, begun) = (medium.written(), Instant::now());
    entry.call("Download")?;
    medium.sync()?;
    samples.download.push(begun.elapsed());
    let install = Instant::now();
    entry.call("ArtifactInstall")?;
    samples.install[0].push(install.elapsed());
    medium.sync()?;
    for state in ["ArtifactCommit", "Cleanup"] {
        entry.call(state)?;
        medium.sync()?;
    }
    entry.device.delete_tree()?;
    medium.sync()?;
    samples.total.push(begun.elapsed());
    samples.written.push(difference(before, medium.written()));
    Ok(())
}

/// An update that is rolled back, of the large payload (0) or the small one (1).
fn taken_back(entry: &Entry, medium: &Medium, samples: &mut Samples, number: usize) -> Result<()> {
    entry.call("Download")?;
    for (state, times) in [
        ("ArtifactInstall", &mut samples.install[number]),
        ("ArtifactRollback", &mut samples.rollback[number]),
    ] {
        medium.sync()?;
        let begun = Instant::now();
        entry.call(state)?;
        times.push(begun.elapsed());
    }
    entry.call("ArtifactFailure")?;
    entry.call("Cleanup")?;
    entry.device.delete_tree()
}

/// The floor: the payload is written once, and synced.
fn floor(entry: &Entry, medium: &Medium, samples: &mut Samples) -> Result<()> {
    medium.sync()?;
    let (before, begun) = (medium.written(), Instant::now());
    entry.write_once()?;
    medium.sync()?;
    samples.total.push(begun.elapsed());
    samples.written.push(difference(before, medium.written()));
    entry.remove_destination()
}

/// An update that is rolled back, watched by a reader, each call in GNU time: neither is wanted where time is taken.
fn watched(mut entry: Entry, medium: &Medium, figures: &mut Figures) -> Result<()> {
    let Some(module) = entry.contestant.means.module() else { return Ok(()) };
    let size = fs::metadata(module).with_context(|| format!("looking at {}", module.display()))?.len();
    figures.executable = Some(size);
    let log = entry.device.settings().join("memory");
    let log_text = log.to_string_lossy().into_owned();
    // A small parent: what a child had before it became the module counts, too.
    entry.device.wrap(["/usr/bin/time", "--format=%M", "--append", "--output", &log_text]);
    entry.call("Download")?;
    medium.sync()?;
    let (destination, marks) = (entry.destination(), entry.marks());
    let shown = || {
        let [(path, place), _] = &marks;
        fs::File::open(destination.join(path)).ok().and_then(|file| mark(file, *place))
    };
    let old = shown();
    let (installed, first) = while_watched(&destination, &marks, || entry.call("ArtifactInstall"));
    installed?;
    ensure!(shown() != old, "{} has installed nothing", entry.contestant.title);
    let (back, second) = while_watched(&destination, &marks, || entry.call("ArtifactRollback"));
    back?;
    ensure!(shown() == old, "{} has not brought the old back", entry.contestant.title);
    for state in ["ArtifactFailure", "Cleanup"] {
        entry.call(state)?;
    }
    figures.seen = Some(Seen { broken: first.broken + second.broken, looks: first.looks + second.looks });
    figures.memory = Some(most(&log)?);
    Ok(())
}

/// The highest number in `log`, which has one on a line.
fn most(log: &Path) -> Result<u64> {
    let text = fs::read_to_string(log).context("reading what GNU time has written")?;
    text.lines().filter_map(|line| line.parse().ok()).max().context("GNU time has measured nothing")
}

fn difference(before: Option<u64>, after: Option<u64>) -> Option<u64> {
    after?.checked_sub(before?)
}

impl Samples {
    fn summed_up(self, figures: Figures) -> Figures {
        let both = |[large, small]: [Vec<Duration>; 2]| Some([median(large)?, median(small)?]);
        Figures {
            // Whoever else writes to the medium meanwhile can only add to it.
            written: self.written.into_iter().flatten().min(),
            total: median(self.total).unwrap_or_default(),
            download: median(self.download).unwrap_or_default(),
            install: both(self.install),
            rollback: both(self.rollback),
            ..figures
        }
    }
}

fn median<T: Ord + Copy>(mut values: Vec<T>) -> Option<T> {
    values.sort();
    values.get(values.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        assert_eq!(median(vec![3, 1, 2]), Some(2));
        assert_eq!(median(vec![2, 1]), Some(1));
        assert_eq!(median::<u32>(vec![]), None);
    }
}
