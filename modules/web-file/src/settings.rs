//! The device's settings, `/etc/mender-modules/web-file.toml`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use mender_update_module::Accounts;
use serde::{Deserialize, Deserializer, Serialize};

/// Where files go and what they look like there.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The web root, an absolute path.
    pub dest_dir: PathBuf,
    /// What happens to files that the artifact does not have.
    pub mode: Mode,
    /// The owner of installed files, a local user's name or number.
    #[serde(deserialize_with = "account")]
    pub owner: String,
    /// Their group, a local group's name or number.
    #[serde(deserialize_with = "account")]
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

/// A name, or a number with or without quotation marks.
fn account<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "an account's name, or its number")]
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
        let accounts = Accounts::read()?;
        let id = |name: &str, look_up: Option<u32>| {
            // The last number means "as it is" to the kernel: the file would be root's.
            let number = look_up.or_else(|| name.parse().ok()).filter(|number| *number != u32::MAX);
            number.with_context(|| {
                format!("the device has no account {name:?}: add it, or change owner and group in the module's settings")
            })
        };
        Ok((id(&self.owner, accounts.user(&self.owner))?, id(&self.group, accounts.group(&self.group))?))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

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
