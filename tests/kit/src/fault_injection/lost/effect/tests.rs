//! Which changes are durable after which calls, on recordings made by hand.

use std::path::PathBuf;

use super::*;
use crate::fault_injection::lost::{Losses, State};

const ROOT: u64 = 1;
const OLD: u64 = 2;
const NEW: u64 = 3;
const DIRECTORY: u64 = 4;

/// A directory with the file `app`, content `old`, and the empty directory `d`.
fn before() -> Image {
    let inode =
        |number, kind| Inode { number, kind, mode: 0, owner: (0, 0), modified: (0, 0), attributes: BTreeMap::new() };
    let names = [("app".to_owned(), OLD), ("d".to_owned(), DIRECTORY)];
    let root = inode(ROOT, Kind::Directory(names.into()));
    let old = inode(OLD, Kind::File(b"old".into()));
    let directory = inode(DIRECTORY, Kind::Directory(BTreeMap::new()));
    let inodes = [(ROOT, root), (OLD, old), (DIRECTORY, directory)].into();
    Image { tops: [(PathBuf::new(), ROOT)].into(), inodes, gone: BTreeSet::new() }
}

fn change(directory: u64, name: &str, from: Option<u64>, to: Option<u64>) -> NameChange {
    NameChange { directory, name: name.to_owned(), from, to }
}

fn make(directory: u64, name: &str) -> Operation {
    let mut made = before().inodes[&OLD].clone();
    (made.number, made.kind) = (NEW, Kind::File(Vec::new()));
    Operation::Make { inode: NEW, made, at: change(directory, name, None, Some(NEW)) }
}

fn write(inode: u64, text: &str) -> Operation {
    Operation::Write { inode, offset: 0, data: text.into() }
}

/// `app.new` becomes `app`.
fn replace() -> Operation {
    Operation::Names(vec![change(ROOT, "app.new", Some(NEW), None), change(ROOT, "app", Some(OLD), Some(NEW))])
}

fn sync(inode: u64) -> Operation {
    Operation::Sync { inode }
}

fn recording(operations: impl IntoIterator<Item = Operation>) -> Recording {
    let call = |(index, operation)| Call {
        shown: format!("{operation:?}"),
        done: true,
        is_sync: false,
        time: (index as i64 + 1, 0),
        operation: Some(operation),
    };
    Recording { before: before(), calls: operations.into_iter().enumerate().map(call).collect() }
}

fn kept(is_kept: bool) -> Extent {
    if is_kept { Extent::Whole } else { Extent::Lost }
}

/// The content of the file `path` when everything has been lost that was not synced at the end.
fn left(operations: impl IntoIterator<Item = Operation>, path: &str) -> Option<String> {
    let recording = recording(operations);
    let end = recording.calls.len();
    content(
        &image_of(&recording.before, &effects(&recording, Path::new("d")), |effect| kept(effect.durable <= end)),
        path,
    )
}

fn content(image: &Image, path: &str) -> Option<String> {
    let top = image.tops[Path::new("")];
    let key = path.split('/').try_fold(top, |directory, name| names(image, directory)?.get(name).copied())?;
    match &image.inodes[&key].kind {
        Kind::File(content) => Some(String::from_utf8(content.clone()).unwrap()),
        _ => Some(String::new()),
    }
}

#[test]
fn what_is_not_synced_is_lost() {
    assert_eq!(left([write(OLD, "new")], "app").as_deref(), Some("old"));
    assert_eq!(left([write(OLD, "new"), sync(OLD)], "app").as_deref(), Some("new"));
    assert_eq!(left([write(OLD, "new"), Operation::SyncAll], "app").as_deref(), Some("new"));
    assert_eq!(left([sync(OLD), write(OLD, "new")], "app").as_deref(), Some("old"), "synced before");
}

#[test]
fn a_synced_file_needs_its_directory_synced_for_its_name() {
    let steps = [make(ROOT, "app.new"), write(NEW, "new"), sync(NEW)];
    assert_eq!(left(steps.clone(), "app.new"), None);
    assert_eq!(left(steps.into_iter().chain([sync(ROOT)]), "app.new").as_deref(), Some("new"));
    assert_eq!(left([make(ROOT, "app.new"), write(NEW, "new"), sync(ROOT)], "app.new").as_deref(), Some(""));
}

#[test]
fn a_rename_is_lost_whole_or_not_at_all() {
    let steps = [make(ROOT, "app.new"), write(NEW, "new"), sync(NEW), sync(ROOT), replace()];
    assert_eq!(left(steps.clone(), "app").as_deref(), Some("old"));
    assert_eq!(left(steps.clone(), "app.new").as_deref(), Some("new"));
    let synced = || steps.clone().into_iter().chain([sync(ROOT)]);
    assert_eq!(left(synced(), "app").as_deref(), Some("new"));
    assert_eq!(left(synced(), "app.new"), None);
}

#[test]
fn syncing_the_directory_that_gets_a_name_makes_the_rename_durable() {
    let out = Operation::Names(vec![change(DIRECTORY, "x", Some(NEW), None), change(ROOT, "x", None, Some(NEW))]);
    assert_eq!(left([make(DIRECTORY, "x"), out.clone(), sync(ROOT)], "x").as_deref(), Some(""));
    assert_eq!(left([make(DIRECTORY, "x"), out.clone(), sync(ROOT)], "d/x"), None);
    assert_eq!(
        left([make(DIRECTORY, "x"), out, sync(DIRECTORY)], "x"),
        None,
        "syncing the directory that loses the name is not enough"
    );
}

#[test]
fn an_exchange_is_one_effect_and_needs_both_directories() {
    let exchange = Operation::Names(vec![
        change(ROOT, "app", Some(OLD), Some(NEW)),
        change(DIRECTORY, "new", Some(NEW), Some(OLD)),
    ]);
    let steps = [make(DIRECTORY, "new"), write(NEW, "new"), Operation::SyncAll, exchange, sync(ROOT)];
    let ends = |steps: Vec<Operation>| [left(steps.clone(), "app"), left(steps, "d/new")].map(Option::unwrap);
    assert_eq!(ends(steps.to_vec()), ["old", "new"]);
    assert_eq!(ends(steps.into_iter().chain([sync(DIRECTORY)]).collect()), ["new", "old"]);
}

#[test]
fn a_removed_directory_takes_what_was_in_it() {
    let gone = Operation::Names(vec![change(ROOT, "d", Some(DIRECTORY), None)]);
    let emptied = Operation::Names(vec![change(DIRECTORY, "x", Some(NEW), None)]);
    let steps = [make(DIRECTORY, "x"), Operation::SyncAll, emptied, gone];
    assert_eq!(left(steps.clone(), "d/x").as_deref(), Some(""));
    assert_eq!(left(steps.into_iter().chain([sync(ROOT)]), "d"), None);
}

#[test]
fn a_number_that_is_used_again_is_another_inode() {
    let removed = Operation::Names(vec![change(ROOT, "a", Some(NEW), None)]);
    let steps = [make(ROOT, "a"), write(NEW, "first"), Operation::SyncAll, removed, make(ROOT, "b"), write(NEW, "2nd")];
    assert_eq!(left(steps, "a").as_deref(), Some("first"));
}

/// Every state that a loss leaves and no kill.
fn states_of(recording: &Recording) -> Vec<State> {
    let losses = Losses::new(recording, 1, Path::new("d"));
    losses.states(losses.all().into_iter().map(|loss| vec![loss]).collect()).collect()
}

#[test]
fn a_group_of_losses_leaves_its_first_new_state() {
    let recording = recording([make(ROOT, "app.new"), write(NEW, "new"), replace(), sync(ROOT)]);
    let losses = Losses::new(&recording, 1, Path::new("d"));
    let shown = |state: State| state.shown;
    let all: Vec<_> = states_of(&recording).into_iter().map(shown).collect();
    let of_one_group: Vec<_> = losses.states(vec![losses.all()]).map(shown).collect();
    assert_eq!(of_one_group, all[..1]);
    let twice = losses.states(vec![losses.all(), losses.all()]).map(shown).collect::<Vec<_>>();
    assert_eq!(twice, all[..2]);
}

#[test]
fn every_order_is_tried_and_each_state_once() {
    let steps = [make(ROOT, "app.new"), write(NEW, "new"), replace(), sync(ROOT)];
    let states = states_of(&recording(steps.clone()));
    let apps = |states: &[State], complete: bool| {
        let of_kind = states.iter().filter(|state| state.complete == complete);
        of_kind.map(|state| content(&state.image, "app").unwrap()).collect::<BTreeSet<_>>()
    };
    let set = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<BTreeSet<_>>();
    // The rename is durable before the content, which is lost, torn, or zeros of the right length.
    assert_eq!(apps(&states, false), set(&["", "\0\0\0", "n", "old"]));
    assert_eq!(apps(&states, true), set(&["", "\0\0\0", "n"]), "success was reported, and the content not synced");
    let shown: BTreeSet<_> =
        states.iter().map(|state| format!("{:?}", (state.complete, state.image.listing()))).collect();
    assert_eq!(shown.len(), states.len(), "each once");
    let right = [make(ROOT, "app.new"), write(NEW, "new"), sync(NEW), replace(), sync(ROOT)];
    let states = states_of(&recording(right));
    assert_eq!((apps(&states, false), apps(&states, true)), (set(&["old"]), set(&[])));
}

#[test]
fn a_sync_of_one_file_system_says_nothing_of_the_other() {
    let steps = |synced| {
        let data = make(DIRECTORY, "x");
        [data, write(NEW, "new"), write(OLD, "new"), Operation::SyncFileSystem { inode: synced }]
    };
    assert_eq!(left(steps(DIRECTORY), "d/x").as_deref(), Some("new"));
    assert_eq!(left(steps(DIRECTORY), "app").as_deref(), Some("old"));
    assert_eq!(left(steps(ROOT), "d/x"), None);
    assert_eq!(left(steps(ROOT), "app").as_deref(), Some("new"));
}

#[test]
fn what_a_failed_sync_had_to_make_durable_is_lost_for_ever() {
    let failed = Operation::FailedSync(Box::new(sync(OLD)));
    assert_eq!(left([write(OLD, "new"), failed.clone(), sync(OLD)], "app").as_deref(), Some("old"));
    assert_eq!(left([failed, write(OLD, "new"), sync(OLD)], "app").as_deref(), Some("new"), "failed before");
    let other = Operation::FailedSync(Box::new(sync(ROOT)));
    assert_eq!(left([write(OLD, "new"), other, sync(OLD)], "app").as_deref(), Some("new"));
}

#[test]
fn a_name_that_a_failed_sync_had_to_make_durable_is_lost_and_nothing_else() {
    let failed = Operation::FailedSync(Box::new(sync(DIRECTORY)));
    let recording = recording([make(DIRECTORY, "x"), failed, write(OLD, "new")]);
    let [lost, _] = crate::fault_injection::lost::after_failed_sync(&recording, Path::new("d"));
    assert_eq!(content(&lost, "app").as_deref(), Some("new"), "it was not to be synced");
    assert_eq!(content(&lost, "d/x"), None);
}
