//! What the device and the artifact say: `/etc/mender-modules/directory.toml` and the artifact's meta-data.

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
    /// Paths of the old tree that are carried over, whatever the artifact says.
    pub keep: Vec<Pattern>,
    /// Space that staging leaves free on the destination's filesystem, in MiB.
    pub reserve_mib: u64,
    /// What becomes of extended attributes that Linux does not know.
    pub unknown_xattrs: UnknownXattrs,
}

/// What becomes of extended attributes of namespaces that Linux does not have, such as macOS's `com.apple`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownXattrs {
    /// The archive is refused.
    #[default]
    Refuse,
    /// They are left out.
    Ignore,
}

impl Default for Settings {
    fn default() -> Self {
        Self { keep: Vec::new(), reserve_mib: 4, unknown_xattrs: UnknownXattrs::Refuse }
    }
}

/// The artifact's meta-data. Keys that are not known here are somebody else's: those of an artifact made for another
/// module, say, which has to install unchanged.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct MetaData {
    /// The destination, an absolute path; without it, a payload file of this name has it.
    pub dest_dir: Option<PathBuf>,
    /// More paths that are carried over.
    pub keep: Vec<Pattern>,
    /// All other keys.
    #[serde(flatten)]
    other: BTreeMap<String, IgnoredAny>,
}

/// Keys of every module's meta-data.
const COMMON: [&str; 2] = ["units", "health"];

impl MetaData {
    /// Names keys that are not known in the log, where the meta-data are of this module's own form: a mistyped `keep` would
    /// cost data. An artifact that was made for another module may have any.
    pub fn name_unknown_keys(&self) {
        let unknown: Vec<&str> =
            self.other.keys().map(String::as_str).filter(|key| !COMMON.contains(key)).collect();
        if self.dest_dir.is_some() && !unknown.is_empty() {
            log!(
                "meta-data: unknown keys ignored: {}: known are dest_dir, keep, units and health",
                unknown.join(", ")
            );
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
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../debian/directory/directory.toml");
        let text = fs::read_to_string(path).unwrap();
        let packaged: Settings = toml::from_str(&text).unwrap();
        assert_eq!(format!("{packaged:?}"), format!("{:?}", Settings::default()));
        for key in ["keep", "reserve_mib", "unknown_xattrs"] {
            assert!(text.contains(&format!("#{key} = ")), "{key} is not shown");
        }
    }
}
