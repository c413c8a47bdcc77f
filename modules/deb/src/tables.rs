//! What dpkg, apt and their helpers keep about the whole device: states, holds, marks, diversions, stat overrides, alternatives
//! and enabled units. Maintainer scripts change these, and the rollback restores what the update has changed in them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use mender_update_module::{durable, log};
use serde::{Deserialize, Serialize};

use crate::control::Key;
use crate::database::{Database, Diversions};
use crate::dpkg;
use crate::former::Folders;
use crate::locks;
use crate::marks;
use crate::state_files;

const OVERRIDES: &str = "/var/lib/dpkg/statoverride";

/// The longest value that a difference is shown with, in characters.
const SHOWN: usize = 80;

type Table = BTreeMap<String, String>;

/// One of the tables.
type Which = fn(&Tables) -> &Table;

/// All of them at one moment.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tables {
    /// State and version by package.
    states: Table,
    /// What dpkg is to do with a package: `install`, `hold`.
    selections: Table,
    /// Packages that are marked as installed automatically.
    automatic: Table,
    /// The other path, and for which package, by path.
    diversions: Table,
    /// Owner, group and mode by path.
    overrides: Table,
    /// Which alternative is chosen and which unit enabled, as [`state_files`] holds it.
    state_files: Table,
}

/// What others than the update have changed: the tables at the end of the install, and at the beginning of the rollback.
pub struct Others {
    after: Tables,
    start: Tables,
}

impl Others {
    /// Reads the tables that `folders` have. Those at the beginning of the rollback are written once: an interrupted rollback
    /// has changed them itself. `None` where the install did not come to its end.
    ///
    /// # Errors
    /// When they cannot be read or written.
    pub fn of(folders: &Folders) -> Result<Option<Self>> {
        let Some(after) = Tables::from_file(&folders.tables_after())? else { return Ok(None) };
        let start = match Tables::from_file(&folders.tables_at_rollback())? {
            Some(start) => start,
            None => {
                let start = Tables::read()?;
                // On a full disk: without it, a change of somebody else may be taken for one of this rollback, if this is
                // interrupted.
                if let Err(error) = start.write(&folders.tables_at_rollback()) {
                    log!("rollback continues despite an error: {error:#}");
                }
                start
            }
        };
        Ok(Some(Self { after, start }))
    }

    fn have_changed(&self, table: Which, key: &str) -> bool {
        table(&self.after).get(key) != table(&self.start).get(key)
    }
}

impl Tables {
    /// Reads them.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn read() -> Result<Self> {
        let database = Database::read()?;
        let mut tables =
            Self { overrides: overrides()?, state_files: state_files::read()?, ..Self::default() };
        for (key, stanza) in database.all() {
            let state = format!("{} {}", stanza.state(), stanza.field("Version").unwrap_or_default());
            tables.states.insert(key.to_string(), state);
            tables.selections.insert(key.to_string(), stanza.want().to_owned());
        }
        for key in marks::automatic()? {
            tables.automatic.insert(key.to_string(), "automatic".to_owned());
        }
        for (from, to, package) in Diversions::read()?.all() {
            tables.diversions.insert(shown(from), format!("{} {package}", shown(to)));
        }
        Ok(tables)
    }

    /// Writes them to the file `path`, durably.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        durable::write_file(path, &serde_json::to_vec(self).context("writing dpkg's tables as JSON")?)
    }

    /// Those in the file `path`; `None` where it does not exist.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn from_file(path: &Path) -> Result<Option<Self>> {
        let reading = || format!("reading {}", path.display());
        match fs::read(path) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text).with_context(reading)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(reading),
        }
    }

    /// What is not as here in `now`, but for what `others` have changed.
    fn changed<'a>(
        &'a self,
        table: Which,
        others: Option<&Others>,
        now: &'a Self,
    ) -> impl Iterator<Item = (&'a str, Option<&'a str>, Option<&'a str>)> {
        let (before, now) = (table(self), table(now));
        let keys: BTreeSet<_> = before.keys().chain(now.keys()).collect();
        let changed = move |key: &'a String| {
            let by_others = others.is_some_and(|others| others.have_changed(table, key));
            let (was, is) = (before.get(key).map(String::as_str), now.get(key).map(String::as_str));
            (was != is && !by_others).then_some((key.as_str(), was, is))
        };
        // Collected, for `others` need not live as long as what is found.
        keys.into_iter().filter_map(changed).collect::<Vec<_>>().into_iter()
    }

    /// Restores diversions and stat overrides, which dpkg follows when it installs the former packages. `is_new` tells the
    /// files of the new version.
    ///
    /// # Errors
    /// When one cannot be restored.
    pub fn restore_paths(
        &self,
        others: Option<&Others>,
        is_new: impl Fn(&Path) -> bool,
        lock_seconds: u64,
    ) -> Result<()> {
        let now = Self::read()?;
        for (from, was, is) in self.changed(|tables| &tables.diversions, others, &now) {
            log!("rollback: restoring the diversion of {from}");
            if let Some((to, _)) = is.and_then(|is| is.rsplit_once(' ')) {
                if is_new(Path::new(from)) && durable::exists(Path::new(to))? {
                    durable::remove_file(Path::new(from))?;
                }
                let is_free = !durable::exists(Path::new(from))?;
                let rename = if is_free { "--rename" } else { "--no-rename" };
                dpkg::dpkg_tool("dpkg-divert").args([rename, "--remove", from]).run()?;
            }
            if let Some((to, package)) = was.and_then(|was| was.rsplit_once(' ')) {
                let owner = if package == ":" { ["--local", "--no-rename"] } else { ["--package", package] };
                dpkg::dpkg_tool("dpkg-divert")
                    .args(owner)
                    .args(["--no-rename", "--divert", to, "--add", from])
                    .run()?;
            }
        }
        let mut overrides = now.overrides.clone();
        let mut differs = false;
        for (path, was, _) in self.changed(|tables| &tables.overrides, others, &now) {
            log!("rollback: restoring the stat override of {path}");
            differs = true;
            match was {
                Some(was) => drop(overrides.insert(path.to_owned(), was.to_owned())),
                None => drop(overrides.remove(path)),
            }
        }
        if differs {
            let _lock = locks::take(locks::DATABASE, lock_seconds)?;
            let text: String = overrides.iter().map(|(path, how)| format!("{how} {path}\n")).collect();
            durable::rewrite_file(Path::new(OVERRIDES), text.as_bytes())?;
        }
        Ok(())
    }

    /// Restores alternatives, marks and holds.
    ///
    /// # Errors
    /// When one cannot be restored.
    pub fn restore(&self, others: Option<&Others>) -> Result<()> {
        let now = Self::read()?;
        let files: Vec<_> = self.changed(|tables| &tables.state_files, others, &now).collect();
        // What is new goes, innermost first; what was there comes back, outermost first.
        for (path, was, _) in files.iter().rev().filter(|(_, was, _)| was.is_none()) {
            state_files::restore(Path::new(path), *was)?;
        }
        for (path, was, _) in files.iter().filter(|(_, was, _)| was.is_some()) {
            state_files::restore(Path::new(path), *was)?;
        }
        let is_there = |name: &str| now.states.get(name).is_some_and(|state| state.starts_with("installed"));
        let marks: Vec<_> = self
            .changed(|tables| &tables.automatic, others, &now)
            .filter(|(name, ..)| is_there(name))
            .map(|(name, was, _)| (Key::of_apt(name), was.is_some()))
            .collect();
        marks::set(marks.iter().map(|(key, automatic)| (key, *automatic)))?;
        let selections = self.changed(|tables| &tables.selections, others, &now);
        let selections: String = selections
            .filter_map(|(name, was, is)| is.and(was).map(|was| format!("{name} {was}\n")))
            .collect();
        if !selections.is_empty() {
            dpkg::dpkg().arg("--set-selections").feed(&mut selections.as_bytes())?;
        }
        Ok(())
    }

    /// What the rollback has not restored, one line each. What others have changed since the install is logged and does not
    /// count.
    ///
    /// # Errors
    /// When the tables of now cannot be read.
    pub fn differences(&self, others: Option<&Others>) -> Result<Vec<String>> {
        let now = Self::read()?;
        let tables: [(&str, Which); 6] = [
            ("package", |tables| &tables.states),
            ("selection of package", |tables| &tables.selections),
            ("mark of package", |tables| &tables.automatic),
            ("diversion of", |tables| &tables.diversions),
            ("stat override of", |tables| &tables.overrides),
            ("alternative or unit", |tables| &tables.state_files),
        ];
        let mut differences = Vec::new();
        for (what, table) in tables {
            let of_update: Vec<_> = self.changed(table, others, &now).collect();
            for (key, was, is) in &of_update {
                let text = |value: &Option<&str>| {
                    value.map_or("none".to_owned(), |value| {
                        format!("{:?}", value.chars().take(SHOWN).collect::<String>())
                    })
                };
                differences.push(format!("{what} {key}: {} instead of {}", text(is), text(was)));
            }
            for (key, ..) in self.changed(table, None, &now) {
                if !of_update.iter().any(|(other, ..)| *other == key) {
                    log!("{what} {key}: changed by somebody else since the install, and left so");
                }
            }
        }
        Ok(differences)
    }
}

fn overrides() -> Result<Table> {
    let text = match fs::read_to_string(OVERRIDES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        text => text.with_context(|| format!("reading {OVERRIDES}"))?,
    };
    // Owner, group, mode, and a path that may have spaces.
    let fields = text.lines().filter_map(|line| {
        let (at, _) = line.match_indices(' ').nth(2)?;
        Some((line[at + 1..].to_owned(), line[..at].to_owned()))
    });
    Ok(fields.collect())
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
