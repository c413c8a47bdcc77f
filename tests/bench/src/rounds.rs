//! The rounds of a measurement. In each round all candidates run one after the other, so that a temporary load of the
//! machine affects all of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::candidate::{Candidate, Entry, Method, NewVersion};
use crate::content::{Size, mark};
use crate::observer::{Observed, observe};
use crate::storage::Storage;

/// The payloads, the number of rounds, and the storage.
pub struct Plan {
    /// The large payload.
    pub large: Size,
    /// A smaller payload of the same shape. What does not depend on the size takes the same time for both.
    pub small: Size,
    /// The number of rounds, of which the median is reported.
    pub rounds: usize,
    /// A directory on the storage that is measured.
    pub directory: PathBuf,
}

/// The results for one payload.
pub struct Comparison {
    /// What was measured.
    pub plan: Plan,
    /// The name and figures of each candidate, the lower bound last.
    pub rows: Vec<(String, Figures)>,
}

/// The figures of one candidate: medians of times, the minimum of written bytes, the sum of all observations. The lower
/// bound has `written` and `total` only.
#[derive(Debug, Default)]
pub struct Figures {
    /// The bytes written to the storage in a whole update; `None` if the storage has no counters.
    pub written: Option<u64>,
    /// The time of Download, ArtifactInstall, ArtifactCommit and Cleanup, each with a sync.
    pub total: Duration,
    /// The time of Download, with a sync.
    pub download: Duration,
    /// The time of ArtifactInstall for the large and the small payload.
    pub install: Option<[Duration; 2]>,
    /// The time of ArtifactRollback for the large and the small payload.
    pub rollback: Option<[Duration; 2]>,
    /// The observation of the destination during one ArtifactInstall and one ArtifactRollback.
    pub observed: Option<Observed>,
    /// The peak memory of the largest process, in KiB.
    pub memory: Option<u64>,
    /// The size of the executable in bytes.
    pub executable: Option<u64>,
}

/// The samples of one candidate, one for each round.
#[derive(Default)]
struct Samples {
    written: Vec<Option<u64>>,
    total: Vec<Duration>,
    download: Vec<Duration>,
    install: [Vec<Duration>; 2],
    rollback: [Vec<Duration>; 2],
}

/// Measures `candidates`, which all accept the same kind of payload, and reports each step to `progress`.
pub fn compare(plan: Plan, candidates: &[Candidate], progress: impl Fn(String)) -> Result<Comparison> {
    let directory = &plan.directory;
    fs::create_dir_all(directory).with_context(|| format!("creating {} failed", directory.display()))?;
    let storage = Storage::of(directory)?;
    progress("creating the payloads".into());
    let archive = candidates.first().context("no candidates to measure")?.method.is_archive();
    let versions =
        [NewVersion::create(directory, plan.large, archive)?, NewVersion::create(directory, plan.small, archive)?];
    let entries = |new| candidates.iter().map(|one| Entry::new(directory, one, new)).collect::<Result<Vec<_>>>();
    let [large, small] = [entries(&versions[0])?, entries(&versions[1])?];
    let mut figures: Vec<_> = candidates.iter().map(|_| Figures::default()).collect();
    let mut samples: Vec<_> = candidates.iter().map(|_| Samples::default()).collect();
    for (entry, figures) in large.into_iter().zip(&mut figures) {
        progress(format!("observing {}", entry.candidate.title));
        observed(entry, &storage, figures)?;
    }
    let large = entries(&versions[0])?;
    for round in 1..=plan.rounds {
        for ((large, small), samples) in large.iter().zip(&small).zip(&mut samples) {
            progress(format!("round {round} of {}: {}", plan.rounds, large.candidate.title));
            if large.candidate.method.module().is_none() {
                written_once(large, &storage, samples)?;
                continue;
            }
            for (number, entry) in [large, small].into_iter().enumerate() {
                rolled_back(entry, &storage, samples, number)?;
            }
            committed(large, &storage, samples)?;
        }
    }
    drop((large, small));
    for version in &versions {
        fs::remove_dir_all(&version.tree).with_context(|| format!("removing {} failed", version.tree.display()))?;
    }
    let rows = candidates.iter().zip(figures).zip(samples);
    let rows = rows.map(|((one, figures), samples)| (one.title.clone(), samples.summarize(figures)));
    Ok(Comparison { rows: rows.collect(), plan })
}

/// Measures time and written bytes of an update that is committed.
fn committed(entry: &Entry, storage: &Storage, samples: &mut Samples) -> Result<()> {
    storage.sync()?;
    let (before, begun) = (storage.written(), Instant::now());
    entry.call("Download")?;
    storage.sync()?;
    samples.download.push(begun.elapsed());
    let install = Instant::now();
    entry.call("ArtifactInstall")?;
    samples.install[0].push(install.elapsed());
    storage.sync()?;
    for state in ["ArtifactCommit", "Cleanup"] {
        entry.call(state)?;
        storage.sync()?;
    }
    entry.device.delete_tree()?;
    storage.sync()?;
    samples.total.push(begun.elapsed());
    samples.written.push(difference(before, storage.written()));
    Ok(())
}

/// Measures an update that is rolled back, with the large payload (0) or the small one (1).
fn rolled_back(entry: &Entry, storage: &Storage, samples: &mut Samples, number: usize) -> Result<()> {
    entry.call("Download")?;
    for (state, times) in
        [("ArtifactInstall", &mut samples.install[number]), ("ArtifactRollback", &mut samples.rollback[number])]
    {
        storage.sync()?;
        let begun = Instant::now();
        entry.call(state)?;
        times.push(begun.elapsed());
    }
    entry.call("ArtifactFailure")?;
    entry.call("Cleanup")?;
    entry.device.delete_tree()
}

/// Measures a program without a module: writes the payload once, and syncs. Then a candidate that reads back does so.
fn written_once(entry: &Entry, storage: &Storage, samples: &mut Samples) -> Result<()> {
    storage.sync()?;
    let (before, begun) = (storage.written(), Instant::now());
    entry.write_once()?;
    storage.sync()?;
    if entry.candidate.method == Method::CopyAndReadBack {
        entry.read_back()?;
    }
    samples.total.push(begun.elapsed());
    samples.written.push(difference(before, storage.written()));
    entry.remove_destination()
}

/// Observes the destination during an update that is rolled back, and measures the memory with GNU time. Both would
/// distort the times, so this update is apart from the rounds.
fn observed(mut entry: Entry, storage: &Storage, figures: &mut Figures) -> Result<()> {
    let Some(module) = entry.candidate.method.module() else { return Ok(()) };
    let size =
        fs::metadata(module).with_context(|| format!("reading the metadata of {} failed", module.display()))?.len();
    figures.executable = Some(size);
    let log = entry.device.settings().join("memory");
    let log_text = log.to_string_lossy().into_owned();
    // GNU time is a small parent process: the memory of a child before it executes the module counts too.
    entry.device.wrap(["/usr/bin/time", "--format=%M", "--append", "--output", &log_text]);
    entry.call("Download")?;
    storage.sync()?;
    let (destination, marks) = (entry.destination(), entry.marks());
    let active = || {
        let [(path, position), _] = &marks;
        fs::File::open(destination.join(path)).ok().and_then(|file| mark(file, *position))
    };
    let previous = active();
    let (installed, first) = observe(&destination, &marks, || entry.call("ArtifactInstall"));
    installed?;
    let title = &entry.candidate.title;
    ensure!(active() != previous, "{title}: ArtifactInstall did not install the new version");
    let (rolled_back, second) = observe(&destination, &marks, || entry.call("ArtifactRollback"));
    rolled_back?;
    ensure!(active() == previous, "{title}: ArtifactRollback did not restore the previous version");
    for state in ["ArtifactFailure", "Cleanup"] {
        entry.call(state)?;
    }
    figures.observed = Some(Observed { broken: first.broken + second.broken, polls: first.polls + second.polls });
    figures.memory = Some(highest(&log)?);
    Ok(())
}

/// The highest number in `log`, which has one number on each line.
fn highest(log: &Path) -> Result<u64> {
    let text = fs::read_to_string(log).context("reading the output of GNU time failed")?;
    text.lines().filter_map(|line| line.parse().ok()).max().context("the output of GNU time has no number")
}

fn difference(before: Option<u64>, after: Option<u64>) -> Option<u64> {
    after?.checked_sub(before?)
}

impl Samples {
    fn summarize(self, figures: Figures) -> Figures {
        let both = |[large, small]: [Vec<Duration>; 2]| Some([median(large)?, median(small)?]);
        Figures {
            // Other programs that write to the storage meanwhile can only increase it.
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
    fn the_median_is_the_middle_value() {
        assert_eq!(median(vec![3, 1, 2]), Some(2));
        assert_eq!(median(vec![2, 1]), Some(1));
        assert_eq!(median::<u32>(vec![]), None);
    }
}
