//! Paths of the old tree that an update carries over: users' data in a directory that updates replace.
//!
//! What is carried over is not copied, but gets a second name in the new tree: nothing is written twice, and however
//! much it is, it takes a moment. So a file that is changed in place after the update is changed in the old tree too,
//! which is what users' data wants of a rollback; one that is replaced or added is the new tree's alone.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use glob::MatchOptions;
use mender_update_module::FileName;
use mender_update_module::durable::{Dir, Kind, Times};
use serde::{Deserialize, Serialize};

/// The deepest directory that is looked into.
const DEPTH_MAX: usize = 20_000;

/// What a path in the tree has to look like: names with `*`, `?` and `[…]`, separated by slashes; `**` for any number of
/// directories. What matches is kept with all that is in it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone)]
enum Part {
    /// `**`
    AnyDirectories,
    Name(glob::Pattern),
}

impl TryFrom<String> for Pattern {
    type Error = String;

    /// An error of serde has one text: all of the reasons.
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(text).map_err(|error| format!("{error:#}"))
    }
}

impl Pattern {
    fn parse(text: String) -> Result<Self> {
        let parse = |part: &str| -> Result<Part> {
            ensure!(
                !matches!(part, "" | "." | ".."),
                "a name between slashes is empty, '.' or '..': write a path below the destination, such as \"uploads\" or \
                 \"uploads/**\""
            );
            Ok(if part == "**" { Part::AnyDirectories } else { Part::Name(glob::Pattern::new(part)?) })
        };
        let parts = text.split('/').map(parse).collect::<Result<Vec<_>>>();
        let parts = parts.with_context(|| format!("keep has {text:?}"))?;
        ensure!(
            parts.iter().any(|part| matches!(part, Part::Name(_))),
            "keep has {text:?}, which is the whole tree"
        );
        Ok(Self { text, parts })
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.text
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, formatter)
    }
}

/// How far the patterns have come on the way into a directory: what is left of each that may still match below.
type States<'a> = Vec<&'a [Part]>;

/// What is left of `states` below `name`, `None` where one of them has matched.
fn advance<'a>(states: &States<'a>, name: &FileName) -> Option<States<'a>> {
    let name = name.as_ref().to_string_lossy();
    let mut below = Vec::new();
    let mut open = states.clone();
    while let Some(state) = open.pop() {
        match state {
            [Part::AnyDirectories, rest @ ..] => {
                below.push(state);
                open.push(rest);
            }
            [Part::Name(pattern), rest @ ..] if pattern.matches_with(&name, MatchOptions::new()) => {
                below.push(rest)
            }
            _ => {}
        }
    }
    let matched = |state: &&[Part]| state.iter().all(|part| matches!(part, Part::AnyDirectories));
    if below.iter().any(matched) { None } else { Some(below) }
}

/// Gives everything in the tree `old` that one of `patterns` matches a second name in the tree `new`, durably; where both
/// have a file, the previous one is kept. Leaves `old` as it is. Returns how many files were carried over.
///
/// # Errors
/// When one tree has a directory where the other has none, or a file cannot be linked.
pub fn carry_over(old: Dir, new: Dir, patterns: &[Pattern]) -> Result<u64> {
    if patterns.is_empty() {
        return Ok(0);
    }
    let states: States = patterns.iter().map(|pattern| pattern.parts.as_slice()).collect();
    let root = Level {
        name: None,
        left: old.names()?.into_iter(),
        states: Some(states),
        old: old.place()?,
        new: Some((new.place()?, Finish::Times(new.times()?))),
    };
    let mut walk = Walk { old, new: Some(new.reopen()?), new_root: new, levels: vec![root], files: 0 };
    walk.run()?;
    // One flush, however many directories.
    walk.new_root.sync_filesystem()?;
    Ok(walk.files)
}

/// A walk through both trees. However deep it goes, one directory of each is open, and the new tree's top.
struct Walk<'a> {
    levels: Vec<Level<'a>>,
    /// The directory of the last level in the previous tree.
    old: Dir,
    /// That in the new tree, where it is known to be there.
    new: Option<Dir>,
    new_root: Dir,
    files: u64,
}

/// A directory on the way, in the previous tree and, from the moment something in it is kept, in the new.
struct Level<'a> {
    /// `None` for the top.
    name: Option<FileName>,
    /// What is still to be looked at.
    left: std::vec::IntoIter<FileName>,
    /// What may still match below; `None` where the directory is kept with all that is in it.
    states: Option<States<'a>>,
    old: (u64, u64),
    new: Option<((u64, u64), Finish)>,
}

/// What a directory of the new tree gets when all that is kept in it is there.
enum Finish {
    /// It was there: its own times.
    Times(Times),
    /// It was not, or is kept: all that the previous one has when it is left.
    OfPrevious,
}

impl Level<'_> {
    /// Opens this directory in the new tree, in `parent`, and makes it where it is missing.
    fn make_new(&mut self, parent: &Dir) -> Result<Dir> {
        let name = self.name.as_ref().context("the top of a tree is in no directory of it")?;
        if self.new.is_some() {
            return parent.child(name);
        }
        let (directory, found) = match parent.kind(name)? {
            None => (parent.make_child(name, 0o700)?, false),
            Some(Kind::Directory) => (parent.child(name)?, true),
            Some(_) => bail!(
                "{} is a directory of which something is to be kept, but none in the artifact: change one of them",
                parent.path().join(name).display()
            ),
        };
        let finish = if found && self.states.is_some() {
            Finish::Times(directory.times()?)
        } else {
            Finish::OfPrevious
        };
        self.new = Some((directory.place()?, finish));
        Ok(directory)
    }
}

impl Walk<'_> {
    fn run(&mut self) -> Result<()> {
        while let Some(level) = self.levels.last_mut() {
            let Some(name) = level.left.next() else {
                self.leave()?;
                continue;
            };
            let below = level.states.as_ref().and_then(|states| advance(states, &name));
            match (self.old.kind(&name)?, below) {
                (Some(Kind::Directory), below) if below.as_ref().is_none_or(|states| !states.is_empty()) => {
                    self.enter(name, below)?;
                }
                (Some(Kind::File | Kind::Other), None) => self.keep(&name)?,
                _ => {}
            }
        }
        Ok(())
    }
}

impl<'a> Walk<'a> {
    fn enter(&mut self, name: FileName, states: Option<States<'a>>) -> Result<()> {
        ensure!(
            self.levels.len() < DEPTH_MAX,
            "{} is more than {DEPTH_MAX} directories deep: remove it, or do not keep it",
            self.old.path().display()
        );
        if states.is_none() {
            self.make_new()?;
        }
        let above = self.new.take().filter(|_| states.is_none());
        self.old = self.old.child(&name)?;
        let (left, old) = (self.old.names()?.into_iter(), self.old.place()?);
        let mut level = Level { name: Some(name), left, states, old, new: None };
        if let Some(above) = above {
            self.new = Some(level.make_new(&above)?);
        }
        self.levels.push(level);
        Ok(())
    }

    /// Sees to it that every directory on the way is in the new tree too, and comes to the last.
    fn make_new(&mut self) -> Result<()> {
        if self.new.is_some() {
            return Ok(());
        }
        let mut here = self.new_root.reopen()?;
        for level in self.levels.iter_mut().skip(1) {
            here = level.make_new(&here)?;
        }
        self.new = Some(here);
        Ok(())
    }

    fn keep(&mut self, name: &FileName) -> Result<()> {
        self.make_new()?;
        self.files += 1;
        let new = self.new.as_ref().context("a directory on the way was not made")?;
        match new.kind(name)? {
            None => {}
            Some(Kind::Directory) => bail!(
                "{} is to be kept, but a directory in the artifact: change one of them",
                self.old.path().join(name).display()
            ),
            Some(_) => new.remove(name)?,
        }
        self.old.link(name, new)
    }

    /// Finishes the last level, and goes up to the one above.
    fn leave(&mut self) -> Result<()> {
        let Some(level) = self.levels.pop() else { return Ok(()) };
        let above = self.levels.last();
        if let (Some((_, finish)), Some(new)) = (level.new, &self.new) {
            match finish {
                Finish::Times(times) => new.set_times(times)?,
                Finish::OfPrevious => new.set_attributes(&self.old.attributes()?)?,
            }
        }
        let Some(above) = above else { return Ok(()) };
        self.old = self.old.up(above.old)?;
        let was_made = above.new.as_ref().map(|(place, _)| *place);
        self.new = match (&self.new, was_made) {
            (Some(new), Some(place)) => Some(new.up(place)?),
            _ => None,
        };
        // Nothing below was kept, but something of this directory.
        if was_made.is_some() { self.make_new() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        let pattern = Pattern::try_from(pattern.to_owned()).unwrap();
        let mut states = vec![pattern.parts.as_slice()];
        for name in path.split('/') {
            match advance(&states, &FileName::new(name).unwrap()) {
                None => return true,
                Some(below) => states = below,
            }
        }
        false
    }

    #[test]
    fn patterns_match_whole_names_from_the_top() {
        for (pattern, path) in [
            ("uploads", "uploads"),
            ("uploads", "uploads/a/b"),
            ("uploads/**", "uploads/a/b"),
            ("*.db", "users.db"),
            ("*.db", ".db"),
            ("**/*.db", "users.db"),
            ("**/*.db", "a/b/users.db"),
            ("a/**/z", "a/z"),
            ("a/**/z", "a/b/c/z"),
            ("data/user-?/[a-c]*", "data/user-1/beta"),
        ] {
            assert!(matches(pattern, path), "{pattern} does not match {path}");
        }
        for (pattern, path) in [
            ("*.db", "a/users.db"),
            ("uploads", "my/uploads"),
            ("a/**/z", "a/y"),
            ("up", "uploads"),
            ("a/*", "a"),
        ] {
            assert!(!matches(pattern, path), "{pattern} matches {path}");
        }
        for bad in ["", "/etc", "a//b", "../x", "a/../b", "**", "**/**", "[", "a***b"] {
            assert!(Pattern::try_from(bad.to_owned()).is_err(), "{bad:?} was taken");
        }
    }
}
