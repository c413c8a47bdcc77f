//! A device's settings: `/etc/mender-modules/<module>.toml`.

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Table;

use crate::guard::Guard;
use crate::settings_file::{self, COMMON_TABLES, DATASTORE, datastore_of, mistake, path, read, understand};

/// The settings of module `name` itself; all defaults where the file does not exist. The tables `units` and `health`,
/// and the key `datastore`, which every module's settings may have, are left out.
///
/// # Errors
/// When the file cannot be read, is not TOML, or has a key or value that `T` does not know: a mistyped key
/// shall not be taken for a default in silence.
pub fn load<T: DeserializeOwned>(name: &str) -> Result<T> {
    of_module(&path(name))
}

/// The value of `key` in the settings of module `name`, for [`Transactional::booted`](crate::Transactional::booted);
/// `None` for the default. A mistake in the file, which [`load`] reports, shall not keep the active version from being
/// started: a value that is no `T`, or a file that is not TOML, is taken for the default.
///
/// # Errors
/// When the file cannot be read, or is not trusted.
pub fn value_at_boot<T: DeserializeOwned>(name: &str, key: &str) -> Result<Option<T>> {
    settings_file::value_at_boot(&path(name), key)
}

/// For a module that has no settings of its own.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

/// Checks the settings file `path`, which has to exist: the keys of `T`, and what every module's settings may have.
/// Returns the settings of the module itself, for checks of their values.
///
/// # Errors
/// When it cannot be read or has a mistake.
pub fn check<T: DeserializeOwned>(path: &Path) -> Result<T> {
    ensure!(path.exists(), "reading the settings {} failed: no such file: make it, or name another", path.display());
    check_table(read(path)?, path)
}

/// Checks the content `table` of the settings file `path` as [`check`] does.
pub(crate) fn check_table<T: DeserializeOwned>(mut table: Table, path: &Path) -> Result<T> {
    let settings = own(table.clone(), path)?;
    datastore_of(&mut table, path)?;
    table.retain(|key, _| COMMON_TABLES.contains(&key));
    understand::<Guard>(table, path)?.check().with_context(|| mistake(path))?;
    Ok(settings)
}

fn of_module<T: DeserializeOwned>(path: &Path) -> Result<T> {
    own(read(path)?, path)
}

/// The settings of the module itself in `table`.
fn own<T: DeserializeOwned>(mut table: Table, path: &Path) -> Result<T> {
    table.retain(|key, _| !COMMON_TABLES.contains(&key) && key != DATASTORE);
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    use super::*;
    use crate::test_support::log_of;

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
        fs::remove_file(&path).unwrap();
        let _socket = UnixListener::bind(&path).unwrap();
        let error = format!("{:#}", of_module::<Example>(&path).unwrap_err());
        assert!(error.contains("example.toml"), "what cannot be opened is not missing: {error}");
    }

    #[test]
    fn a_mistake_does_not_keep_the_recovery_at_boot_from_reading_a_value() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("example.toml");
        let value = || settings_file::value_at_boot::<PathBuf>(&path, "dest_dir").unwrap();
        assert_eq!(value(), None);
        for (content, expected) in [
            (&b"dest_dir = \"/srv\"\n"[..], Some("/srv")),
            (b"dest-dir = 8\ndest_dir = \"/srv\"\n", Some("/srv")),
            (b"dest_dir = 8\n", None),
            (b"dest_dir =\n", None),
            (b"\xff\n", None),
        ] {
            fs::write(&path, content).unwrap();
            assert_eq!(value().as_deref(), expected.map(Path::new), "{content:?}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        let error = format!("{:#}", settings_file::value_at_boot::<PathBuf>(&path, "dest_dir").unwrap_err());
        assert!(error.contains("not trusted"), "{error}");
    }

    #[test]
    fn a_value_at_boot_is_that_of_the_settings_of_the_module() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("example.toml"), "dest_dir = \"/srv\"\n").unwrap();
        log_of(
            "settings::tests::a_value_at_boot_is_that_of_the_settings_of_the_module",
            |command| {
                command.env("MENDER_MODULES_SETTINGS", directory.path());
            },
            || {
                let value = value_at_boot::<PathBuf>("example", "dest_dir").unwrap();
                assert_eq!(value.as_deref(), Some(Path::new("/srv")));
                assert_eq!(value_at_boot::<PathBuf>("other", "dest_dir").unwrap(), None);
            },
        );
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
