//! The changes of the tables of dpkg and apt since the backup, without those of other programs.

use std::collections::BTreeSet;

use anyhow::Result;
use mender_update_module::log;

use crate::backup::contents::Backup;
use crate::backup::directory::BackupDirectory;
use crate::backup::tables::{Change, Select, Tables};

/// The tables at the points in time that tell changes of this update from changes of other programs.
pub struct TableChanges {
    before: Tables,
    /// `None` where the install was interrupted: changes at that time do not tell which program made them.
    others: Option<OtherPrograms>,
    /// The packages that the update may have changed.
    packages: BTreeSet<String>,
}

/// The tables between which other programs have changed something.
struct OtherPrograms {
    after_install: Tables,
    at_rollback: Tables,
}

impl TableChanges {
    /// Reads the tables in the directory of `backup`; `None` if a version without them began the update.
    pub fn read(backup: &Backup, directory: &BackupDirectory) -> Result<Option<Self>> {
        let Some(before) = Tables::from_file(&directory.tables_before())? else { return Ok(None) };
        let packages = backup.packages.iter().map(|package| package.key.to_string()).collect();
        Ok(Some(Self { before, others: OtherPrograms::read(directory)?, packages }))
    }

    /// The changes of the update from the backup to `now`.
    pub fn of_update<'a>(&'a self, select: Select, now: &'a Tables) -> Vec<Change<'a>> {
        let changes = self.before.changes(select, now);
        changes.filter(|change| !self.is_of_others(select, change.key, now)).collect()
    }

    /// The changes of other programs from the backup to `now`.
    pub fn of_others<'a>(&'a self, select: Select, now: &'a Tables) -> Vec<Change<'a>> {
        let changes = self.before.changes(select, now);
        changes.filter(|change| self.is_of_others(select, change.key, now)).collect()
    }

    fn is_of_others(&self, select: Select, key: &str, now: &Tables) -> bool {
        self.others.as_ref().is_some_and(|others| others.have_changed(select, key))
            || self.have_others_changed_package(key, now)
    }

    /// Whether `key` is a package that another program has installed or upgraded, at any time since the backup: its
    /// selection and its mark belong to that program, too. An unfinished package needs a repair, also if another
    /// program has begun to change it. A package that is gone may be one that apt or dpkg has removed for the update.
    fn have_others_changed_package(&self, key: &str, now: &Tables) -> bool {
        let is_installed =
            |tables: &Tables| tables.states.get(key).is_some_and(|state| state.starts_with("installed "));
        let is_changed = self.before.states.get(key) != now.states.get(key);
        let is_gone = is_installed(&self.before) && !is_installed(now);
        is_changed && !is_gone && !self.packages.contains(key) && !now.unfinished.contains(key)
    }
}

impl OtherPrograms {
    /// Reads the tables after the install and at the beginning of the rollback. The latter are written once,
    /// because an interrupted rollback has already changed tables itself.
    fn read(directory: &BackupDirectory) -> Result<Option<Self>> {
        let Some(after_install) = Tables::from_file(&directory.tables_after())? else { return Ok(None) };
        if let Some(at_rollback) = Tables::from_file(&directory.tables_at_rollback())? {
            return Ok(Some(Self { after_install, at_rollback }));
        }
        let at_rollback = Tables::read()?;
        // Without the file, as on a full file system, a repeated rollback may take a change of another
        // program for its own.
        if let Err(error) = at_rollback.write(&directory.tables_at_rollback()) {
            log!("rollback continues despite an error: {error:#}");
        }
        Ok(Some(Self { after_install, at_rollback }))
    }

    fn have_changed(&self, select: Select, key: &str) -> bool {
        select(&self.after_install).get(key) != select(&self.at_rollback).get(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_device::{back_up, backup_directory, installed, on_device, staged, write_status};

    const SELECT: Select = |tables| &tables.selections;

    fn tables(states: &[(&str, &str)], selections: &[(&str, &str)]) -> Tables {
        let table = |entries: &[(&str, &str)]| {
            entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        Tables { states: table(states), selections: table(selections), ..Tables::default() }
    }

    /// The keys of the changes that are of the update, and of those of other programs.
    fn split(changes: &TableChanges, now: &Tables) -> (Vec<String>, Vec<String>) {
        let keys = |changes: Vec<Change>| changes.iter().map(|change| change.key.to_owned()).collect();
        (keys(changes.of_update(SELECT, now)), keys(changes.of_others(SELECT, now)))
    }

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_changes_after_the_install_is_of_other_programs() {
        let before = tables(&[], &[("by update", "1"), ("by others", "1"), ("same", "1")]);
        let after_install = tables(&[], &[("by update", "2"), ("by others", "1"), ("same", "1")]);
        let now = tables(&[], &[("by update", "2"), ("by others", "2"), ("same", "1"), ("new", "1")]);
        let others = Some(OtherPrograms { after_install, at_rollback: now.clone() });
        let changes = TableChanges { before: before.clone(), others, packages: BTreeSet::new() };
        assert_eq!(split(&changes, &now), (owned(&["by update"]), owned(&["by others", "new"])));
        let interrupted = TableChanges { before, others: None, packages: BTreeSet::new() };
        assert_eq!(split(&interrupted, &now), (owned(&["by others", "by update", "new"]), owned(&[])));
    }

    #[test]
    fn the_selection_of_a_package_that_another_program_has_changed_is_of_that_program() {
        let installed =
            [("own", "installed 1"), ("gone", "installed 1"), ("upgraded", "installed 1"), ("broken", "x 1")];
        let names = ["own", "gone", "upgraded", "broken", "new", "same"];
        let before = tables(&installed, &names.map(|name| (name, "install")));
        let changed = [("own", "installed 2"), ("upgraded", "installed 2"), ("broken", "x 2"), ("new", "installed 1")];
        let mut now = tables(&changed, &names.map(|name| (name, "hold")));
        now.unfinished = BTreeSet::from(["broken".to_owned()]);
        let changes = TableChanges { before, others: None, packages: BTreeSet::from(["own".to_owned()]) };
        assert_eq!(split(&changes, &now), (owned(&["broken", "gone", "own", "same"]), owned(&["new", "upgraded"])));
    }

    #[test]
    fn the_tables_at_the_beginning_of_the_rollback_are_written_once() {
        on_device(|| {
            let (backup, directory) = (back_up(&[staged("a", "", &[])], &[]), backup_directory());
            let read = || TableChanges::read(&backup, &directory).unwrap();
            let changes = read().unwrap();
            assert!(changes.others.is_none() && changes.packages == BTreeSet::from(["a".to_owned()]));
            Tables::read().unwrap().write(&directory.tables_after()).unwrap();
            write_status(&[&installed("b", "1")]);
            let at_rollback = || read().unwrap().others.unwrap().at_rollback.states;
            assert_eq!(at_rollback().keys().collect::<Vec<_>>(), ["b"]);
            write_status(&[]);
            assert_eq!(at_rollback().keys().collect::<Vec<_>>(), ["b"], "read again");
            std::fs::remove_file(directory.tables_before()).unwrap();
            assert!(read().is_none());
        });
    }
}
