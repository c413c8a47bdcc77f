//! Images: the ID identifies the content, a reference is a name.

use std::fmt;

use anyhow::{Result, ensure};
use mender_update_module::FileName;
use serde::{Deserialize, Serialize};

use crate::engine_kind::EngineKind;

/// The ID of an image: the sha256 of its configuration, which has the digests of its layers, so that the ID
/// determines every byte. 64 hexadecimal digits, with or without the prefix `sha256:`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageId(String);

impl ImageId {
    /// The first digits, for messages and names.
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
            "invalid image ID: {text:?}: use 'sha256:' and 64 hexadecimal digits, as 'podman image inspect' shows it"
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

/// The longest reference that the engines accept.
const LONGEST: usize = 255;

/// A reference with its tag, such as `localhost/shop:latest`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference(String);

impl TryFrom<String> for Reference {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "/:._-".contains(c);
        let (path, name) = text.rsplit_once('/').unwrap_or(("", &text));
        let (name, tag) = name.rsplit_once(':').unwrap_or((name, ""));
        let is_part = |part: &str| part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        ensure!(
            text.len() <= LONGEST
                && text.chars().all(is_allowed)
                && text.split('/').all(|part| part.starts_with(|c: char| c.is_ascii_alphanumeric()))
                && is_part(name)
                && !name.contains(|c: char| c.is_ascii_uppercase() || c == ':')
                && !path.split('/').skip(1).any(|part| part.contains(':'))
                && tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_'),
            "invalid image reference: {text:?}: use a name with a tag, such as \"localhost/app:latest\""
        );
        Ok(Self(text))
    }
}

impl Reference {
    /// The reference as the engine `kind` lists it: docker omits its own registry, and podman adds `localhost/` to a
    /// name without a registry.
    pub fn as_listed(&self, kind: EngineKind) -> Self {
        let (first, rest) = self.0.split_once('/').unwrap_or(("", &self.0));
        let is_registry = first.contains(['.', ':']) || first == "localhost";
        let is_docker_hub = matches!(first, "docker.io" | "index.docker.io");
        Self(match kind {
            EngineKind::Docker if is_docker_hub => rest.strip_prefix("library/").unwrap_or(rest).to_owned(),
            EngineKind::Docker if first == "library" => rest.to_owned(),
            EngineKind::Podman if is_docker_hub && !rest.contains('/') => format!("docker.io/library/{rest}"),
            EngineKind::Podman if is_docker_hub => format!("docker.io/{rest}"),
            EngineKind::Podman if !is_registry => format!("localhost/{}", self.0),
            _ => self.0.clone(),
        })
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

/// An image of the artifact, as its meta-data describe it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// The payload file with the image's archive; `None` for an image that is on the device already.
    pub file: Option<FileName>,
    /// The expected ID.
    pub id: ImageId,
    /// The name that definitions use.
    #[serde(rename = "ref")]
    pub reference: Reference,
    /// The size of the unpacked image, in bytes; default: the size of its archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_ids_and_references_are_refused() {
        let digits = "0123456789abcdef".repeat(4);
        let id = ImageId::try_from(format!("sha256:{digits}")).unwrap();
        assert_eq!((id.to_string(), id.short()), (digits.clone(), "0123456789ab"));
        for bad in ["", "sha256:", "latest", &digits.to_uppercase(), &format!("md5:{digits}")] {
            assert!(ImageId::try_from(bad.to_owned()).is_err(), "{bad:?} was accepted");
        }
        assert!(Reference::try_from("localhost:5000/a/b:1.0".to_owned()).is_ok());
        let bad =
            ["", "app", "--all:x", "a b:c", "localhost:5000/app", "a@sha256:x", ":x", "a:", "a//b:1", "/a:1", "A:1"];
        for bad in bad.into_iter().chain(["a:1:2", "a/b:1/c:2", &format!("{}:1", "a".repeat(260))]) {
            assert!(Reference::try_from(bad.to_owned()).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn references_are_compared_as_the_engine_lists_them() {
        // As podman 5.4 and docker 26.1 list what they have loaded and tagged under the first name.
        for (given, podman, docker) in [
            ("app:1", "localhost/app:1", "app:1"),
            ("foo/app:1", "localhost/foo/app:1", "foo/app:1"),
            ("library/app:1", "localhost/library/app:1", "app:1"),
            ("docker.io/foo/app:1", "docker.io/foo/app:1", "foo/app:1"),
            ("localhost/app:1", "localhost/app:1", "localhost/app:1"),
            ("docker.io/app:1", "docker.io/library/app:1", "app:1"),
            ("docker.io/library/app:1", "docker.io/library/app:1", "app:1"),
            ("index.docker.io/foo/app:1", "docker.io/foo/app:1", "foo/app:1"),
            ("quay.example/app:1", "quay.example/app:1", "quay.example/app:1"),
            ("host:5000/app:1", "host:5000/app:1", "host:5000/app:1"),
        ] {
            let reference = Reference::try_from(given.to_owned()).unwrap();
            assert_eq!(reference.as_listed(EngineKind::Podman).as_ref(), podman, "{given} on podman");
            assert_eq!(reference.as_listed(EngineKind::Docker).as_ref(), docker, "{given} on docker");
        }
    }
}
