//! The losses of writes that are injected: for every crash point, each that leaves another state.

use std::collections::{BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use super::effect::{Effect, Extent, NEVER, effects, image_of};
use crate::fault_injection::image::Image;
use crate::fault_injection::operation::Recording;

/// The number of random sets of lost changes at a crash point.
const RANDOM_SETS: u64 = 2;

/// A state of the device after a power loss.
pub struct State {
    /// The crash point and what was lost, for the report.
    pub shown: String,
    /// The directories.
    pub image: Image,
    /// Whether the program had ended: then what it reported as done must be durable.
    pub complete: bool,
}

/// A power loss, and which of the unsynced changes it loses.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    /// The number of the last call.
    point: usize,
    what: What,
    /// Whether the program had ended.
    pub complete: bool,
}

/// What is lost of the unsynced changes. Changes are identified by the numbers of their calls.
#[derive(Clone, Copy, Debug)]
enum What {
    /// Every change.
    All,
    /// The content of files, as with delayed allocation; or it is zeros.
    Content(Extent),
    /// The second half of one write.
    Torn(usize),
    /// One change.
    Only(usize),
    /// Every change but one.
    AllExcept(usize),
    /// A random set.
    Set(u64),
}

/// The directories when nothing is lost: the same as on the device, unless the tracer does not know a call.
pub fn complete(recording: &Recording) -> Image {
    image_of(&recording.before, &effects(recording, Path::new("")), |_| Extent::Whole)
}

/// The states after a program that has ended, in which a sync had failed: without the changes that will never be
/// durable, and without any unsynced change.
pub fn after_failed_sync(recording: &Recording, data: &Path) -> [Image; 2] {
    let (effects, end) = (effects(recording, data), recording.calls.len());
    let keep =
        |durable: usize| move |effect: &Effect| if effect.durable <= durable { Extent::Whole } else { Extent::Lost };
    [NEVER, end].map(|durable| image_of(&recording.before, &effects, keep(durable)))
}

/// The losses of unsynced writes in a recording.
pub struct Losses<'a> {
    recording: &'a Recording,
    /// The number of the first call after which the power is lost.
    first: usize,
    effects: Vec<Effect>,
    /// The keys of the inodes that the effects change: all others are the same in every state.
    changed: BTreeSet<u64>,
}

impl<'a> Losses<'a> {
    /// The losses in `recording` after any call from number `first` on. `data` is the path of the client's data, a file
    /// system of its own.
    pub fn new(recording: &'a Recording, first: usize, data: &Path) -> Self {
        let effects = effects(recording, data);
        let changed = effects.iter().flat_map(Effect::inodes).collect();
        Self { recording, first, effects, changed }
    }

    /// Every loss, in the order of the calls.
    ///
    /// At every crash point: all unsynced changes are lost; only unsynced content is, as with delayed allocation, or is
    /// zeros; the last unsynced write is torn; one unsynced change is lost and no other; all unsynced changes are lost
    /// but one; random sets of them are lost.
    pub fn all(&self) -> Vec<Loss> {
        let end = self.recording.calls.len();
        let points = (self.first..=end).map(|point| (point, false)).chain([(end, true)]);
        points.flat_map(|(point, complete)| self.after(point, complete)).collect()
    }

    fn after(&self, point: usize, complete: bool) -> Vec<Loss> {
        let pending: Vec<_> = self.effects.iter().filter(|effect| is_pending(effect, point)).collect();
        let mut found = Vec::new();
        if !pending.is_empty() {
            found.extend([What::All, What::Content(Extent::Lost), What::Content(Extent::Zeros)]);
        }
        let torn = pending.iter().rev().find(|effect| effect.is_content());
        found.extend(torn.map(|effect| What::Torn(effect.call)));
        if pending.len() > 1 {
            found.extend(pending.iter().flat_map(|single| [What::Only(single.call), What::AllExcept(single.call)]));
        }
        if pending.len() > 2 {
            found.extend((0..RANDOM_SETS).map(What::Set));
        }
        found.into_iter().map(|what| Loss { point, what, complete }).collect()
    }

    /// Of each of `groups` the first loss, if any, that leaves a state which no kill and no earlier loss leaves.
    pub fn states<'b>(&'b self, groups: Vec<Vec<Loss>>) -> impl Iterator<Item = State> + 'b {
        let end = self.recording.calls.len();
        let mut left_by_kill: HashSet<_> = (self.first - 1..=end).map(|point| self.hash(&self.killed(point))).collect();
        let mut after_end = HashSet::from([self.hash(&self.killed(end))]);
        groups.into_iter().filter_map(move |group| {
            group.into_iter().find_map(|loss| {
                let image = self.image(loss);
                let known = if loss.complete { &mut after_end } else { &mut left_by_kill };
                let is_new = known.insert(self.hash(&image));
                is_new.then(|| State { shown: self.shown(loss), image, complete: loss.complete })
            })
        })
    }

    /// What a kill after call `point` leaves.
    fn killed(&self, point: usize) -> Image {
        let extent = |effect: &Effect| if effect.call <= point { Extent::Whole } else { Extent::Lost };
        image_of(&self.recording.before, &self.effects, extent)
    }

    /// What `loss` leaves.
    fn image(&self, Loss { point, what, .. }: Loss) -> Image {
        image_of(&self.recording.before, &self.effects, |effect| match () {
            () if effect.call > point => Extent::Lost,
            () if is_pending(effect, point) => what.left_of(effect, point),
            () => Extent::Whole,
        })
    }

    fn hash(&self, image: &Image) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.changed.iter().for_each(|key| image.inodes.get(key).hash(&mut hasher));
        hasher.finish()
    }

    fn shown(&self, Loss { point, what, complete }: Loss) -> String {
        let single = |call: usize| {
            let effect = self.effects.iter().find(|effect| effect.call == call);
            format!("call {call} ({})", effect.map_or("", |effect| &effect.shown))
        };
        let lost = match what {
            What::All => "all unsynced changes lost".to_owned(),
            What::Content(Extent::Zeros) => "all unsynced content is zeros".to_owned(),
            What::Content(_) => "all unsynced content lost".to_owned(),
            What::Torn(call) => format!("call {call} torn"),
            What::Only(call) => format!("lost only {}", single(call)),
            What::AllExcept(call) => format!("all unsynced changes lost except {}", single(call)),
            What::Set(_) => {
                let of_set =
                    |effect: &&Effect| is_pending(effect, point) && what.left_of(effect, point) == Extent::Lost;
                let lost = self.effects.iter().filter(of_set).map(|effect| effect.call.to_string());
                format!("lost calls {}", lost.collect::<Vec<_>>().join(", "))
            }
        };
        if complete {
            return format!("power lost after success was reported, {lost}");
        }
        format!("power lost after call {point} ({}), {lost}", self.recording.calls[point - 1].shown)
    }
}

impl What {
    /// How much of `effect`, which is not durable, a power loss after call `point` leaves.
    fn left_of(self, effect: &Effect, point: usize) -> Extent {
        let unless = |is_lost: bool| if is_lost { Extent::Lost } else { Extent::Whole };
        match self {
            Self::All => Extent::Lost,
            Self::Content(extent) if effect.is_content() => extent,
            Self::Content(_) => Extent::Whole,
            Self::Torn(call) if effect.call == call => Extent::Torn,
            Self::Torn(_) => Extent::Whole,
            Self::Only(call) => unless(effect.call == call),
            Self::AllExcept(call) => unless(effect.call != call),
            Self::Set(set) => unless(random(point, effect.call, set) % 2 == 0),
        }
    }
}

/// Whether `effect` was made up to call `point`, and is not durable then.
fn is_pending(effect: &Effect, point: usize) -> bool {
    effect.call <= point && effect.durable > point
}

/// The same number every time for the same arguments.
fn random(point: usize, call: usize, set: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (point, call, set).hash(&mut hasher);
    hasher.finish()
}
