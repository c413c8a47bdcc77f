//! A device's settings: `/etc/mender-modules/<module>.toml`.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use toml::Table;

use crate::guard::TABLES;

/// The folder of all modules' settings.
const FOLDER: &str = "/etc/mender-modules";

/// Names another folder than `/etc/mender-modules`: for tests, which must not touch the machine they run on.
const FOLDER_VARIABLE: &str = "MENDER_MODULES_SETTINGS";

/// The settings of module `name` itself; all defaults where the file does not exist. The tables `units` and `health`,
/// which every module's settings may have, are left out.
///
/// # Errors
/// When the file cannot be read, is not TOML, or has a key or value that `T` does not know: a mistyped key
/// shall not be taken for a default in silence.
pub fn load<T: DeserializeOwned>(name: &str) -> Result<T> {
    of_module(&path(name))
}

/// The tables of module `name`'s settings that are common to all modules, and nothing else.
pub(crate) fn common<T: DeserializeOwned>(name: &str) -> Result<T> {
    let path = path(name);
    let mut table = read(&path)?;
    table.retain(|key, _| TABLES.contains(&key));
    understand(table, &path)
}

fn path(name: &str) -> PathBuf {
    let folder = env::var_os(FOLDER_VARIABLE).map_or_else(|| PathBuf::from(FOLDER), PathBuf::from);
    folder.join(name).with_extension("toml")
}

fn of_module<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let mut table = read(path)?;
    table.retain(|key, _| !TABLES.contains(&key));
    understand(table, path)
}

fn read(path: &Path) -> Result<Table> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("reading the settings {}", path.display())),
    };
    toml::from_str(&text).with_context(|| mistake(path))
}

fn understand<T: DeserializeOwned>(table: Table, path: &Path) -> Result<T> {
    table.try_into().with_context(|| mistake(path))
}

fn mistake(path: &Path) -> String {
    format!("{} has a mistake: mend it and install again", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, serde::Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Example {
        dest_dir: PathBuf,
    }

    #[test]
    fn a_missing_file_means_defaults_and_a_mistake_names_file_and_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("example.toml");
        assert_eq!(of_module::<Example>(&path).unwrap(), Example::default());
        fs::write(&path, "dest_dir = \"/srv\"\n").unwrap();
        assert_eq!(of_module::<Example>(&path).unwrap(), Example { dest_dir: "/srv".into() });
        fs::write(&path, "dest_dir = \"/srv\"\n[units]\nstop = []\n").unwrap();
        assert_eq!(of_module::<Example>(&path).unwrap(), Example { dest_dir: "/srv".into() });
        fs::write(&path, "dest-dir = \"/srv\"\n").unwrap();
        let error = format!("{:#}", of_module::<Example>(&path).unwrap_err());
        assert!(error.contains("example.toml") && error.contains("dest-dir"), "{error}");
    }
}
