//! Which faults are injected: their kinds, and an even sample of each.

/// The faults to inject.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// Every call that changes or syncs fails with ENOSPC and with EIO, and every call that reads with EIO.
    pub failing_calls: bool,
    /// Unsynced writes are lost.
    pub lost_writes: bool,
    /// An interrupted install is followed by a second interruption: every pair of crash points.
    pub pairs: bool,
    /// The largest number of crash points, of failing calls, of losses of unsynced writes and of pairs in a sequence,
    /// evenly spread.
    pub sample: usize,
    /// Shifts the sample, so that different runs inject other faults.
    pub offset: usize,
    /// One kind of fault in each sequence, another in the next one and at the next offset: for modules whose attempts
    /// take many seconds.
    pub one_kind: bool,
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultKind {
    CrashPoints,
    FailingCalls,
    FailingReads,
    LostWrites,
    FailedSyncs,
}

impl Scope {
    /// Every fault.
    pub const ALL: Self =
        Self { failing_calls: true, lost_writes: true, pairs: true, sample: usize::MAX, offset: 0, one_kind: false };

    /// Whether faults of `kind` are injected in the sequence or pair number `index`.
    pub(super) fn has(self, kind: FaultKind, index: usize) -> bool {
        const TURNS: [FaultKind; 6] = [
            FaultKind::CrashPoints,
            FaultKind::LostWrites,
            FaultKind::FailingCalls,
            FaultKind::CrashPoints,
            FaultKind::FailedSyncs,
            FaultKind::FailingCalls,
        ];
        let is_wanted = match kind {
            FaultKind::CrashPoints => true,
            FaultKind::FailingCalls | FaultKind::FailingReads => self.failing_calls,
            FaultKind::LostWrites | FaultKind::FailedSyncs => self.lost_writes,
        };
        is_wanted && (!self.one_kind || TURNS[(index + self.offset) % TURNS.len()] == kind)
    }

    /// The faults of the sample.
    pub(super) fn of<T>(self, faults: Vec<T>) -> Vec<T> {
        evenly(faults, self.sample, self.offset)
    }

    /// The faults in groups, one for each fault of the sample, which is the first of its group. The others replace it
    /// if it is the same as another fault.
    pub(super) fn groups_of<T>(self, faults: Vec<T>) -> Vec<Vec<T>> {
        let every = step_width(faults.len(), self.sample);
        let mut faults = faults.into_iter();
        let next = || Some(faults.by_ref().take(every).collect::<Vec<_>>()).filter(|group| !group.is_empty());
        let mut groups: Vec<_> = std::iter::from_fn(next).collect();
        for group in &mut groups {
            let first = self.offset % every % group.len();
            group.rotate_left(first);
        }
        groups
    }

    /// The pairs of the sample are of so many first and so many second crash points.
    pub(super) fn of_each(self) -> Self {
        Self { sample: self.sample.isqrt().max(1), ..self }
    }

    /// Fewer, for attempts that are recordings of their own.
    pub(super) fn of_recordings(self) -> Self {
        Self { sample: self.sample.div_ceil(4), ..self }
    }
}

/// The distance of the faults in an even sample of at most `limit` of `count`.
pub fn step_width(count: usize, limit: usize) -> usize {
    count.div_ceil(limit.max(1)).max(1)
}

/// At most `limit` of `faults`, evenly spread: every n-th, from the one that `offset` selects.
fn evenly<T>(faults: Vec<T>, limit: usize, offset: usize) -> Vec<T> {
    let every = step_width(faults.len(), limit);
    faults.into_iter().skip(offset % every).step_by(every).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_evenly_spread_and_shifted() {
        let sample = |limit, offset| evenly((0..10).collect(), limit, offset);
        assert_eq!(sample(usize::MAX, 7), (0..10).collect::<Vec<_>>());
        assert_eq!(sample(4, 0), [0, 3, 6, 9]);
        assert_eq!(sample(4, 4), [1, 4, 7]);
        let mut all: Vec<_> = (0..3).flat_map(|offset| sample(4, offset)).collect();
        all.sort_unstable();
        assert_eq!(all, (0..10).collect::<Vec<_>>(), "the offsets together inject every fault");
        assert!(evenly(Vec::<usize>::new(), 4, 3).is_empty());
    }

    #[test]
    fn a_group_begins_with_the_fault_of_the_sample_and_no_fault_is_in_two() {
        for (sample, offset) in [(usize::MAX, 7), (4, 0), (4, 4), (3, 1), (1, 25)] {
            let groups = Scope { sample, offset, ..Scope::ALL }.groups_of((0..10).collect());
            let firsts: Vec<_> = groups.iter().map(|group| group[0]).collect();
            assert!(firsts.starts_with(&evenly((0..10).collect(), sample, offset)), "{firsts:?}");
            let mut all = groups.concat();
            all.sort_unstable();
            assert_eq!(all, (0..10).collect::<Vec<_>>());
        }
        assert!(Scope::ALL.groups_of(Vec::<usize>::new()).is_empty());
    }

    #[test]
    fn a_sample_of_nothing_is_a_sample_of_one() {
        assert_eq!(evenly(vec![1, 2], 0, 0), [1]);
    }
}
