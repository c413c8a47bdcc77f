//! The effects of a recording, and from which call on each of them is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::fault_injection::image::{Image, Inode, Kind, Time};
use crate::fault_injection::operation::{Call, NameChange, Operation, Recording};

/// Later than every call: never synced.
pub const NEVER: usize = FAILED - 1;

/// Later than that: the sync failed, and the storage has lost it.
const FAILED: usize = usize::MAX;

/// The change that one call made. Inodes are identified by the keys of an [`Image`].
#[derive(Clone, Debug)]
pub struct Effect {
    /// The number of the call, from 1.
    pub call: usize,
    /// The number of the sync after which it is durable.
    pub durable: usize,
    /// The call, for the report.
    pub shown: String,
    operation: Operation,
    time: Time,
}

/// The effects of all calls in `recording`, in order. `data` is the path of the client's data, which are on a file
/// system of their own.
pub fn effects(recording: &Recording, data: &Path) -> Vec<Effect> {
    let calls = with_keys(&recording.before, &recording.calls);
    let systems = FileSystems::of(&recording.before, &calls, data);
    let mut effects: Vec<_> = calls
        .iter()
        .enumerate()
        .filter_map(|(index, (call, operation))| match operation.clone()? {
            operation if operation.is_sync() => None,
            operation => Some(Effect {
                call: index + 1,
                durable: durable(&operation, index, &calls, &systems),
                shown: call.shown.clone(),
                operation,
                time: call.time,
            }),
        })
        .collect();
    sync_dependencies(&mut effects);
    effects
}

/// The calls with inode numbers replaced by keys: a file system reuses the numbers of removed inodes.
fn with_keys<'a>(before: &Image, calls: &'a [Call]) -> Vec<(&'a Call, Option<Operation>)> {
    let mut keys: BTreeMap<u64, u64> = before.inodes.keys().map(|&key| (key, key)).collect();
    let mut fresh = u64::MAX; // counts down, away from inode numbers
    let mut key_of = |number: u64, made: bool| {
        if made {
            fresh -= 1;
            keys.insert(number, fresh);
        }
        // An inode that no image has, such as a FIFO, keeps its number, which no key matches.
        keys.get(&number).copied().unwrap_or(number)
    };
    calls
        .iter()
        .map(|call| {
            let mut operation = call.operation.clone();
            if let Some(operation) = &mut operation {
                operation.rename_inodes(&mut key_of);
            }
            (call, operation)
        })
        .collect()
}

impl Operation {
    fn rename_inodes(&mut self, key_of: &mut impl FnMut(u64, bool) -> u64) {
        let change_keys = |change: &mut NameChange, key_of: &mut dyn FnMut(u64, bool) -> u64| {
            change.directory = key_of(change.directory, false);
            change.from = change.from.map(|inode| key_of(inode, false));
            change.to = change.to.map(|inode| key_of(inode, false));
        };
        match self {
            Self::Make { inode, at, .. } => {
                *inode = key_of(*inode, true);
                change_keys(at, key_of);
            }
            Self::Names(changes) => changes.iter_mut().for_each(|change| change_keys(change, key_of)),
            Self::Resize { inode, .. }
            | Self::Write { inode, .. }
            | Self::Mode { inode, .. }
            | Self::Owner { inode, .. }
            | Self::Modified { inode, .. }
            | Self::Attribute { inode, .. }
            | Self::Sync { inode }
            | Self::SyncFileSystem { inode } => *inode = key_of(*inode, false),
            Self::FailedSync(sync) => sync.rename_inodes(key_of),
            Self::SyncAll => {}
        }
    }

    fn is_sync(&self) -> bool {
        matches!(self, Self::Sync { .. } | Self::SyncFileSystem { .. } | Self::SyncAll | Self::FailedSync(_))
    }

    /// Whether this sync makes `inode` durable.
    fn syncs(&self, wanted: u64, systems: &FileSystems) -> bool {
        match self {
            Self::Sync { inode } => *inode == wanted,
            Self::SyncFileSystem { inode } => systems.are_same(*inode, wanted),
            Self::SyncAll => true,
            _ => false,
        }
    }

    fn changes(&self) -> &[NameChange] {
        match self {
            Self::Make { at, .. } => std::slice::from_ref(at),
            Self::Names(changes) => changes,
            _ => &[],
        }
    }

    /// The inodes that have to be synced to make this durable.
    fn to_sync(&self) -> Vec<u64> {
        match self {
            Self::Make { .. } | Self::Names(_) => {
                // A rename removes the first name in the same transaction in which it adds the second.
                let gets = |change: &&NameChange| change.to.is_some();
                let changes = self.changes();
                let gaining: Vec<_> = changes.iter().filter(gets).map(|change| change.directory).collect();
                if gaining.is_empty() { changes.iter().map(|change| change.directory).collect() } else { gaining }
            }
            Self::Resize { inode, .. }
            | Self::Write { inode, .. }
            | Self::Mode { inode, .. }
            | Self::Owner { inode, .. }
            | Self::Modified { inode, .. }
            | Self::Attribute { inode, .. } => vec![*inode],
            _ => Vec::new(),
        }
    }
}

/// The inodes on the file system of the client's data. All others are on that of the destination.
struct FileSystems(BTreeSet<u64>);

impl FileSystems {
    fn of(before: &Image, calls: &[(&Call, Option<Operation>)], data: &Path) -> Self {
        let mut of_data = before.below(data);
        for (_, operation) in calls {
            if let Some(Operation::Make { inode, at, .. }) = operation {
                let is_top = before.tops.get(Path::new("")) == Some(&at.directory) && Path::new(&at.name) == data;
                if is_top || of_data.contains(&at.directory) {
                    of_data.insert(*inode);
                }
            }
        }
        Self(of_data)
    }

    fn are_same(&self, one: u64, other: u64) -> bool {
        self.0.contains(&one) == self.0.contains(&other)
    }
}

/// The number of the call after which `operation`, at `index` in `calls`, is durable.
fn durable(operation: &Operation, index: usize, calls: &[(&Call, Option<Operation>)], systems: &FileSystems) -> usize {
    let synced = |wanted: u64| {
        for (number, (_, later)) in (index + 1..).zip(&calls[index..]) {
            match later {
                Some(Operation::FailedSync(sync)) if sync.syncs(wanted, systems) => return FAILED,
                Some(sync) if sync.syncs(wanted, systems) => return number,
                _ => {}
            }
        }
        NEVER
    };
    operation.to_sync().into_iter().map(synced).max().unwrap_or(NEVER)
}

/// Makes earlier changes durable together with later ones that depend on them: a rename depends on the name that it
/// removes, the removal of a directory on being empty. No file system keeps the later without the earlier.
fn sync_dependencies(effects: &mut [Effect]) {
    let mut names: BTreeMap<(u64, String), usize> = BTreeMap::new();
    let mut emptied: BTreeMap<u64, usize> = BTreeMap::new();
    for effect in effects.iter_mut().rev() {
        for change in effect.operation.changes() {
            let needed = names.get(&(change.directory, change.name.clone())).into_iter();
            let needed = needed.chain(emptied.get(&change.directory)).copied().min().unwrap_or(FAILED);
            effect.durable = effect.durable.min(needed.max(effect.call));
        }
        for change in effect.operation.changes() {
            let entry = names.entry((change.directory, change.name.clone())).or_insert(FAILED);
            *entry = effect.durable.min(*entry);
        }
        emptied.extend(gone(effect.operation.changes()).map(|directory| (directory, effect.durable)));
    }
}

impl Effect {
    /// The inodes that it changes, or gives a name.
    pub fn inodes(&self) -> impl Iterator<Item = u64> {
        let changes = self.operation.changes();
        let named = changes.iter().flat_map(|change| [Some(change.directory), change.to]).flatten();
        named.chain(self.operation.to_sync())
    }

    /// Whether it is a file's content, which file systems write later than anything else.
    pub fn is_content(&self) -> bool {
        matches!(self.operation, Operation::Write { .. } | Operation::Resize { .. })
    }

    /// Applies this effect to `image`, unless it depends on one that was lost: then it is lost too.
    fn apply(&self, image: &mut Image, extent: Extent) {
        match &self.operation {
            Operation::Make { at, .. } => self.change_names(image, std::slice::from_ref(at)),
            Operation::Names(changes) => self.change_names(image, changes),
            Operation::Resize { inode, .. }
            | Operation::Write { inode, .. }
            | Operation::Mode { inode, .. }
            | Operation::Owner { inode, .. }
            | Operation::Modified { inode, .. }
            | Operation::Attribute { inode, .. } => {
                if let Some(inode) = image.inodes.get_mut(inode) {
                    self.change_inode(inode, extent);
                }
            }
            _ => {}
        }
    }

    fn change_inode(&self, inode: &mut Inode, extent: Extent) {
        match (&self.operation, &mut inode.kind) {
            (Operation::Resize { length, .. }, Kind::File(content)) => {
                content.resize(*length as usize, 0);
                inode.modified = self.time;
            }
            (Operation::Write { offset, data, .. }, Kind::File(content)) => {
                let written = if extent == Extent::Torn { data.len() / 2 } else { data.len() };
                let (begin, end) = (*offset as usize, *offset as usize + written);
                content.resize(content.len().max(end), 0);
                match extent {
                    Extent::Zeros => content[begin..end].fill(0),
                    _ => content[begin..end].copy_from_slice(&data[..written]),
                }
                inode.modified = self.time;
            }
            (Operation::Mode { mode, .. }, _) => inode.mode = *mode,
            (Operation::Owner { owner, mode, .. }, _) => (inode.owner, inode.mode) = (*owner, *mode),
            (Operation::Modified { modified, .. }, _) => inode.modified = *modified,
            (Operation::Attribute { name, value, mode, .. }, _) => {
                inode.mode = mode.unwrap_or(inode.mode);
                match value {
                    Some(value) => inode.attributes.insert(name.clone(), value.clone()),
                    None => inode.attributes.remove(name),
                };
            }
            _ => {}
        }
    }

    fn change_names(&self, image: &mut Image, changes: &[NameChange]) {
        let is_empty = |inode| names(image, inode).is_none_or(BTreeMap::is_empty);
        if !(changes.iter().all(|change| is_possible(image, change)) && gone(changes).all(is_empty)) {
            return;
        }
        for change in changes {
            let Some(directory) = image.inodes.get_mut(&change.directory) else { continue };
            directory.modified = self.time;
            let Kind::Directory(names) = &mut directory.kind else { continue };
            match change.to {
                Some(inode) => names.insert(change.name.clone(), inode),
                None => names.remove(&change.name),
            };
        }
    }
}

/// Whether the name is in the state that the call found.
fn is_possible(image: &Image, change: &NameChange) -> bool {
    names(image, change.directory).is_some_and(|names| names.get(&change.name).copied() == change.from)
}

fn names(image: &Image, inode: u64) -> Option<&BTreeMap<String, u64>> {
    match &image.inodes.get(&inode)?.kind {
        Kind::Directory(names) => Some(names),
        _ => None,
    }
}

/// The inodes that lose a name in `changes` and get no other.
fn gone(changes: &[NameChange]) -> impl Iterator<Item = u64> {
    let gets_one = |inode: &u64| changes.iter().any(|change| change.to == Some(*inode));
    changes.iter().filter_map(|change| change.from).filter(move |inode| !gets_one(inode))
}

/// How much of an effect a power loss leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// The length of a file, but zeros instead of its content: XFS, UBIFS and f2fs store both separately.
    Zeros,
    /// The first half of a write.
    Torn,
    /// Nothing.
    Lost,
}

/// The directories with as much of each of `effects` as `extent` says.
pub fn image_of(before: &Image, effects: &[Effect], extent: impl Fn(&Effect) -> Extent) -> Image {
    let mut image = before.clone();
    for effect in effects {
        if let Operation::Make { inode, made: new, .. } = &effect.operation {
            image.inodes.insert(*inode, new.clone());
        }
        let extent = extent(effect);
        if extent != Extent::Lost {
            effect.apply(&mut image, extent);
        }
    }
    image.reachable()
}

#[cfg(test)]
mod tests;
