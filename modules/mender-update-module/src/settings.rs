//! A device's settings: `/etc/mender-modules/<module>.toml`.

use std::env;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Table;

use crate::durable::require_trusted;
use crate::guard::{Guard, TABLES};

/// The most bytes that a settings file may have.
const SETTINGS_MAX: u64 = 1 << 20;

/// The directory of all modules' settings.
const DIRECTORY: &str = "/etc/mender-modules";

/// Names another directory than `/etc/mender-modules`: for tests, which must not touch the machine they run on.
const DIRECTORY_VARIABLE: &str = "MENDER_MODULES_SETTINGS";

/// The key of every module's settings that says where the client keeps its data, where that is not where it is looked for.
const DATASTORE: &str = "datastore";

/// The settings of module `name` itself; all defaults where the file does not exist. The tables `units` and `health`,
/// and the key `datastore`, which every module's settings may have, are left out.
///
/// # Errors
/// When the file cannot be read, is not TOML, or has a key or value that `T` does not know: a mistyped key
/// shall not be taken for a default in silence.
pub fn load<T: DeserializeOwned>(name: &str) -> Result<T> {
    of_module(&path(name))
}

/// For a module that has no settings of its own.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

/// Checks the settings file `path`, which has to exist: the keys of `T`, and what every module's settings may have.
///
/// # Errors
/// When it cannot be read or has a mistake.
pub fn check<T: DeserializeOwned>(path: &Path) -> Result<()> {
    ensure!(path.exists(), "reading the settings {}: no such file", path.display());
    of_module::<T>(path)?;
    datastore_in(path)?;
    let mut table = read(path)?;
    table.retain(|key, _| TABLES.contains(&key));
    understand::<Guard>(table, path)?.check().with_context(|| mistake(path))
}

/// Refuses the tables that have no meaning to module `name`.
pub(crate) fn refuse_tables(name: &str) -> Result<()> {
    let path = path(name);
    let table = read(&path)?;
    let found = TABLES.iter().find(|key| table.contains_key(**key));
    ensure!(
        found.is_none(),
        "{}: table {}: this module does not support it: remove it",
        mistake(&path),
        found.copied().unwrap_or_default()
    );
    Ok(())
}

/// Where module `name`'s settings say that the client keeps its data.
pub(crate) fn datastore(name: &str) -> Result<Option<PathBuf>> {
    datastore_in(&path(name))
}

fn datastore_in(path: &Path) -> Result<Option<PathBuf>> {
    let mut table = read(path)?;
    let datastore: Option<PathBuf> =
        table.remove(DATASTORE).map(toml::Value::try_into).transpose().with_context(|| mistake(path))?;
    if let Some(datastore) = &datastore {
        ensure!(
            datastore.is_absolute(),
            "{}: datastore = {datastore:?}: not an absolute path",
            mistake(path)
        );
    }
    Ok(datastore)
}

/// The tables of module `name`'s settings that are common to all modules, and nothing else.
pub(crate) fn common<T: DeserializeOwned>(name: &str) -> Result<T> {
    let path = path(name);
    let mut table = read(&path)?;
    table.retain(|key, _| TABLES.contains(&key));
    understand(table, &path)
}

/// The directory of all modules' settings.
pub(crate) fn directory() -> PathBuf {
    env::var_os(DIRECTORY_VARIABLE).map_or_else(|| PathBuf::from(DIRECTORY), PathBuf::from)
}

/// The settings file of module `name`.
pub(crate) fn path(name: &str) -> PathBuf {
    directory().join(name).with_extension("toml")
}

fn of_module<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let mut table = read(path)?;
    table.retain(|key, _| !TABLES.contains(&key) && key != DATASTORE);
    let understood = table.try_into::<T>();
    understood.map_err(|error| with_common_keys(error, path))
}

/// A mistyped `units` or `health` is unknown to the module: its own keys are not all that there are.
fn with_common_keys(error: toml::de::Error, path: &Path) -> anyhow::Error {
    let more = if error.message().contains("unknown field") {
        format!(
            "; every module also has the key `{DATASTORE}`, and one that supports them the tables `units` and `health`"
        )
    } else {
        String::new()
    };
    anyhow!("{}: {}{more}", mistake(path), error.to_string().trim_end())
}

fn read(path: &Path) -> Result<Table> {
    let reading = || format!("reading the settings {}", path.display());
    // Whoever may change them, or put others into their place, decides what root does.
    let trusted = require_trusted(path).with_context(reading)?;
    let file = match File::open(&trusted) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Table::new()),
        Err(error) => return Err(error).with_context(reading),
    };
    ensure!(
        file.metadata().with_context(reading)?.is_file(),
        "{}: {} is not a regular file",
        reading(),
        trusted.display()
    );
    let mut text = String::new();
    file.take(SETTINGS_MAX + 1).read_to_string(&mut text).with_context(reading)?;
    ensure!(text.len() as u64 <= SETTINGS_MAX, "{}: more than {SETTINGS_MAX} bytes", reading());
    toml::from_str(&text).with_context(|| mistake(path))
}

fn understand<T: DeserializeOwned>(table: Table, path: &Path) -> Result<T> {
    table.try_into().with_context(|| mistake(path))
}

fn mistake(path: &Path) -> String {
    format!("invalid settings in {}", path.display())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[derive(Debug, Default, serde::Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Example {
        dest_dir: PathBuf,
    }

    #[test]
    fn a_missing_file_means_defaults_and_a_mistake_names_file_and_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("example.toml");
        assert_eq!(of_module::<Example>(&path).unwrap(), Example::default());
        fs::write(&path, "dest_dir = \"/srv\"\n").unwrap();
        assert_eq!(of_module::<Example>(&path).unwrap(), Example { dest_dir: "/srv".into() });
        fs::write(&path, "dest_dir = \"/srv\"\n[units]\nstop = []\n").unwrap();
        assert_eq!(of_module::<Example>(&path).unwrap(), Example { dest_dir: "/srv".into() });
        fs::write(&path, "dest-dir = \"/srv\"\n").unwrap();
        let error = format!("{:#}", of_module::<Example>(&path).unwrap_err());
        assert!(error.contains("example.toml") && error.contains("dest-dir"), "{error}");
        assert!(error.contains("`units` and `health`"), "{error}");
    }

    #[test]
    fn settings_that_others_may_change_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/example.toml");
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(&path, "dest_dir = \"/srv\"\n").unwrap();
        for open in [&*path, path.parent().unwrap()] {
            let before = fs::metadata(open).unwrap().permissions();
            fs::set_permissions(open, fs::Permissions::from_mode(0o777)).unwrap();
            let error = format!("{:#}", of_module::<Example>(&path).unwrap_err());
            assert!(error.contains("not trusted") && error.contains(open.to_str().unwrap()), "{error}");
            fs::set_permissions(open, before).unwrap();
        }
        of_module::<Example>(&path).unwrap();
    }
}
