//! The settings in `/etc/mender-modules/directory.toml`, and the artifact's meta-data.

use std::collections::BTreeMap;
use std::path::PathBuf;

use mender_update_module::log;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::keep::Pattern;

/// The device's settings.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Paths of the previous tree that every update keeps.
    pub keep: Vec<Pattern>,
    /// Space that an update leaves free on the destination's file system, in MiB.
    pub reserve_mib: u64,
    /// What happens to extended attributes that Linux does not support.
    pub unknown_xattrs: UnknownXattrs,
}

/// What happens to extended attributes in namespaces that Linux does not have, such as `com.apple` of macOS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownXattrs {
    /// The archive is refused.
    #[default]
    Refuse,
    /// The attributes are dropped.
    Ignore,
}

impl Default for Settings {
    fn default() -> Self {
        Self { keep: Vec::new(), reserve_mib: 4, unknown_xattrs: UnknownXattrs::Refuse }
    }
}

/// The artifact's meta-data. Unknown keys are accepted: an artifact for Mender's module `directory` has to install
/// unchanged.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct MetaData {
    /// The destination, an absolute path. If it is missing, the payload file of this name has the path.
    pub dest_dir: Option<PathBuf>,
    /// More paths that the update keeps.
    pub keep: Vec<Pattern>,
    /// All other keys.
    #[serde(flatten)]
    other: BTreeMap<String, IgnoredAny>,
}

/// The keys in every module's meta-data.
const COMMON: [&str; 2] = ["units", "health"];

impl MetaData {
    /// Logs unknown keys if the meta-data has this module's own form, because a mistyped `keep` loses data.
    pub fn log_unknown_keys(&self) {
        let unknown: Vec<&str> = self.other.keys().map(String::as_str).filter(|key| !COMMON.contains(key)).collect();
        if self.dest_dir.is_some() && !unknown.is_empty() {
            log!("unknown keys in the meta-data ignored: {}: use dest_dir, keep, units and health", unknown.join(", "));
        }
    }
}

#[cfg(test)]
mod tests {
    use mender_update_module_test::packaged_settings;

    use super::*;

    #[test]
    fn the_packaged_settings_are_the_defaults() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../debian/directory/directory.toml");
        let shown = Settings::default();
        packaged_settings(file, &shown).unwrap();
    }
}
