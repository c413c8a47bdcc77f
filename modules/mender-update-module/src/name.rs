//! Names of files in a directory.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// The name of an entry in a directory: any bytes but `/` and NUL, and not empty, `.` or `..`. So a path of a
/// directory and a name never leads out of the directory. In JSON it is a string, or an array of bytes if it is not
/// UTF-8.
///
/// ```
/// use mender_update_module::FileName;
///
/// assert!(FileName::new("index.html").is_ok());
/// assert!(FileName::new("../etc/passwd").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct FileName(OsString);

impl FileName {
    /// The name `name`.
    ///
    /// # Errors
    /// When `name` is empty, `.`, `..`, or contains a slash or a NUL byte.
    pub fn new(name: impl Into<OsString>) -> Result<Self> {
        let name = name.into();
        let bytes = name.as_bytes();
        if matches!(bytes, b"" | b"." | b"..") || bytes.contains(&b'/') || bytes.contains(&0) {
            bail!("invalid file name {name:?}");
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
    /// Quoted, with control characters escaped.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.0)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Stored {
    Text(String),
    Bytes(Vec<u8>),
}

impl From<FileName> for Stored {
    fn from(name: FileName) -> Self {
        match name.0.into_string() {
            Ok(text) => Stored::Text(text),
            Err(bytes) => Stored::Bytes(bytes.into_vec()),
        }
    }
}

impl TryFrom<Stored> for FileName {
    type Error = anyhow::Error;

    fn try_from(stored: Stored) -> Result<Self> {
        match stored {
            Stored::Text(text) => Self::new(text),
            Stored::Bytes(bytes) => Self::new(OsString::from_vec(bytes)),
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
            assert!(FileName::new(name).is_err(), "{name:?} was accepted");
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
