//! Names of files in one directory: what an artifact or a directory listing may contain.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// The name of an entry in a directory: any bytes but `/` and NUL, and neither empty, `.` nor `..`.
///
/// A path cannot be made from it that leads out of its directory. In JSON it is a string, or an array of
/// bytes where it is not UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Form", into = "Form")]
pub struct FileName(OsString);

impl FileName {
    /// Takes `name` if it is one.
    ///
    /// # Errors
    /// When `name` is empty, `.`, `..`, or contains a slash or a NUL byte.
    pub fn new(name: impl Into<OsString>) -> Result<Self> {
        let name = name.into();
        let bytes = name.as_bytes();
        if matches!(bytes, b"" | b"." | b"..") || bytes.contains(&b'/') || bytes.contains(&0) {
            bail!("{name:?} is not the name of a file in a directory");
        }
        Ok(Self(name))
    }
}

impl AsRef<Path> for FileName {
    fn as_ref(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl fmt::Display for FileName {
    /// As a person can read it back: quoted, with control characters escaped.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.0)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Form {
    Text(String),
    Bytes(Vec<u8>),
}

impl From<FileName> for Form {
    fn from(name: FileName) -> Self {
        match name.0.into_string() {
            Ok(text) => Form::Text(text),
            Err(bytes) => Form::Bytes(bytes.into_vec()),
        }
    }
}

impl TryFrom<Form> for FileName {
    type Error = anyhow::Error;

    fn try_from(form: Form) -> Result<Self> {
        match form {
            Form::Text(text) => Self::new(text),
            Form::Bytes(bytes) => Self::new(OsString::from_vec(bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn names_that_leave_the_directory_are_refused() {
        for name in ["", ".", "..", "/", "a/b", "../x", "/etc/passwd", "a\0b"] {
            assert!(FileName::new(name).is_err(), "{name:?} was taken");
        }
    }

    #[test]
    fn awkward_names_survive_json() {
        for bytes in [&b" "[..], b"-rf", b"a\nb", b"\"quoted\"", b"...", b"\xff\xfe", "h\u{e4}".as_bytes()] {
            let name = FileName::new(OsStr::from_bytes(bytes)).unwrap();
            let json = serde_json::to_string(&name).unwrap();
            assert_eq!(serde_json::from_str::<FileName>(&json).unwrap(), name, "{json}");
        }
        assert!(serde_json::from_str::<FileName>("\"../x\"").is_err());
    }
}
