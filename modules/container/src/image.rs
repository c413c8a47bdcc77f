//! Images: an ID that says what is in one, and references that say what people call it.

use std::fmt;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use update_module::FileName;

/// The ID of an image, the sha256 of its configuration, which has the digests of its layers: whoever has the ID knows
/// every byte. 64 hexadecimal digits; `sha256:` may stand before them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageId(String);

impl ImageId {
    /// The digits that a person tells two images apart by.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl TryFrom<String> for ImageId {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        let digits = text.strip_prefix("sha256:").unwrap_or(&text);
        ensure!(
            digits.len() == 64 && digits.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')),
            "{text:?} is not the ID of an image: sha256: and 64 hexadecimal digits, as 'podman image inspect' shows"
        );
        Ok(Self(digits.to_owned()))
    }
}

impl From<ImageId> for String {
    fn from(id: ImageId) -> Self {
        id.0
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A reference with its tag, such as `localhost/shop:latest`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference(String);

impl TryFrom<String> for Reference {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        let known = |c: char| c.is_ascii_alphanumeric() || "/:._-".contains(c);
        let tagged = text.rsplit('/').next().is_some_and(|name| name.contains(':'));
        ensure!(
            text.chars().all(known) && !text.starts_with('-') && tagged,
            "{text:?} is not a reference to an image with its tag, such as \"localhost/app:latest\""
        );
        Ok(Self(text))
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.0
    }
}

impl AsRef<str> for Reference {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// An image as the artifact names it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// The payload file with its archive; none for an image that is on the device already.
    pub file: Option<FileName>,
    /// What it has to be.
    pub id: ImageId,
    /// What it is called in definitions.
    #[serde(rename = "ref")]
    pub reference: Reference,
    /// The space that it takes, in bytes; default: as much as its archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_references_are_taken_apart_from_everything_else() {
        let digits = "0123456789abcdef".repeat(4);
        let id = ImageId::try_from(format!("sha256:{digits}")).unwrap();
        assert_eq!((id.to_string(), id.short()), (digits.clone(), "0123456789ab"));
        for bad in ["", "sha256:", "latest", &digits.to_uppercase(), &format!("md5:{digits}")] {
            assert!(ImageId::try_from(bad.to_owned()).is_err(), "{bad:?} was taken");
        }
        assert!(Reference::try_from("localhost:5000/a/b:1.0".to_owned()).is_ok());
        for bad in ["", "app", "--all:x", "a b:c", "localhost:5000/app", "a@sha256:x"] {
            assert!(Reference::try_from(bad.to_owned()).is_err(), "{bad:?} was taken");
        }
    }
}
