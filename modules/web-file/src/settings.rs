//! The device's settings, `/etc/mender-modules/web-file.toml`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// Where files go and what they look like there.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The web root, an absolute path.
    pub dest_dir: PathBuf,
    /// What happens to files that the artifact does not have.
    pub mode: Mode,
    /// The owner of installed files, a local user's name or number.
    pub owner: String,
    /// Their group, a local group's name or number.
    pub group: String,
    /// Their permissions, in octal.
    pub file_mode: FileMode,
}

/// Permissions, written in octal as in `chmod`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct FileMode(pub u32);

/// What an update does to the top-level regular files that the artifact does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// They are removed: the artifact is the whole set.
    Replace,
    /// They stay.
    Add,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            dest_dir: "/var/www".into(),
            mode: Mode::Replace,
            owner: "root".into(),
            group: "root".into(),
            file_mode: FileMode(0o644),
        }
    }
}

impl TryFrom<String> for FileMode {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        match u32::from_str_radix(&text, 8) {
            Ok(mode) if mode <= 0o7777 => Ok(Self(mode)),
            _ => bail!("{text:?} is not a file mode: four octal digits such as \"0644\" are"),
        }
    }
}

impl Settings {
    /// The owner's and the group's numbers.
    ///
    /// # Errors
    /// When the device does not know them.
    pub fn ids(&self) -> Result<(u32, u32)> {
        Ok((id(Path::new("/etc/passwd"), &self.owner)?, id(Path::new("/etc/group"), &self.group)?))
    }
}

/// The number of `name` in `table`, a file of the form of `/etc/passwd`. A static executable has no other name service,
/// and a web root's owner is a local account.
fn id(table: &Path, name: &str) -> Result<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let text = fs::read_to_string(table).with_context(|| format!("reading {}", table.display()))?;
    look_up(&text, name).with_context(|| {
        format!(
            "{} has no {name:?}: add it, or change owner and group in the module's settings",
            table.display()
        )
    })
}

fn look_up(table: &str, name: &str) -> Option<u32> {
    let mut entries = table.lines().map(|line| line.split(':'));
    entries
        .find_map(|mut fields| (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_whole() {
        let table = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/usr/sbin/nologin\n\nbroken\nodd:x:y\n";
        assert_eq!(look_up(table, "root"), Some(0));
        assert_eq!(look_up(table, "www-data"), Some(33));
        for unknown in ["www", "broken", "odd", ""] {
            assert_eq!(look_up(table, unknown), None, "{unknown:?}");
        }
    }

    #[test]
    fn modes_are_octal() {
        let mode = |text: &str| FileMode::try_from(text.to_owned());
        assert_eq!(mode("0640").unwrap(), FileMode(0o640));
        for bad in ["", "8", "rw-r--r--", "17777", "-1"] {
            assert!(mode(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn the_packaged_settings_are_the_defaults() {
        // The conffile shows every key with its default; it must not say anything else than the code does.
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../debian/web-file/web-file.toml");
        let packaged: Settings = toml::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(format!("{packaged:?}"), format!("{:?}", Settings::default()));
    }
}
