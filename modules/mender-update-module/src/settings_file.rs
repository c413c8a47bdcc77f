//! Reading a settings file, and the parts of it that are common to all modules.

use std::env;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use toml::Table;

use crate::durable::require_trusted;
use crate::log;

/// The most bytes that a settings file may have.
const SETTINGS_MAX: u64 = 1 << 20;

/// The directory of all modules' settings.
const DIRECTORY: &str = "/etc/mender-modules";

/// Names another directory than `/etc/mender-modules`: for tests, which must not touch the machine they run on.
pub(crate) const DIRECTORY_VARIABLE: &str = "MENDER_MODULES_SETTINGS";

/// The tables that are common to all modules.
pub(crate) const COMMON_TABLES: [&str; 2] = ["units", "health"];

/// The key of every module's settings that names the directory of the client's data.
pub(crate) const DATASTORE: &str = "datastore";

/// The directory of all modules' settings.
pub(crate) fn directory() -> PathBuf {
    env::var_os(DIRECTORY_VARIABLE).map_or_else(|| PathBuf::from(DIRECTORY), PathBuf::from)
}

/// The settings file of module `name`.
pub(crate) fn path(name: &str) -> PathBuf {
    directory().join(name).with_extension("toml")
}

/// The tables of module `name`'s settings that are common to all modules, and nothing else.
pub(crate) fn common<T: DeserializeOwned>(name: &str) -> Result<T> {
    let path = path(name);
    let mut table = read(&path)?;
    table.retain(|key, _| COMMON_TABLES.contains(&key));
    understand(table, &path)
}

/// Refuses the tables that have no meaning to module `name`.
pub(crate) fn refuse_tables(name: &str) -> Result<()> {
    let path = path(name);
    let table = read(&path)?;
    let found = COMMON_TABLES.iter().find(|key| table.contains_key(**key));
    ensure!(
        found.is_none(),
        "{}: table {}: this module does not support it: remove it",
        mistake(&path),
        found.copied().unwrap_or_default()
    );
    Ok(())
}

/// The directory of the client's data, as module `name`'s settings name it.
pub(crate) fn datastore(name: &str) -> Result<Option<PathBuf>> {
    let path = path(name);
    datastore_of(&mut read(&path)?, &path)
}

/// The same, taken out of the content `table` of the settings file `path`.
pub(crate) fn datastore_of(table: &mut Table, path: &Path) -> Result<Option<PathBuf>> {
    let datastore: Option<PathBuf> =
        table.remove(DATASTORE).map(toml::Value::try_into).transpose().with_context(|| mistake(path))?;
    if let Some(datastore) = &datastore {
        ensure!(datastore.is_absolute(), "{}: datastore = {datastore:?}: not an absolute path", mistake(path));
    }
    Ok(datastore)
}

/// The same for the recovery at boot; `None`, with a log line, if the file is not TOML, or the value is wrong.
///
/// # Errors
/// When the file cannot be read, or is not trusted.
pub(crate) fn datastore_at_boot(name: &str) -> Result<Option<PathBuf>> {
    let path = path(name);
    let Some(content) = content(&path)? else { return Ok(None) };
    let found = table_of(&content, &path).and_then(|mut table| datastore_of(&mut table, &path));
    Ok(found.unwrap_or_else(|error| {
        log!("recovering without the key datastore: {error:#}");
        None
    }))
}

/// The value of `key` in the settings file `path`; `None` without the file or the key, and for a mistake in either.
///
/// # Errors
/// When the file cannot be read, or is not trusted.
pub(crate) fn value_at_boot<T: DeserializeOwned>(path: &Path, key: &str) -> Result<Option<T>> {
    let table = content(path)?.and_then(|content| table_of(&content, path).ok());
    Ok(table.and_then(|mut table| table.remove(key)?.try_into().ok()))
}

/// The settings in `path`; an empty table where the file does not exist.
pub(crate) fn read(path: &Path) -> Result<Table> {
    content(path)?.map_or_else(|| Ok(Table::new()), |content| table_of(&content, path))
}

/// The content of `path`, up to the limit and one byte; `None` where the file does not exist.
fn content(path: &Path) -> Result<Option<Vec<u8>>> {
    let reading = || reading(path);
    // A user who may change or replace the file would control what root does.
    let trusted = require_trusted(path).with_context(reading)?;
    let file = match File::open(&trusted) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(reading),
    };
    ensure!(
        file.metadata().with_context(reading)?.is_file(),
        "{}: {} is not a regular file",
        reading(),
        trusted.display()
    );
    let mut content = Vec::new();
    file.take(SETTINGS_MAX + 1).read_to_end(&mut content).with_context(reading)?;
    Ok(Some(content))
}

fn table_of(content: &[u8], path: &Path) -> Result<Table> {
    ensure!(content.len() as u64 <= SETTINGS_MAX, "{}: more than {SETTINGS_MAX} bytes", reading(path));
    parse(std::str::from_utf8(content).with_context(|| reading(path))?, path)
}

/// The beginning of every error about reading `path`.
fn reading(path: &Path) -> String {
    format!("reading the settings {} failed", path.display())
}

/// The tables and keys in `text`, the content of the settings file `path`.
pub(crate) fn parse(text: &str, path: &Path) -> Result<Table> {
    toml::from_str(text).with_context(|| mistake(path))
}

pub(crate) fn understand<T: DeserializeOwned>(table: Table, path: &Path) -> Result<T> {
    table.try_into().with_context(|| mistake(path))
}

/// The beginning of every error about a value in `path`.
pub(crate) fn mistake(path: &Path) -> String {
    format!("invalid settings in {}", path.display())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;
    use crate::test_support::log_of;

    /// Runs `body` of the test `name` in a process of its own, with the `content` of the settings of the module
    /// `example`. Returns the log of that process.
    fn with_settings(name: &str, content: &str, body: impl FnOnce()) -> Option<String> {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("example.toml"), content).unwrap();
        let prepare = |command: &mut Command| {
            command.env(DIRECTORY_VARIABLE, directory.path());
        };
        log_of(name, prepare, body)
    }

    #[test]
    fn the_settings_of_a_module_are_in_the_directory_of_all_settings() {
        if env::var_os(DIRECTORY_VARIABLE).is_none() {
            assert_eq!(path("example"), Path::new("/etc/mender-modules/example.toml"));
        }
        with_settings(
            "settings_file::tests::the_settings_of_a_module_are_in_the_directory_of_all_settings",
            "",
            || {
                let directory = PathBuf::from(env::var_os(DIRECTORY_VARIABLE).unwrap());
                assert_eq!((directory.join("example.toml"), directory), (path("example"), super::directory()));
            },
        );
    }

    #[test]
    fn common_tables_are_read_and_refused_by_a_module_without_them() {
        with_settings(
            "settings_file::tests::common_tables_are_read_and_refused_by_a_module_without_them",
            "own = 1\n[health]\ntcp = \"a:1\"\n[units]\nstop = []\n",
            || {
                let tables: Table = common("example").unwrap();
                assert_eq!(tables.keys().collect::<Vec<_>>(), ["health", "units"]);
                let error = format!("{:#}", refuse_tables("example").unwrap_err());
                assert!(error.contains("example.toml") && error.contains("table units"), "{error}");
                refuse_tables("other").unwrap();
            },
        );
    }

    #[test]
    fn the_datastore_is_an_absolute_path() {
        const NAME: &str = "settings_file::tests::the_datastore_is_an_absolute_path";
        with_settings(NAME, "datastore = \"/data/mender\"\n", || {
            for read in [datastore, datastore_at_boot] {
                let path = path("example");
                let content = fs::read(&path).unwrap();
                assert_eq!(read("example").unwrap().as_deref(), Some(Path::new("/data/mender")));
                assert_eq!(read("other").unwrap(), None);
                fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
                assert!(format!("{:#}", read("example").unwrap_err()).contains("not trusted"));
                fs::remove_file(&path).unwrap();
                fs::write(&path, content).unwrap();
            }
        });
    }

    #[test]
    fn a_wrong_datastore_is_refused_and_at_boot_logged() {
        const NAME: &str = "settings_file::tests::a_wrong_datastore_is_refused_and_at_boot_logged";
        for wrong in ["datastore = \"data\"\n", "datastore = 8\n", "datastore =\n"] {
            let log = with_settings(NAME, wrong, || {
                assert!(format!("{:#}", datastore("example").unwrap_err()).contains("example.toml"));
                assert_eq!(datastore_at_boot("example").unwrap(), None);
            });
            let Some(log) = log else { return };
            assert!(log.contains("recovering without the key datastore") && log.contains("example.toml"), "{log}");
        }
    }

    #[test]
    fn a_file_that_is_too_large_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("example.toml");
        fs::write(&path, "#".repeat(SETTINGS_MAX as usize)).unwrap();
        assert_eq!(read(&path).unwrap(), Table::new());
        fs::write(&path, "#".repeat(SETTINGS_MAX as usize + 1)).unwrap();
        let error = format!("{:#}", read(&path).unwrap_err());
        assert!(error.contains("example.toml") && error.contains("more than"), "{error}");
    }
}
