//! What the device and the artifact say: `/etc/mender-modules/deb.toml` and the artifact's meta-data.

use serde::{Deserialize, Serialize};

/// The device's settings. What is not set is the artifact's to say, where it may.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How long to wait for another package manager, in seconds.
    pub lock_seconds: u64,
    /// Whether apt may download what the payload needs.
    pub network: bool,
    /// Space that an update leaves free, in MiB.
    pub reserve_mib: u64,
    /// Installed packages that are kept for a rollback of the next update, in MiB.
    pub store_mib: u64,
    /// Copies of files of no package that an update replaces, in MiB.
    pub backup_mib: u64,
    /// The most files and directories that the packages of one artifact may have.
    pub max_files: usize,
    /// What becomes of changed configuration files, instead of what artifacts say.
    pub conffiles: Option<Conffiles>,
    /// Whether a version may be older than the installed one, instead of what artifacts say.
    pub allow_downgrade: Option<bool>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lock_seconds: 120,
            network: false,
            reserve_mib: 4,
            store_mib: 64,
            backup_mib: 64,
            max_files: 20_000,
            conffiles: None,
            allow_downgrade: None,
        }
    }
}

/// What the artifact's meta-data say.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetaData {
    remove: Vec<PackageName>,
    allow_downgrade: bool,
    conffiles: Conffiles,
    reboot: Reboot,
    /// The library's, which reads them itself.
    #[serde(rename = "units")]
    _units: serde::de::IgnoredAny,
    /// As `units`.
    #[serde(rename = "health")]
    _health: serde::de::IgnoredAny,
}

/// A package's name, with `:architecture` where that is a foreign one: no option of apt can be made of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PackageName(pub String);

impl TryFrom<String> for PackageName {
    type Error = anyhow::Error;

    fn try_from(name: String) -> anyhow::Result<Self> {
        let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.:".contains(c);
        // apt takes a minus at the end of a name for what to do with the package.
        let first = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        anyhow::ensure!(
            name.starts_with(first) && name.chars().all(known) && !name.ends_with('-'),
            "{name:?} is not the name of a package"
        );
        Ok(Self(name))
    }
}

impl From<PackageName> for String {
    fn from(name: PackageName) -> Self {
        name.0
    }
}

/// What becomes of a configuration file that somebody has changed on the device, when the new package has another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Conffiles {
    /// It stays; the new one lies beside it as `.dpkg-dist`.
    #[default]
    Keep,
    /// The new one takes its place; it lies beside that as `.dpkg-old`.
    Replace,
    /// What dpkg takes for the default action; where there is none, it stays.
    Default,
}

/// Whether the device is rebooted after the update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reboot {
    /// If a package asks for it.
    #[default]
    No,
    /// In any case.
    Automatic,
}

/// What counts for one update: the artifact's wishes, as far as the device's settings leave them to it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Wishes {
    pub remove: Vec<PackageName>,
    pub allow_downgrade: bool,
    pub conffiles: Conffiles,
    pub reboot: Reboot,
    pub network: bool,
    pub lock_seconds: u64,
    /// Bytes.
    pub reserve: u64,
    /// Bytes.
    pub store: u64,
    /// Bytes; a journal of a version without it has no update to prepare.
    #[serde(default)]
    pub backup: u64,
    /// As `backup`.
    #[serde(default)]
    pub max_files: usize,
}

impl Wishes {
    /// Those of an artifact with `meta_data` on a device with `settings`.
    pub fn of(settings: Settings, meta_data: MetaData) -> Self {
        Self {
            remove: meta_data.remove,
            allow_downgrade: settings.allow_downgrade.unwrap_or(meta_data.allow_downgrade),
            conffiles: settings.conffiles.unwrap_or(meta_data.conffiles),
            reboot: meta_data.reboot,
            network: settings.network,
            lock_seconds: settings.lock_seconds,
            reserve: settings.reserve_mib.saturating_mul(1 << 20),
            store: settings.store_mib.saturating_mul(1 << 20),
            backup: settings.backup_mib.saturating_mul(1 << 20),
            max_files: settings.max_files,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_packaged_settings_are_the_defaults() {
        // The conffile shows every key with its default; it must not say anything else than the code does.
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../debian/deb/deb.toml");
        let text = fs::read_to_string(path).unwrap();
        let packaged: Settings = toml::from_str(&text).unwrap();
        assert_eq!(format!("{packaged:?}"), format!("{:?}", Settings::default()));
        let keys = ["lock_seconds", "network", "reserve_mib", "store_mib", "backup_mib", "max_files"];
        for key in keys.into_iter().chain(["conffiles", "allow_downgrade"]) {
            assert!(text.contains(&format!("\n#{key} = ")), "{key} is not shown");
        }
    }

    #[test]
    fn the_device_has_the_last_word_and_mistakes_are_told() {
        let meta_data = |json: &str| serde_json::from_str::<MetaData>(json);
        let artifact = r#"{"remove": ["x"], "allow_downgrade": true, "conffiles": "replace", "reboot": "automatic",
                           "units": {"stop": []}, "health": {"tcp": "127.0.0.1:1"}}"#;
        let free = Wishes::of(Settings::default(), meta_data(artifact).unwrap());
        assert!(
            free.allow_downgrade && free.conffiles == Conffiles::Replace && free.reboot == Reboot::Automatic
        );
        let strict = Settings {
            allow_downgrade: Some(false),
            conffiles: Some(Conffiles::Keep),
            ..Settings::default()
        };
        let bound = Wishes::of(strict, meta_data(artifact).unwrap());
        assert!(!bound.allow_downgrade && bound.conffiles == Conffiles::Keep);
        for bad in [
            r#"{"removes": []}"#,
            r#"{"conffiles": "ask"}"#,
            r#"{"remove": "x"}"#,
            r#"{"remove": ["-y"]}"#,
            r#"{"remove": ["a-"]}"#,
            r#"{"reboot": true}"#,
        ] {
            assert!(meta_data(bad).is_err(), "{bad} was taken");
        }
    }
}
