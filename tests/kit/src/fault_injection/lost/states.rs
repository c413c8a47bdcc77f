//! The losses of writes that are injected: for every crash point, each that leaves another state.

use std::collections::HashSet;
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
    /// The directory.
    pub image: Image,
    /// Whether the program had ended: then what it reported as done must be durable.
    pub complete: bool,
}

/// The directory when nothing is lost: the same as on the device, unless the tracer does not know a call.
pub fn complete(recording: &Recording) -> Image {
    image_of(&recording.before, &effects(recording, Path::new("")), |_| Extent::Whole)
}

/// Every state of the directory that a power loss after any call from number `first` on may leave, and that no kill
/// leaves; each once. `data` is the path of the client's data, a file system of its own.
///
/// At every crash point: all unsynced changes are lost; only unsynced content is, as with delayed allocation, or is
/// zeros; the last unsynced write is torn; one unsynced change is lost and no other; all unsynced changes are lost but
/// one; random sets of them are lost.
pub fn states(recording: &Recording, first: usize, data: &Path) -> Vec<State> {
    let effects = effects(recording, data);
    let end = recording.calls.len();
    let image = |extent: &dyn Fn(&Effect) -> Extent| image_of(&recording.before, &effects, extent);
    let at = |point: usize| move |effect: &Effect| if effect.call <= point { Extent::Whole } else { Extent::Lost };
    let mut left_by_kill: HashSet<_> = (first - 1..=end).map(|point| hash(&image(&at(point)))).collect();
    let mut states = Vec::new();
    for point in first..=end {
        states.extend(losses(&image, &effects, point).filter_map(|(lost, image)| {
            let call = &recording.calls[point - 1].shown;
            let shown = format!("power lost after call {point} ({call}), {lost}");
            let is_new = left_by_kill.insert(hash(&image));
            is_new.then_some(State { shown, image, complete: false })
        }));
    }
    let mut tried = HashSet::from([hash(&image(&at(end)))]);
    states.extend(losses(&image, &effects, end).filter_map(|(lost, image)| {
        let shown = format!("power lost after success was reported, {lost}");
        tried.insert(hash(&image)).then_some(State { shown, image, complete: true })
    }));
    states
}

/// The states after a program that has ended, in which a sync had failed: without the changes that will never be
/// durable, and without any unsynced change.
pub fn after_failed_sync(recording: &Recording, data: &Path) -> [Image; 2] {
    let (effects, end) = (effects(recording, data), recording.calls.len());
    let keep =
        |durable: usize| move |effect: &Effect| if effect.durable <= durable { Extent::Whole } else { Extent::Lost };
    [NEVER, end].map(|durable| image_of(&recording.before, &effects, keep(durable)))
}

/// The losses after call `point`, and the directories that they leave.
fn losses<'a>(
    image: &'a impl Fn(&dyn Fn(&Effect) -> Extent) -> Image,
    effects: &'a [Effect],
    point: usize,
) -> impl Iterator<Item = (String, Image)> + 'a {
    let pending: Vec<_> = effects.iter().filter(|effect| effect.call <= point && effect.durable > point).collect();
    let numbers: HashSet<_> = pending.iter().map(|effect| effect.call).collect();
    let is_pending = move |effect: &Effect| numbers.contains(&effect.call);
    let with = move |extent: &dyn Fn(&Effect) -> Extent| {
        image(&|effect| match () {
            () if effect.call > point => Extent::Lost,
            () if is_pending(effect) => extent(effect),
            () => Extent::Whole,
        })
    };
    let content = |extent| move |effect: &Effect| if effect.is_content() { extent } else { Extent::Whole };
    let mut found = Vec::new();
    if !pending.is_empty() {
        found.push(("all unsynced changes lost".to_owned(), with(&|_| Extent::Lost)));
        found.push(("all unsynced content lost".to_owned(), with(&content(Extent::Lost))));
        found.push(("all unsynced content is zeros".to_owned(), with(&content(Extent::Zeros))));
    }
    if let Some(torn) = pending.iter().rev().find(|effect| effect.is_content()).map(|effect| effect.call) {
        let extent = |effect: &Effect| if effect.call == torn { Extent::Torn } else { Extent::Whole };
        found.push((format!("call {torn} torn"), with(&extent)));
    }
    if pending.len() > 1 {
        for single in &pending {
            let is_it = |effect: &Effect| effect.call == single.call;
            let either = |lost: bool| if lost { Extent::Lost } else { Extent::Whole };
            let name = |what| format!("{what} call {} ({})", single.call, single.shown);
            found.push((name("lost only"), with(&|effect| either(is_it(effect)))));
            found.push((name("all unsynced changes lost except"), with(&|effect| either(!is_it(effect)))));
        }
    }
    if pending.len() > 2 {
        for set in 0..RANDOM_SETS {
            let is_lost = |effect: &Effect| random(point, effect.call, set) % 2 == 0;
            let extent = |effect: &Effect| if is_lost(effect) { Extent::Lost } else { Extent::Whole };
            let lost = pending.iter().filter(|effect| is_lost(effect)).map(|effect| effect.call.to_string());
            found.push((format!("lost calls {}", lost.collect::<Vec<_>>().join(", ")), with(&extent)));
        }
    }
    found.into_iter()
}

/// The same number every time for the same arguments.
fn random(point: usize, call: usize, set: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (point, call, set).hash(&mut hasher);
    hasher.finish()
}

fn hash(image: &Image) -> u64 {
    let mut hasher = DefaultHasher::new();
    image.hash(&mut hasher);
    hasher.finish()
}
