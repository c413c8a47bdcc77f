//! The settings in `/etc/mender-modules/web-file.toml`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use mender_update_module::Accounts;
use mender_update_module::durable::Destination;
use serde::{Deserialize, Deserializer, Serialize};

/// The settings: destination and attributes of installed files.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The web root, an absolute path.
    pub dest_dir: PathBuf,
    /// What happens to files that are not in the artifact.
    pub mode: Mode,
    /// The owner of installed files: the name of a local user, or a number.
    #[serde(deserialize_with = "account")]
    pub owner: String,
    /// The group of installed files: the name of a local group, or a number.
    #[serde(deserialize_with = "account")]
    pub group: String,
    /// The permissions of installed files, in octal.
    pub file_mode: FileMode,
}

/// Permissions, written in octal as in `chmod`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct FileMode(pub u32);

/// What happens to top-level regular files that are not in the artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// They are removed: the artifact is the whole set.
    Replace,
    /// They stay.
    Add,
}

/// A name, or a number with or without quotation marks.
fn account<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "the name of an account, or its number")]
    enum Account {
        Name(String),
        Number(u32),
    }
    Ok(match Account::deserialize(from)? {
        Account::Name(name) => name,
        Account::Number(number) => number.to_string(),
    })
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
            _ => bail!("invalid file mode {text:?}: use four octal digits, such as \"0644\""),
        }
    }
}

impl Settings {
    /// Checks the values on this device, for `web-file --check-settings`.
    ///
    /// # Errors
    /// When an update would refuse the destination or the accounts.
    pub fn check(&self) -> Result<()> {
        self.destination()?;
        self.ids().map(drop)
    }

    /// The destination, which may not exist.
    ///
    /// # Errors
    /// When `dest_dir` is not an absolute path, or is refused.
    pub fn destination(&self) -> Result<Destination> {
        Destination::find(&self.dest_dir).context("dest_dir")
    }

    /// The numbers of owner and group.
    ///
    /// # Errors
    /// When the device does not have such an account.
    pub fn ids(&self) -> Result<(u32, u32)> {
        let accounts = Accounts::read()?;
        let id = |name: &str, look_up: Option<u32>| {
            // To the kernel, this number means "unchanged": the file would belong to root.
            let number = look_up.or_else(|| name.parse().ok()).filter(|number| *number != u32::MAX);
            number.with_context(|| format!("no account {name:?} on this device: add it, or change owner and group"))
        };
        Ok((id(&self.owner, accounts.user(&self.owner))?, id(&self.group, accounts.group(&self.group))?))
    }
}

#[cfg(test)]
mod tests {
    use mender_update_module::fuzzing;
    use mender_update_module_test::packaged_settings;

    use super::*;

    #[test]
    fn modes_are_octal() {
        let mode = |text: &str| FileMode::try_from(text.to_owned());
        assert_eq!(mode("0640").unwrap(), FileMode(0o640));
        for bad in ["", "8", "rw-r--r--", "17777", "-1"] {
            assert!(mode(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn the_packaged_settings_are_the_defaults() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../debian/web-file/web-file.toml");
        let shown = Settings::default();
        packaged_settings(file, &shown).unwrap();
    }

    #[test]
    fn accounts_are_names_or_numbers() {
        let settings = |owner: &str, group: &str| {
            fuzzing::settings::<Settings>(format!("owner = {owner}\ngroup = {group}").as_bytes())
        };
        let ids = |owner, group| settings(owner, group).and_then(|settings| settings.ids());
        assert_eq!(ids("7", "\"8\"").unwrap(), (7, 8));
        assert_eq!(settings("\"www-data\"", "7").unwrap().owner, "www-data");
        assert!(settings("true", "7").is_err());
        // To the kernel, the largest number means "unchanged".
        for (owner, group) in [("4294967295", "7"), ("7", "4294967295"), ("\"no such account\"", "7")] {
            assert!(ids(owner, group).is_err(), "{owner} {group}");
        }
    }
}
