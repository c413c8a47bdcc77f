//! The losses of writes that are injected: for every crash point, each that leaves another state.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::effect::{Effect, effects, image_of};
use crate::fault_injection::image::Image;
use crate::fault_injection::operation::Recording;

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
    image_of(&recording.before, &effects(recording), |_| true)
}

/// Every state of the directory that a power loss after any call may leave, and that no kill leaves; each once.
///
/// At every crash point: all unsynced changes are lost; only unsynced content is, as with delayed allocation; one
/// unsynced change is lost and no other; all unsynced changes are lost but one.
pub fn states(recording: &Recording) -> Vec<State> {
    let effects = effects(recording);
    let end = recording.calls.len();
    let image = |kept: &dyn Fn(&Effect) -> bool| image_of(&recording.before, &effects, kept);
    let mut left_by_kill: HashSet<_> = (0..=end).map(|point| hash(&image(&|effect| effect.call <= point))).collect();
    let mut states = Vec::new();
    for point in 1..=end {
        states.extend(losses(&image, &effects, point).filter_map(|(lost, image)| {
            let call = &recording.calls[point - 1].shown;
            let shown = format!("power lost after call {point} ({call}), {lost}");
            let is_new = left_by_kill.insert(hash(&image));
            is_new.then_some(State { shown, image, complete: false })
        }));
    }
    let mut tried = HashSet::from([hash(&image(&|_| true))]);
    states.extend(losses(&image, &effects, end).filter_map(|(lost, image)| {
        let shown = format!("power lost after success was reported, {lost}");
        tried.insert(hash(&image)).then_some(State { shown, image, complete: true })
    }));
    states
}

/// The losses after call `point`, and the directories that they leave.
fn losses<'a>(
    image: &'a impl Fn(&dyn Fn(&Effect) -> bool) -> Image,
    effects: &'a [Effect],
    point: usize,
) -> impl Iterator<Item = (String, Image)> + 'a {
    let pending = move |effect: &Effect| effect.call <= point && effect.durable > point;
    let durable = move |effect: &Effect| effect.durable <= point;
    let done = move |effect: &Effect| effect.call <= point;
    let several = effects.iter().filter(|effect| pending(effect)).count() > 1;
    let all = effects.iter().any(pending).then(move || {
        let content = image(&|effect| done(effect) && !(pending(effect) && effect.is_content()));
        [("all unsynced changes lost".to_owned(), image(&durable)), ("all unsynced content lost".to_owned(), content)]
    });
    let singles = effects.iter().filter(move |effect| several && pending(effect)).flat_map(move |single| {
        let lost = image(&|effect| done(effect) && effect.call != single.call);
        let kept = image(&|effect| durable(effect) || effect.call == single.call);
        let name = |what| format!("{what} call {} ({})", single.call, single.shown);
        [(name("lost only"), lost), (name("all unsynced changes lost except"), kept)]
    });
    all.into_iter().flatten().chain(singles)
}

fn hash(image: &Image) -> u64 {
    let mut hasher = DefaultHasher::new();
    image.hash(&mut hasher);
    hasher.finish()
}
