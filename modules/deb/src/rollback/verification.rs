//! The verification at the end of a rollback: compares paths, tables and dpkg's database with the backup.
//! Changes nothing.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use mender_update_module::log;

use crate::backup::tables::{Change, Select, Tables};
use crate::dpkg::database::Database;
use crate::rollback::comparison::compare;
use crate::rollback::source::Source;
use crate::rollback::table_changes::TableChanges;

/// How many differences the message lists.
const LISTED_MAX: usize = 20;

/// How many characters of a value the message shows.
const SHOWN_MAX: usize = 80;

/// Compares everything with the backup.
///
/// # Errors
/// The list of differences. Changes of other programs are only logged.
pub fn verify(source: &Source) -> Result<()> {
    let (Some(recorded), Some(tables)) = (&source.record, &source.tables) else {
        log!(
            "rollback finished without verification: the version of this module that began the update kept \
             no record to compare with"
        );
        return Ok(());
    };
    let compared = compare(&recorded.record)?;
    for path in &compared.not_empty {
        log!("rollback: {} is not empty, and stays: remove it if it is not needed", path.display());
    }
    let of_paths = compared.differences.iter();
    let mut differences: Vec<_> =
        of_paths.map(|(path, difference)| format!("{}: {difference}", path.display())).collect();
    differences.extend(table_differences(tables)?);
    differences.extend(package_differences(source)?);
    if !differences.is_empty() {
        return fail(source, &differences);
    }
    log!(
        "rollback complete: all {} packages restored, {} paths verified",
        source.backup.packages.len(),
        compared.compared
    );
    Ok(())
}

fn fail(source: &Source, differences: &[String]) -> Result<()> {
    let listed = differences[..differences.len().min(LISTED_MAX)].join("; ");
    let more = differences.len().saturating_sub(LISTED_MAX);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    bail!(
        "{} differences: {listed}{more}: repair them and roll back again, or remove {} \
         to accept them",
        differences.len(),
        source.journal().display()
    )
}

fn package_differences(source: &Source) -> Result<Vec<String>> {
    let database = Database::read()?;
    let stanzas: BTreeMap<_, _> = database.all().collect();
    let differs =
        source.backup.packages.iter().filter(|package| stanzas.get(&package.key).copied() != package.any_stanza());
    Ok(differs.map(|package| format!("package {}: its entry in dpkg's database differs", package.key)).collect())
}

/// What the rollback has not restored in the tables. Logs changes of other programs.
fn table_differences(changes: &TableChanges) -> Result<Vec<String>> {
    let now = Tables::read()?;
    let tables: [(&str, Select); 6] = [
        ("package", |tables| &tables.states),
        ("selection of package", |tables| &tables.selections),
        ("mark of package", |tables| &tables.automatic),
        ("diversion of", |tables| &tables.diversions),
        ("stat override of", |tables| &tables.overrides),
        ("alternative or unit", |tables| &tables.state_files),
    ];
    let mut differences = Vec::new();
    for (name, table) in tables {
        for Change { key, before, now } in changes.of_update(table, &now) {
            differences.push(format!("{name} {key}: {} instead of {}", shown(now), shown(before)));
        }
        for change in changes.of_others(table, &now) {
            log!("rollback: {name} {}: changed by another program, and stays", change.key);
        }
    }
    Ok(differences)
}

fn shown(value: Option<&str>) -> String {
    let start = |value: &str| format!("{:?}", value.chars().take(SHOWN_MAX).collect::<String>());
    value.map_or("none".to_owned(), start)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use mender_update_module_test::debian::Package;

    use super::*;
    use crate::payload::deb::Kind;
    use crate::test_device::{back_up, error, install, on_device, source, staged, text, write};

    #[test]
    fn every_difference_is_listed() {
        on_device(|| {
            install(&[Package::new("a", "1").file("/srv/a", "1"), Package::new("z", "1")]);
            let backup = back_up(&[staged("a", "", &[("/srv/new", Kind::File)]), staged("n", "", &[])], &[]);
            verify(&source(&backup)).unwrap();
            write("/srv/new", "");
            write("/etc/rc2.d/S01x", "");
            let status = text("/var/lib/dpkg/status");
            write("/var/lib/dpkg/status", status.replacen("install ok", "hold ok", 1));
            let error = error(verify(&source(&backup)));
            let expected = [
                "4 differences",
                "/srv/new: file instead of absent",
                "selection of package a: \"hold\" instead of \"install\"",
                "alternative or unit /etc/rc2.d/S01x: \"file",
                "package a: its entry in dpkg's database differs",
                "/var/data/journal.json",
            ];
            assert!(expected.iter().all(|text| error.contains(text)), "{error}");
            fs::remove_file("/var/data/old/record").unwrap();
            verify(&source(&backup)).unwrap();
        });
    }

    #[test]
    fn the_message_has_a_bounded_length() {
        on_device(|| {
            let backup = back_up(&[], &[]);
            let source = source(&backup);
            let message = |number| error(fail(&source, &vec!["x".to_owned(); number]));
            assert!(message(LISTED_MAX).starts_with("20 differences: x; ") && !message(LISTED_MAX).contains("more"));
            assert!(message(LISTED_MAX + 2).contains("; and 2 more: "));
            assert_eq!(message(LISTED_MAX + 2).matches("x;").count(), 20);
        });
        assert_eq!((shown(None), shown(Some(&"é".repeat(100)))), ("none".into(), format!("{:?}", "é".repeat(80))));
    }
}
