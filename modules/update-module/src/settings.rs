//! A device's settings: `/etc/mender-modules/<module>.toml`.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;

/// The folder of all modules' settings.
const FOLDER: &str = "/etc/mender-modules";

/// Names another folder than `/etc/mender-modules`: for tests, which must not touch the machine they run on.
const FOLDER_VARIABLE: &str = "MENDER_MODULES_SETTINGS";

/// The settings of module `name`; all defaults where the file does not exist.
///
/// # Errors
/// When the file cannot be read, is not TOML, or has a key or value that `T` does not know: a mistyped key
/// shall not be taken for a default in silence.
pub fn load<T: DeserializeOwned>(name: &str) -> Result<T> {
    let folder = env::var_os(FOLDER_VARIABLE).map_or_else(|| PathBuf::from(FOLDER), PathBuf::from);
    read(&folder.join(name).with_extension("toml"))
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("reading the settings {}", path.display())),
    };
    toml::from_str(&text)
        .with_context(|| format!("{} has a mistake: mend it and install again", path.display()))
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
    fn a_missing_file_means_defaults_and_a_mistake_names_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("example.toml");
        assert_eq!(read::<Example>(&path).unwrap(), Example::default());
        fs::write(&path, "dest_dir = \"/srv\"\n").unwrap();
        assert_eq!(read::<Example>(&path).unwrap(), Example { dest_dir: "/srv".into() });
        fs::write(&path, "dest-dir = \"/srv\"\n").unwrap();
        let error = format!("{:#}", read::<Example>(&path).unwrap_err());
        assert!(error.contains("example.toml") && error.contains("dest-dir"), "{error}");
    }
}
