//! The device's Mender client: its command and its data directory.

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
    if let Some(path) = settings_file::datastore(name)? {
        return Ok(path);
    }
    let variable = env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    Ok(variable.or_else(|| of_units(Path::new("/"))).unwrap_or_else(|| DATASTORE.into()))
}

/// The data directory in the client's unit, in a drop-in, or in an environment file of one of these.
fn of_units(root: &Path) -> Option<PathBuf> {
    let directories = UNIT_DIRECTORIES.iter().map(|directory| root.join(directory));
    let mut texts = Vec::new();
    for directory in directories {
        for unit in UNITS {
            texts.extend(drop_ins(&directory.join(format!("{unit}.d"))));
            texts.extend(read(&directory.join(unit)));
        }
    }
    let files =
        texts.iter().flat_map(|text| text.lines()).filter_map(|line| line.trim().strip_prefix("EnvironmentFile="));
    let files = files.map(|path| root.join(path.trim_start_matches('-').trim_start_matches('/')));
    let of_files: Vec<String> = files.filter_map(|path| read(&path)).collect();
    texts.iter().chain(&of_files).find_map(|text| named_in(text))
}

fn drop_ins(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut paths: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "conf")).collect();
    paths.sort();
    // The last one takes precedence.
    paths.iter().rev().filter_map(|path| read(path)).collect()
}

fn read(path: &Path) -> Option<String> {
    let small = fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() <= UNIT_MAX);
    small.then(|| fs::read_to_string(path).ok()).flatten()
}

/// The data directory in lines of the form `Environment=MENDER_DATASTORE_DIR=PATH`, `MENDER_DATASTORE_DIR=PATH` and
/// `ExecStart=/usr/bin/mender-update --datastore PATH daemon`.
fn named_in(text: &str) -> Option<PathBuf> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
    let mut words = lines.flat_map(str::split_ascii_whitespace).map(|word| word.trim_matches(['"', '\'']));
    while let Some(word) = words.next() {
        let (key, value) = word.split_once('=').unzip();
        let path = if OPTIONS.contains(&word) {
            words.next()
        } else if key == Some("Environment") {
            value.and_then(|value| value.trim_matches(['"', '\'']).strip_prefix(VARIABLE)?.strip_prefix('='))
        } else if key == Some(VARIABLE) || key.is_some_and(|key| OPTIONS.contains(&key)) {
            value
        } else {
            None
        };
        if let Some(path) = path.map(|path| path.trim_matches(['"', '\''])).filter(|path| path.starts_with('/')) {
            return Some(path.into());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(named_in(text).as_deref(), Some(Path::new("/data/m")), "{text}");
        }
        for text in ["", "#MENDER_DATASTORE_DIR=/x\n", "Environment=MENDER_CONF_DIR=/x\n", "MENDER_DATASTORE_DIR=x\n"] {
            assert_eq!(named_in(text), None, "{text}");
        }
    }

    #[test]
    fn drop_ins_and_environment_files_are_read() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(of_units(root.path()), None);
        write("lib/systemd/system/mender-updated.service", "[Service]\nEnvironmentFile=-/etc/default/mender\n");
        write("etc/default/mender", "MENDER_DATASTORE_DIR=/one\n");
        assert_eq!(of_units(root.path()), Some("/one".into()));
        write(
            "etc/systemd/system/mender-updated.service.d/a.conf",
            "[Service]\nEnvironment=MENDER_DATASTORE_DIR=/two\n",
        );
        assert_eq!(of_units(root.path()), Some("/two".into()));
        write(
            "etc/systemd/system/mender-updated.service.d/b.conf",
            "[Service]\nEnvironment=MENDER_DATASTORE_DIR=/three\n",
        );
        assert_eq!(of_units(root.path()), Some("/three".into()), "the last drop-in takes precedence");
    }
}
