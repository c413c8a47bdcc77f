//! The tables that dpkg, apt and their helpers keep for the whole device. Maintainer scripts change them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};
use mender_update_module::durable;
use serde::{Deserialize, Serialize};

use crate::apt::mark;
use crate::backup::{state_files, table_text};
use crate::dpkg::database::Database;
use crate::dpkg::diversions::Diversions;

/// dpkg's file of stat overrides.
pub const STAT_OVERRIDES: &str = "/var/lib/dpkg/statoverride";

pub type Table = BTreeMap<String, String>;

/// Selects one of the tables.
pub type Select = fn(&Tables) -> &Table;

/// All tables at one point in time.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tables {
    /// State and version by package.
    pub states: Table,
    /// The packages that dpkg has not finished installing or removing. The file does not have them.
    #[serde(skip)]
    pub unfinished: BTreeSet<String>,
    /// The selection by package: `install`, `hold`.
    pub selections: Table,
    /// The packages that are marked as installed automatically.
    pub automatic: Table,
    /// Target and owner of the diversion by path.
    pub diversions: Table,
    /// Owner, group and mode of the stat override by path.
    pub overrides: Table,
    /// Alternatives and enabled units, as [`state_files`] has them.
    pub state_files: Table,
}

/// One key whose value has changed.
#[derive(Clone, Copy)]
pub struct Change<'a> {
    pub key: &'a str,
    pub before: Option<&'a str>,
    pub now: Option<&'a str>,
}

impl Tables {
    /// Reads the tables of the device.
    pub fn read() -> Result<Self> {
        let database = Database::read()?;
        let mut tables = Self { overrides: stat_overrides()?, state_files: state_files::read()?, ..Self::default() };
        for (key, stanza) in database.all() {
            let state = format!("{} {}", stanza.state(), stanza.field("Version").unwrap_or_default());
            tables.states.insert(key.to_string(), state);
            tables.selections.insert(key.to_string(), stanza.selection().to_owned());
            if !stanza.is_finished() {
                tables.unfinished.insert(key.to_string());
            }
        }
        for key in mark::automatic(&database)? {
            tables.automatic.insert(key.to_string(), "automatic".to_owned());
        }
        for diversion in Diversions::read()?.all() {
            let (from, to) = (diversion.from.as_os_str().as_bytes(), diversion.to.as_os_str().as_bytes());
            let target = table_text::from_bytes(&[to, b" ", diversion.owner.as_bytes()].concat());
            tables.diversions.insert(table_text::from_bytes(from), target);
        }
        Ok(tables)
    }

    /// Writes the tables to the file `path`, durably.
    pub fn write(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_vec(self).with_context(|| format!("writing {} failed", path.display()))?;
        durable::write_file(path, &json)
    }

    /// Reads the tables from the file `path`; `None` where it does not exist.
    pub fn from_file(path: &Path) -> Result<Option<Self>> {
        let reading = || format!("reading {} failed", path.display());
        match fs::read(path) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text).with_context(reading)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(reading),
        }
    }

    /// The changes from this table to the one of `now`.
    pub fn changes<'a>(&'a self, select: Select, now: &'a Self) -> impl Iterator<Item = Change<'a>> {
        let (before, now) = (select(self), select(now));
        let keys: BTreeSet<_> = before.keys().chain(now.keys()).collect();
        let change = |key: &'a String| Change {
            key,
            before: before.get(key).map(String::as_str),
            now: now.get(key).map(String::as_str),
        };
        keys.into_iter().map(change).filter(|change| change.before != change.now)
    }
}

fn stat_overrides() -> Result<Table> {
    let text = match fs::read(STAT_OVERRIDES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        text => text.with_context(|| format!("reading {STAT_OVERRIDES} failed"))?,
    };
    // Owner, group, mode, and a path that may contain spaces.
    let fields = text.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut spaces = line.iter().enumerate().filter(|(_, byte)| **byte == b' ');
        let (at, _) = spaces.nth(2)?;
        Some((table_text::from_bytes(&line[at + 1..]), table_text::from_bytes(&line[..at])))
    });
    Ok(fields.collect())
}
