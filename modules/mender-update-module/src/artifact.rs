//! The content of an artifact before it is packed, for programs that make artifacts.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;

use crate::guard::Guard;
use crate::name::FileName;
use crate::tree;

/// A payload file that is not in an artifact yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadFile {
    /// Its name in the artifact.
    pub name: FileName,
    /// The path of its content.
    pub path: PathBuf,
}

impl PayloadFile {
    /// Opens its content.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(&self) -> Result<File> {
        File::open(&self.path).with_context(|| format!("opening {} failed", self.path.display()))
    }
}

/// The payload and the meta-data of an artifact, as a device will receive them.
///
/// A module offers a function that checks them in the way of its Download, as far as that does not depend on the
/// device. So a generator refuses what every device would refuse.
///
/// ```
/// use mender_update_module::ArtifactContent;
///
/// let content = ArtifactContent { meta_data: Some("{\"units\": {\"restart\": [\"nginx\"]}}".into()), files: vec![] };
/// assert!(content.check_common().is_ok());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArtifactContent {
    /// The meta-data, as JSON.
    pub meta_data: Option<String>,
    /// The payload files, in their order.
    pub files: Vec<PayloadFile>,
}

impl ArtifactContent {
    /// The meta-data in the form of a module, as [`WorkTree::meta_data`](crate::WorkTree::meta_data) reads them on a
    /// device.
    ///
    /// # Errors
    /// When they are too long, or do not have the form of `T`.
    pub fn meta_data<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        let Some(text) = self.meta_data.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
        ensure!(
            text.len() as u64 <= tree::TEXT_MAX,
            "invalid meta-data: {} bytes: the limit is {}",
            text.len(),
            tree::TEXT_MAX
        );
        // A program has made the text: a line and a column in it would tell its user nothing.
        let value: serde_json::Value = serde_json::from_str(text).context("invalid meta-data")?;
        serde_json::from_value(value).context("invalid meta-data")
    }

    /// Checks what is common to all modules: the tables `units` and `health` of the meta-data.
    ///
    /// # Errors
    /// When one of them has a mistake.
    pub fn check_common(&self) -> Result<()> {
        self.meta_data::<Guard>()?.unwrap_or_default().check().context("invalid meta-data")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_in_the_common_tables_are_found() {
        let check = |text: &str| ArtifactContent { meta_data: Some(text.into()), files: Vec::new() }.check_common();
        check("{\"health\": {\"tcp\": \"127.0.0.1:80\"}}").unwrap();
        check("null").unwrap();
        for (text, expected) in [
            ("{", "invalid meta-data"),
            ("{\"health\": {}}", "none of command, tcp and url"),
            ("{\"health\": {\"port\": 1}}", "port"),
            ("{\"units\": {\"stop\": [\"--all\"]}}", "not the name of a systemd unit"),
        ] {
            let error = format!("{:#}", check(text).unwrap_err());
            assert!(error.contains(expected), "{text}: {error}");
        }
        let error = check(&format!("{{\"a\": \"{}\"}}", "x".repeat(1 << 20))).unwrap_err();
        assert!(error.to_string().contains("the limit is 1048576"), "{error}");
    }

    #[test]
    fn empty_meta_data_are_none() {
        let content = |text: &str| ArtifactContent { meta_data: Some(text.into()), files: Vec::new() };
        assert_eq!(content("").meta_data::<Vec<u8>>().unwrap(), None);
        assert_eq!(content("[7]").meta_data::<Vec<u8>>().unwrap(), Some(vec![7]));
        assert_eq!(ArtifactContent::default().meta_data::<Vec<u8>>().unwrap(), None);
    }
}
