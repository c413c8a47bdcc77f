//! The options of an update: the device's settings in `/etc/mender-modules/deb.toml`, and the artifact's
//! meta-data.

use serde::{Deserialize, Serialize};

/// The device's settings. The artifact's meta-data decide about an unset option, where they may.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The longest wait for another package manager, in seconds.
    pub lock_seconds: u64,
    /// Whether apt may download packages that the payload depends on.
    pub network: bool,
    /// The space that an update leaves free, in MiB.
    pub reserve_mib: u64,
    /// The size of the cache of installed packages, for the rollback of the next update, in MiB.
    pub store_mib: u64,
    /// The limit of all copies of files that an update replaces, in MiB.
    pub backup_mib: u64,
    /// The most files and directories in the packages of one artifact.
    pub max_files: usize,
    /// What happens to changed configuration files; overrides the artifact.
    pub conffiles: Option<Conffiles>,
    /// Whether a version may be older than the installed one; overrides the artifact.
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

/// The artifact's meta-data.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetaData {
    pub remove: Vec<PackageName>,
    allow_downgrade: bool,
    conffiles: Conffiles,
    reboot: Reboot,
    /// Read by the library.
    #[serde(rename = "units")]
    _units: serde::de::IgnoredAny,
    /// Read by the library.
    #[serde(rename = "health")]
    _health: serde::de::IgnoredAny,
}

/// The name of a package, with `:architecture` where that is a foreign one. It cannot be taken for an option
/// of apt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PackageName(pub String);

impl TryFrom<String> for PackageName {
    type Error = anyhow::Error;

    fn try_from(name: String) -> anyhow::Result<Self> {
        let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.:".contains(c);
        // apt removes a package if a minus follows its name.
        let first = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        anyhow::ensure!(
            name.starts_with(first) && name.chars().all(known) && !name.ends_with('-'),
            "invalid package name {name:?}: use lower case letters, digits and + - . as Debian does"
        );
        Ok(Self(name))
    }
}

impl From<PackageName> for String {
    fn from(name: PackageName) -> Self {
        name.0
    }
}

/// What happens to a configuration file that was changed on the device, when the new package has another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Conffiles {
    /// The changed file stays. dpkg writes the new one beside it, as `.dpkg-dist`.
    #[default]
    Keep,
    /// The new file replaces it. dpkg keeps the changed one beside it, as `.dpkg-old`.
    Replace,
    /// dpkg's default action; where it has none, the changed file stays.
    Default,
}

/// Whether the device is rebooted after the update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reboot {
    /// Only if a package requests it.
    #[default]
    No,
    /// Always.
    Automatic,
}

/// The options of one update: the device's settings, and the artifact's where the device sets none.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Options {
    pub remove: Vec<PackageName>,
    pub allow_downgrade: bool,
    pub conffiles: Conffiles,
    pub reboot: Reboot,
    pub network: bool,
    pub lock_seconds: u64,
    /// The space that an update leaves free, in bytes.
    pub reserve: u64,
    /// The size of the package cache in bytes.
    #[serde(rename = "store")]
    pub cache_size: u64,
    /// The limit of the copies of files in bytes. Absent in old journals, which need no preparation any more.
    #[serde(default, rename = "backup")]
    pub backup_size: u64,
    /// Absent like `backup_size`.
    #[serde(default)]
    pub max_files: usize,
}

impl Options {
    pub fn new(settings: Settings, meta_data: MetaData) -> Self {
        Self {
            remove: meta_data.remove,
            allow_downgrade: settings.allow_downgrade.unwrap_or(meta_data.allow_downgrade),
            conffiles: settings.conffiles.unwrap_or(meta_data.conffiles),
            reboot: meta_data.reboot,
            network: settings.network,
            lock_seconds: settings.lock_seconds,
            reserve: settings.reserve_mib.saturating_mul(1 << 20),
            cache_size: settings.store_mib.saturating_mul(1 << 20),
            backup_size: settings.backup_mib.saturating_mul(1 << 20),
            max_files: settings.max_files,
        }
    }
}

#[cfg(test)]
mod tests {
    use mender_update_module_test::packaged_settings;

    use super::*;

    #[test]
    fn the_packaged_settings_are_the_defaults() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../debian/deb/deb.toml");
        // The defaults of keys about which the artifact decides are those of its meta-data.
        let shown = Settings {
            conffiles: Some(Conffiles::default()),
            allow_downgrade: Some(MetaData::default().allow_downgrade),
            ..Settings::default()
        };
        packaged_settings(file, &shown).unwrap();
    }

    #[test]
    fn the_devices_settings_win_and_mistakes_are_refused() {
        let meta_data = |json: &str| serde_json::from_str::<MetaData>(json);
        let artifact = r#"{"remove": ["x"], "allow_downgrade": true, "conffiles": "replace",
                           "reboot": "automatic", "units": {"stop": []}, "health": {"tcp": "127.0.0.1:1"}}"#;
        let artifact_decides = Options::new(Settings::default(), meta_data(artifact).unwrap());
        assert!(
            artifact_decides.allow_downgrade
                && artifact_decides.conffiles == Conffiles::Replace
                && artifact_decides.reboot == Reboot::Automatic
        );
        let settings =
            Settings { allow_downgrade: Some(false), conffiles: Some(Conffiles::Keep), ..Settings::default() };
        let device_decides = Options::new(settings, meta_data(artifact).unwrap());
        assert!(!device_decides.allow_downgrade && device_decides.conffiles == Conffiles::Keep);
        for bad in [
            r#"{"removes": []}"#,
            r#"{"conffiles": "ask"}"#,
            r#"{"remove": "x"}"#,
            r#"{"remove": ["-y"]}"#,
            r#"{"remove": ["a-"]}"#,
            r#"{"reboot": true}"#,
        ] {
            assert!(meta_data(bad).is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn names_of_packages_are_those_of_debian() {
        let is_valid = |name: &&str| PackageName::try_from(name.to_string()).is_ok();
        assert!(["a", "libc6", "0ad", "g++", "a.b-c", "libc6:armhf"].iter().all(is_valid));
        assert!(!["", "+a", ".a", "A", "aB", "a b", "a/", "a=1", "a-"].iter().any(is_valid));
        let name = PackageName("libc6:armhf".into());
        assert_eq!(serde_json::to_string(&name).unwrap(), "\"libc6:armhf\"");
    }
}
