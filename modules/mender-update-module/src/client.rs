//! The device's Mender client: its command and its data directory.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::settings_file;

/// The data directory of the clients in Debian and Yocto.
pub(crate) const DATASTORE: &str = "/var/lib/mender";

/// The client's variable for another data directory.
const VARIABLE: &str = "MENDER_DATASTORE_DIR";

/// The client's options for another data directory. `mender` up to version 3 has the first one only.
const OPTIONS: [&str; 2] = ["--data", "--datastore"];

/// The directories of units and drop-ins, in the order of their precedence (systemd.unit(5)).
const UNIT_DIRECTORIES: [&str; 4] =
    ["etc/systemd/system", "run/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"];

/// The units of the clients since version 3.
const UNITS: [&str; 3] = ["mender-updated.service", "mender-client.service", "mender.service"];

/// The largest size of a unit file, in bytes.
const UNIT_MAX: u64 = 1 << 20;

/// The client's command on this device, for messages: `mender-update` since client 4, `mender` before.
///
/// ```
/// assert!(mender_update_module::client_command().starts_with("mender"));
/// ```
pub fn client_command() -> &'static str {
    let directories = ["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin"];
    let newer = directories.iter().any(|directory| Path::new(directory).join("mender-update").exists());
    if newer { "mender-update" } else { "mender" }
}

/// The client's data directory, for calls that are not the client's: the setting `datastore` of the module `name`,
/// the variable `MENDER_DATASTORE_DIR`, the client's systemd unit, or `/var/lib/mender`, in this order.
pub(crate) fn datastore(name: &str) -> Result<PathBuf> {
    Ok(settings_file::datastore(name)?.unwrap_or_else(without_setting))
}

/// The same for the recovery at boot, without the setting if the settings are not TOML or its value is wrong: in the
/// usual place, an interrupted update has to be rolled back and the active version to be started nevertheless.
pub(crate) fn datastore_at_boot(name: &str) -> Result<PathBuf> {
    Ok(settings_file::datastore_at_boot(name)?.unwrap_or_else(without_setting))
}

fn without_setting() -> PathBuf {
    let variable = env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    variable.or_else(|| of_units(Path::new("/"))).unwrap_or_else(|| DATASTORE.into())
}

/// The data directory that the unit of the client names.
fn of_units(root: &Path) -> Option<PathBuf> {
    UNITS.iter().find_map(|unit| of_unit(root, unit))
}

/// The data directory in `unit`, its drop-ins and their environment files. An option takes precedence over the
/// variable, an environment file over `Environment=`, and what is later over what is earlier (systemd.exec(5)).
fn of_unit(root: &Path, unit: &str) -> Option<PathBuf> {
    let texts = unit_texts(root, unit);
    let files = texts.iter().flat_map(|text| lines(text)).filter_map(|line| line.strip_prefix("EnvironmentFile="));
    let files = files.map(|path| root.join(path.trim_start_matches('-').trim_start_matches('/')));
    let files: Vec<String> = files.filter_map(|path| read(&path)).collect();
    let last = |texts: &[String], find: fn(&str) -> Option<PathBuf>| texts.iter().rev().find_map(|text| find(text));
    last(&texts, option_in).or_else(|| last(&files, variable_in)).or_else(|| last(&texts, variable_in))
}

/// The text of `unit`, and those of its drop-ins in the order of their names. Of several files with one name, that in
/// the first directory counts (systemd.unit(5)).
fn unit_texts(root: &Path, unit: &str) -> Vec<String> {
    let directories = UNIT_DIRECTORIES.map(|directory| root.join(directory));
    let main = directories.iter().map(|directory| directory.join(unit)).find(|path| path.exists());
    let mut drop_ins = BTreeMap::new();
    for directory in directories.iter().rev() {
        let entries = fs::read_dir(directory.join(format!("{unit}.d"))).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "conf"));
        drop_ins.extend(paths.filter_map(|path| Some((path.file_name()?.to_owned(), path))));
    }
    main.into_iter().chain(drop_ins.into_values()).filter_map(|path| read(&path)).collect()
}

fn read(path: &Path) -> Option<String> {
    let small = fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() <= UNIT_MAX);
    small.then(|| fs::read_to_string(path).ok()).flatten()
}

/// The lines of `text` that are not comments.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']))
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    lines(text).flat_map(str::split_ascii_whitespace).map(unquoted)
}

fn unquoted(word: &str) -> &str {
    word.trim_matches(['"', '\''])
}

fn absolute(path: &str) -> Option<PathBuf> {
    Some(unquoted(path)).filter(|path| path.starts_with('/')).map(PathBuf::from)
}

/// The last data directory in commands of the form `ExecStart=/usr/bin/mender-update --datastore PATH daemon`.
fn option_in(text: &str) -> Option<PathBuf> {
    let following = words(text).skip(1).chain([""]);
    let paths = words(text).zip(following).filter_map(|(word, next)| match word.split_once('=') {
        Some((option, path)) => OPTIONS.contains(&option).then_some(path),
        None => OPTIONS.contains(&word).then_some(next),
    });
    paths.filter_map(absolute).last()
}

/// The last data directory in lines of the form `Environment=MENDER_DATASTORE_DIR=PATH` and
/// `MENDER_DATASTORE_DIR=PATH`.
fn variable_in(text: &str) -> Option<PathBuf> {
    let settings = words(text).map(|word| word.strip_prefix("Environment=").map_or(word, unquoted));
    settings.filter_map(|setting| absolute(setting.strip_prefix(VARIABLE)?.strip_prefix('=')?)).last()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{is_own_process, log_of};

    #[test]
    fn a_moved_datastore_is_found_in_the_clients_unit() {
        for text in [
            "[Service]\nEnvironment=MENDER_DATASTORE_DIR=/data/m\nExecStart=/usr/bin/mender-update daemon\n",
            "[Service]\nEnvironment=\"A=b\" \"MENDER_DATASTORE_DIR=/data/m\"\n",
            "[Service]\nEnvironment=\"MENDER_DATASTORE_DIR=/data/m\"\n",
            "MENDER_DATASTORE_DIR=\"/data/m\"\n",
            "[Service]\nExecStart=/usr/bin/mender-update --datastore /data/m daemon\n",
            "[Service]\nExecStart=/usr/bin/mender --data=/data/m daemon\n",
        ] {
            let found = option_in(text).or_else(|| variable_in(text));
            assert_eq!(found.as_deref(), Some(Path::new("/data/m")), "{text}");
        }
        for text in ["", "#MENDER_DATASTORE_DIR=/x\n", "Environment=MENDER_CONF_DIR=/x\n", "MENDER_DATASTORE_DIR=x\n"] {
            assert_eq!((option_in(text), variable_in(text)), (None, None), "{text}");
        }
    }

    #[test]
    fn units_drop_ins_and_environment_files_have_the_precedence_of_systemd() {
        const UNIT: &str = "system/mender-updated.service";
        let root = tempfile::tempdir().unwrap();
        let found = || of_units(root.path()).map(|path| path.display().to_string());
        assert_eq!(found(), None);
        let is_found_after = |path: &str, text: &str, expected: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            assert_eq!(found().as_deref(), Some(expected), "{}: {text}", path.display());
        };
        let set =
            |path: &str| format!("[Service]\nEnvironment=MENDER_DATASTORE_DIR=/x\nEnvironment={VARIABLE}={path}\n");
        is_found_after(&format!("lib/systemd/{UNIT}"), &set("/lib"), "/lib");
        is_found_after(&format!("etc/systemd/{UNIT}"), &set("/etc"), "/etc");
        is_found_after(&format!("etc/systemd/{UNIT}.d/a.conf"), &set("/a"), "/a");
        // By their names, not by their directories.
        is_found_after(&format!("lib/systemd/{UNIT}.d/b.conf"), &set("/b"), "/b");
        is_found_after(&format!("etc/systemd/{UNIT}.d/b.conf"), "[Service]\n", "/a");
        let files = "[Service]\nEnvironmentFile=-/etc/default/one\nEnvironmentFile=/etc/default/two\n";
        is_found_after(&format!("lib/systemd/{UNIT}.d/0.conf"), files, "/a");
        is_found_after("etc/default/one", &format!("{VARIABLE}=/one\n"), "/one");
        is_found_after("etc/default/two", &format!("{VARIABLE}=/two\n"), "/two");
        let command = "[Service]\nExecStart=\nExecStart=/usr/bin/mender-update --datastore /option daemon\n";
        is_found_after(&format!("run/systemd/{UNIT}.d/c.conf"), command, "/option");
    }

    #[test]
    fn the_command_is_that_of_a_client() {
        assert!(["mender", "mender-update"].contains(&client_command()));
    }

    #[test]
    fn a_unit_file_that_is_too_large_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("unit");
        for (length, is_read) in [(UNIT_MAX, true), (UNIT_MAX + 1, false)] {
            fs::write(&path, "#".repeat(length as usize)).unwrap();
            assert_eq!(read(&path).is_some(), is_read, "{length}");
        }
        assert_eq!(read(directory.path()), None);
    }

    #[test]
    fn the_datastore_is_that_of_the_settings_the_variable_or_the_default() {
        const SETTINGS: &str = "MENDER_MODULES_SETTINGS";
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("example.toml"), "datastore = \"/of/settings\"\n").unwrap();
        for variable in ["/of/variable", ""] {
            log_of(
                "client::tests::the_datastore_is_that_of_the_settings_the_variable_or_the_default",
                |command| {
                    command.env(SETTINGS, directory.path()).env(VARIABLE, variable);
                },
                || {
                    let without_setting = match env::var(VARIABLE).unwrap().as_str() {
                        "" => of_units(Path::new("/")).unwrap_or_else(|| "/var/lib/mender".into()),
                        variable => variable.into(),
                    };
                    for of in [datastore, datastore_at_boot] {
                        assert_eq!(of("example").unwrap(), Path::new("/of/settings"));
                        assert_eq!(of("other").unwrap(), without_setting);
                    }
                },
            );
            if is_own_process() {
                return;
            }
        }
    }
}
