//! Paths of the previous tree that an update keeps: users' data in a directory that updates replace.
//!
//! Kept files are not copied: the new tree gets hard links to them, in a short time for any size. So a file that is
//! changed in place after the update is changed in the previous tree too, and a rollback does not lose users' data. A
//! file that is replaced or added after the update is only in the new tree.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use glob::MatchOptions;
use mender_update_module::FileName;
use mender_update_module::durable::{Dir, Kind, Times};
use serde::{Deserialize, Serialize};

/// The largest depth of a directory.
const DEPTH_MAX: usize = 20_000;

/// A pattern for paths in the tree: names with `*`, `?` and `[…]`, separated by slashes; `**` for any number of
/// directories. A directory that matches is kept with everything in it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    text: String,
    components: Vec<Component>,
}

#[derive(Clone)]
enum Component {
    /// `**`
    AnyDirectories,
    Name(glob::Pattern),
}

impl TryFrom<String> for Pattern {
    type Error = String;

    /// serde passes on one text only: the error with its causes.
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(text).map_err(|error| format!("{error:#}"))
    }
}

impl Pattern {
    fn parse(text: String) -> Result<Self> {
        let parse = |part: &str| -> Result<Component> {
            ensure!(
                !matches!(part, "" | "." | ".."),
                "empty name, '.' or '..': use a path below the destination, such as \"uploads\" or \"uploads/**\""
            );
            Ok(if part == "**" { Component::AnyDirectories } else { Component::Name(glob::Pattern::new(part)?) })
        };
        let components = text.split('/').map(parse).collect::<Result<Vec<_>>>();
        let components = components.with_context(|| format!("invalid pattern {text:?} in keep"))?;
        ensure!(
            components.iter().any(|component| matches!(component, Component::Name(_))),
            "invalid pattern {text:?} in keep: it matches the whole tree"
        );
        Ok(Self { text, components })
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

/// The rests of the patterns that may match below a directory.
type Rests<'a> = Vec<&'a [Component]>;

/// The rests of the patterns below `name`; `None` if one of them matches `name`.
fn advance<'a>(rests: &Rests<'a>, name: &FileName) -> Option<Rests<'a>> {
    let name = name.as_ref().to_string_lossy();
    let mut below = Vec::new();
    let mut open = rests.clone();
    // Several `**` lead to the same rest in many ways.
    let mut seen = BTreeSet::new();
    while let Some(state) = open.pop() {
        if !seen.insert((state.as_ptr(), state.len())) {
            continue;
        }
        match state {
            [Component::AnyDirectories, rest @ ..] => {
                below.push(state);
                open.push(rest);
            }
            [Component::Name(pattern), rest @ ..] if pattern.matches_with(&name, MatchOptions::new()) => {
                below.push(rest)
            }
            _ => {}
        }
    }
    let matched = |state: &&[Component]| state.iter().all(|part| matches!(part, Component::AnyDirectories));
    if below.iter().any(matched) { None } else { Some(below) }
}

/// Links everything in the tree `previous` that one of `patterns` matches into the tree `new`, durably. If both have
/// a file, the previous one is kept. `previous` does not change. Returns the number of kept files.
///
/// # Errors
/// When a path is a directory in one tree only, or a file cannot be linked.
pub fn carry_over(previous: Dir, new: Dir, patterns: &[Pattern]) -> Result<u64> {
    if patterns.is_empty() {
        return Ok(0);
    }
    let rests: Rests = patterns.iter().map(|pattern| pattern.components.as_slice()).collect();
    let root = Level {
        name: None,
        left: previous.names()?.into_iter(),
        rests: Some(rests),
        previous: previous.device_and_inode()?,
        new: Some((new.device_and_inode()?, Finish::Times(new.times()?))),
    };
    let mut walk = Walk { previous, new: Some(new.reopen()?), new_root: new, levels: vec![root], files: 0 };
    walk.run()?;
    // One flush for all directories.
    walk.new_root.sync_filesystem()?;
    Ok(walk.files)
}

/// A walk through both trees. At any depth, one directory of each tree is open, and the top of the new tree.
struct Walk<'a> {
    levels: Vec<Level<'a>>,
    /// The directory of the last level in the previous tree.
    previous: Dir,
    /// The directory of the last level in the new tree, if it is known to exist.
    new: Option<Dir>,
    new_root: Dir,
    files: u64,
}

/// A directory on the way, in the previous tree; and in the new tree, once something in it is kept.
struct Level<'a> {
    /// `None` for the top.
    name: Option<FileName>,
    /// The names that are still to be examined.
    left: std::vec::IntoIter<FileName>,
    /// The patterns that may match below; `None` if the directory is kept with everything in it.
    rests: Option<Rests<'a>>,
    previous: (u64, u64),
    new: Option<((u64, u64), Finish)>,
}

/// The attributes that a directory of the new tree gets after the kept files.
enum Finish {
    /// Its own times: it is in the artifact.
    Times(Times),
    /// All attributes of the previous directory: it is not in the artifact, or is kept.
    OfPrevious,
}

impl Level<'_> {
    /// Opens this directory in the new tree, in `parent`, and makes it if it does not exist.
    fn make_new(&mut self, parent: &Dir) -> Result<Dir> {
        let name = self.name.as_ref().context("the top of the tree has no parent in it")?;
        if self.new.is_some() {
            return parent.child(name);
        }
        let (directory, found) = match parent.kind(name)? {
            None => (parent.make_child(name, 0o700)?, false),
            Some(Kind::Directory) => (parent.child(name)?, true),
            Some(_) => bail!(
                "keeping files failed: {} is a directory with files to keep, but not a directory in the artifact: change keep or the artifact",
                parent.path().join(name).display()
            ),
        };
        let finish = if found && self.rests.is_some() { Finish::Times(directory.times()?) } else { Finish::OfPrevious };
        self.new = Some((directory.device_and_inode()?, finish));
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
            let below = level.rests.as_ref().and_then(|rests| advance(rests, &name));
            match (self.previous.kind(&name)?, below) {
                (Some(Kind::Directory), below) if below.as_ref().is_none_or(|rests| !rests.is_empty()) => {
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
    fn enter(&mut self, name: FileName, rests: Option<Rests<'a>>) -> Result<()> {
        ensure!(
            self.levels.len() < DEPTH_MAX,
            "keeping files failed: {}: deeper than {DEPTH_MAX} directories: remove it, or do not keep it",
            self.previous.path().display()
        );
        if rests.is_none() {
            self.make_new()?;
        }
        let above = self.new.take().filter(|_| rests.is_none());
        self.previous = self.previous.child(&name)?;
        let (left, found) = (self.previous.names()?.into_iter(), self.previous.device_and_inode()?);
        let mut level = Level { name: Some(name), left, rests, previous: found, new: None };
        if let Some(above) = above {
            self.new = Some(level.make_new(&above)?);
        }
        self.levels.push(level);
        Ok(())
    }

    /// Makes every directory on the way in the new tree, and opens the last.
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
        let new = self.new.as_ref().context("keeping files failed: a directory was not made")?;
        match new.kind(name)? {
            None => {}
            Some(Kind::Directory) => bail!(
                "keeping files failed: {} is a directory in the artifact: change keep or the artifact",
                self.previous.path().join(name).display()
            ),
            Some(_) => new.remove(name)?,
        }
        self.previous.link(name, new)
    }

    /// Finishes the last level, and returns to its parent.
    fn leave(&mut self) -> Result<()> {
        let Some(level) = self.levels.pop() else { return Ok(()) };
        let above = self.levels.last();
        if let (Some((_, finish)), Some(new)) = (level.new, &self.new) {
            match finish {
                Finish::Times(times) => new.set_times(times)?,
                Finish::OfPrevious => new.set_attributes(&self.previous.attributes()?)?,
            }
        }
        let Some(above) = above else { return Ok(()) };
        self.previous = self.previous.up(above.previous)?;
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
        let mut rests = vec![pattern.components.as_slice()];
        for name in path.split('/') {
            match advance(&rests, &FileName::new(name).unwrap()) {
                None => return true,
                Some(below) => rests = below,
            }
        }
        false
    }

    #[test]
    fn a_pattern_has_no_more_rests_than_names() {
        let pattern = Pattern::try_from("**/*/".repeat(64) + "x").unwrap();
        let mut rests = vec![pattern.components.as_slice()];
        for _ in 0..10 {
            rests = advance(&rests, &FileName::new("a").unwrap()).unwrap();
            assert!(rests.len() <= 2 * pattern.components.len(), "{}", rests.len());
        }
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
        for (pattern, path) in
            [("*.db", "a/users.db"), ("uploads", "my/uploads"), ("a/**/z", "a/y"), ("up", "uploads"), ("a/*", "a")]
        {
            assert!(!matches(pattern, path), "{pattern} matches {path}");
        }
        for bad in ["", "/etc", "a//b", "../x", "a/../b", "**", "**/**", "[", "a***b"] {
            assert!(Pattern::try_from(bad.to_owned()).is_err(), "{bad:?} was accepted");
        }
    }
}
