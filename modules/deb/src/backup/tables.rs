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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_device::{error, installed, on_device, write, write_status};

    /// Writes a device with a value in each table.
    fn make_device() {
        write_status(&[&installed("a", "1"), &installed("b", "1").replace("install ok installed", "hold ok unpacked")]);
        write("/var/lib/apt/extended_states", "Package: a\nArchitecture: all\nAuto-Installed: 1\n");
        write("/var/lib/dpkg/diversions", b"/srv/\xe9\n/srv/x y.distrib\nb\n");
        write(STAT_OVERRIDES, "root root 4755 /srv/x y\nbroken line\n");
        write("/etc/rc2.d/S01x", "");
    }

    fn table(entries: &[(&str, &str)]) -> Table {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_tables_of_the_device_are_read() {
        on_device(|| {
            make_device();
            let tables = Tables::read().unwrap();
            assert_eq!(tables.states, table(&[("a", "installed 1"), ("b", "unpacked 1")]));
            assert_eq!(tables.selections, table(&[("a", "install"), ("b", "hold")]));
            assert_eq!(tables.unfinished, BTreeSet::from(["b".to_owned()]));
            assert_eq!(tables.automatic, table(&[("a", "automatic")]));
            assert_eq!(tables.diversions, table(&[("not UTF-8: /srv/é", "/srv/x y.distrib b")]));
            assert_eq!(tables.overrides, table(&[("/srv/x y", "root root 4755")]));
            assert_eq!(tables.state_files.keys().collect::<Vec<_>>(), ["/etc/rc2.d/S01x"]);
        });
    }

    #[test]
    fn no_file_of_stat_overrides_is_an_empty_table() {
        on_device(|| {
            assert!(stat_overrides().unwrap().is_empty());
            fs::create_dir(STAT_OVERRIDES).unwrap();
            assert!(error(stat_overrides()).contains(STAT_OVERRIDES));
        });
    }

    #[test]
    fn tables_are_read_as_they_were_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tables");
        let read = || Tables::from_file(&path);
        assert!(read().unwrap().is_none());
        let tables = Tables { states: table(&[("a", "installed 1")]), ..Tables::default() };
        tables.write(&path).unwrap();
        assert!(read().unwrap().unwrap() == tables);
        let damaged = [fs::write(&path, "{"), fs::remove_file(&path).and_then(|()| fs::create_dir(&path))];
        damaged.into_iter().for_each(|made| made.unwrap());
        assert!(error(read()).contains("tables failed"));
    }

    #[test]
    fn changes_are_new_changed_and_removed_keys() {
        let tables = |states| Tables { states, ..Tables::default() };
        let before = tables(table(&[("changed", "1"), ("gone", "1"), ("same", "1")]));
        let now = tables(table(&[("changed", "2"), ("new", "1"), ("same", "1")]));
        let changes = before.changes(|tables| &tables.states, &now);
        let found: Vec<_> = changes.map(|Change { key, before, now }| (key, before, now)).collect();
        assert_eq!(found, [("changed", Some("1"), Some("2")), ("gone", Some("1"), None), ("new", None, Some("1"))]);
        assert_eq!(before.changes(|tables| &tables.overrides, &now).count(), 0);
    }
}
