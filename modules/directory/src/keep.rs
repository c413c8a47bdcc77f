//! Paths of the old tree that an update carries over: users' data in a folder that updates replace.
//!
//! What is carried over is not copied, but gets a second name in the new tree: nothing is written twice, and however
//! much it is, it takes a moment. So a file that is changed in place after the update is changed in the old tree too,
//! which is what users' data wants of a rollback; one that is replaced or added is the new tree's alone.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use glob::MatchOptions;
use serde::{Deserialize, Serialize};
use update_module::FileName;
use update_module::durable::{Attributes, Dir, Kind, Times};

/// What a path in the tree has to look like: names with `*`, `?` and `[…]`, separated by slashes; `**` for any number of
/// folders. What matches is kept with all that is in it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone)]
enum Part {
    /// `**`
    AnyFolders,
    Name(glob::Pattern),
}

impl TryFrom<String> for Pattern {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        let parse = |part: &str| -> Result<Part> {
            ensure!(
                !matches!(part, "" | "." | ".."),
                "it has to be a path below the destination, such as \"uploads/**\""
            );
            Ok(if part == "**" { Part::AnyFolders } else { Part::Name(glob::Pattern::new(part)?) })
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

/// How far the patterns have come on the way into a folder: what is left of each that may still match below.
type States<'a> = Vec<&'a [Part]>;

/// What is left of `states` below `name`, `None` where one of them has matched.
fn advance<'a>(states: &States<'a>, name: &FileName) -> Option<States<'a>> {
    let name = name.as_ref().to_string_lossy();
    let mut below = Vec::new();
    let mut open = states.clone();
    while let Some(state) = open.pop() {
        match state {
            [Part::AnyFolders, rest @ ..] => {
                below.push(state);
                open.push(rest);
            }
            [Part::Name(pattern), rest @ ..] if pattern.matches_with(&name, MatchOptions::new()) => {
                below.push(rest)
            }
            _ => {}
        }
    }
    let matched = |state: &&[Part]| state.iter().all(|part| matches!(part, Part::AnyFolders));
    if below.iter().any(matched) { None } else { Some(below) }
}

/// Gives everything in the tree `old` that one of `patterns` matches a second name in the tree `new`, durably; where both
/// have a file, the old one is kept. Leaves `old` as it is. Returns how many files were carried over.
///
/// # Errors
/// When one tree has a folder where the other has none, or a file cannot be linked.
pub fn carry_over(old: Dir, new: Dir, patterns: &[Pattern]) -> Result<u64> {
    if patterns.is_empty() {
        return Ok(0);
    }
    let times = new.times()?;
    let root = Level { old, new: Some((new, Finish::Times(times))), name: None, whole: false };
    let mut walk = Walk { levels: vec![root], files: 0 };
    let states: States = patterns.iter().map(|pattern| pattern.parts.as_slice()).collect();
    walk.folder(Some(&states))?;
    walk.leave()?;
    Ok(walk.files)
}

struct Walk {
    levels: Vec<Level>,
    files: u64,
}

/// A folder on the way, in the old tree and, from the moment something in it is kept, in the new.
struct Level {
    name: Option<FileName>,
    old: Dir,
    new: Option<(Dir, Finish)>,
    /// Whether it is kept itself, and so is as in the old tree.
    whole: bool,
}

/// What a folder of the new tree gets when all that is kept in it is there.
enum Finish {
    /// It was there: its own times.
    Times(Times),
    /// It was not, or is kept: all that the old one has.
    Attributes(Attributes),
}

impl Walk {
    /// Goes through the folder on top: with all that is in it, or with what `states` match.
    fn folder(&mut self, states: Option<&States>) -> Result<()> {
        for name in self.top()?.old.names()? {
            let below = states.and_then(|states| advance(states, &name));
            match (self.top()?.old.kind(&name)?, below) {
                (Some(Kind::Folder), below) if below.as_ref().is_none_or(|states| !states.is_empty()) => {
                    self.enter(name, below.is_none())?;
                    self.folder(below.as_ref())?;
                    self.leave()?;
                }
                (Some(Kind::File | Kind::Other), None) => self.keep(&name)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn enter(&mut self, name: FileName, whole: bool) -> Result<()> {
        let old = self.top()?.old.child(&name)?;
        self.levels.push(Level { name: Some(name), old, new: None, whole });
        if whole {
            self.make_new()?;
        }
        Ok(())
    }

    /// Sees to it that every folder on the way is in the new tree too.
    fn make_new(&mut self) -> Result<()> {
        for at in 1..self.levels.len() {
            let (above, here) = self.levels.split_at_mut(at);
            let (Some(Level { new: Some((parent, _)), .. }), [level, ..]) = (above.last(), here) else {
                bail!("a folder on the way was not made");
            };
            let (None, Some(name)) = (&level.new, &level.name) else { continue };
            let (folder, found) = match parent.kind(name)? {
                None => (parent.make_child(name, 0o700)?, false),
                Some(Kind::Folder) => (parent.child(name)?, true),
                Some(_) => bail!(
                    "{} is a folder of which something is to be kept, but no folder in the artifact: change one of them",
                    level.old.path().display()
                ),
            };
            let finish = if found && !level.whole {
                Finish::Times(folder.times()?)
            } else {
                Finish::Attributes(level.old.attributes()?)
            };
            level.new = Some((folder, finish));
        }
        Ok(())
    }

    fn keep(&mut self, name: &FileName) -> Result<()> {
        self.make_new()?;
        self.files += 1;
        let Level { old, new: Some((new, _)), .. } = self.top()? else {
            bail!("a folder on the way was not made")
        };
        match new.kind(name)? {
            None => {}
            Some(Kind::Folder) => bail!(
                "{} is to be kept, but a folder in the artifact: change one of them",
                old.path().join(name).display()
            ),
            Some(_) => new.remove(name)?,
        }
        old.link(name, new)
    }

    fn leave(&mut self) -> Result<()> {
        let Some(Level { new: Some((folder, finish)), .. }) = self.levels.pop() else { return Ok(()) };
        match finish {
            Finish::Times(times) => folder.set_times(times)?,
            Finish::Attributes(attributes) => folder.set_attributes(&attributes)?,
        }
        folder.sync()
    }

    fn top(&self) -> Result<&Level> {
        self.levels.last().context("the walk has left the tree")
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
