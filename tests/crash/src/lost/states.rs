//! Which of the possible losses are tried: for every cut, each that says something the others do not.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::effect::{Effect, effects, image_of};
use crate::image::Image;
use crate::operation::Recording;

/// What may be durable after a cut.
pub struct State {
    /// For the report: where the cut is, and what was lost.
    pub shown: String,
    /// The directory.
    pub image: Image,
    /// The program had come to its end: what it has reported as done must be durable.
    pub complete: bool,
}

/// The directory when nothing is lost: what the program has really left, or the tracer has missed something.
pub fn complete(recording: &Recording) -> Image {
    image_of(&recording.before, &effects(recording), |_| true)
}

/// Every state of the directory that a power loss after any of the calls may leave and that no kill shows; each once.
///
/// At every cut: all that was not synced is lost; only the contents are, as with delayed allocation; each single
/// effect is lost and the later ones are not; each single one is not lost and all others are.
pub fn states(recording: &Recording) -> Vec<State> {
    let effects = effects(recording);
    let end = recording.calls.len();
    let image = |kept: &dyn Fn(&Effect) -> bool| image_of(&recording.before, &effects, kept);
    let mut shown_by_kill: HashSet<_> =
        (0..=end).map(|cut| hash(&image(&|effect| effect.call <= cut))).collect();
    let mut states = Vec::new();
    for cut in 1..=end {
        states.extend(losses(&image, &effects, cut).filter_map(|(lost, image)| {
            let call = &recording.calls[cut - 1].shown;
            let shown = format!("power lost after call {cut} ({call}), {lost}");
            let new = shown_by_kill.insert(hash(&image));
            new.then_some(State { shown, image, complete: false })
        }));
    }
    let mut tried = HashSet::from([hash(&image(&|_| true))]);
    states.extend(losses(&image, &effects, end).filter_map(|(lost, image)| {
        let shown = format!("power lost after success was reported, {lost}");
        tried.insert(hash(&image)).then_some(State { shown, image, complete: true })
    }));
    states
}

/// The losses at a cut after call `cut`, and what they leave.
fn losses<'a>(
    image: &'a impl Fn(&dyn Fn(&Effect) -> bool) -> Image,
    effects: &'a [Effect],
    cut: usize,
) -> impl Iterator<Item = (String, Image)> + 'a {
    let pending = move |effect: &Effect| effect.call <= cut && effect.durable > cut;
    let durable = move |effect: &Effect| effect.durable <= cut;
    let done = move |effect: &Effect| effect.call <= cut;
    let several = effects.iter().filter(|effect| pending(effect)).count() > 1;
    let all = effects.iter().any(pending).then(move || {
        let content = image(&|effect| done(effect) && !(pending(effect) && effect.is_content()));
        [
            ("all that was not synced is lost".to_owned(), image(&durable)),
            ("all content that was not synced is lost".to_owned(), content),
        ]
    });
    let singles = effects.iter().filter(move |effect| several && pending(effect)).flat_map(move |single| {
        let lost = image(&|effect| done(effect) && effect.call != single.call);
        let kept = image(&|effect| durable(effect) || effect.call == single.call);
        let name = |what| format!("{what} call {} ({})", single.call, single.shown);
        [(name("nothing is lost but"), lost), (name("all that was not synced is lost but"), kept)]
    });
    all.into_iter().flatten().chain(singles)
}

fn hash(image: &Image) -> u64 {
    let mut hasher = DefaultHasher::new();
    image.hash(&mut hasher);
    hasher.finish()
}
