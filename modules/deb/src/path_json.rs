//! Paths and texts in JSON: a string, or an array of bytes where they are not UTF-8.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum PathJson {
    Text(String),
    Bytes(Vec<u8>),
}

impl PathJson {
    fn new(path: &Path) -> Self {
        match path.as_os_str().to_owned().into_string() {
            Ok(text) => Self::Text(text),
            Err(bytes) => Self::Bytes(bytes.into_vec()),
        }
    }

    fn into_path(self) -> PathBuf {
        match self {
            Self::Text(text) => text.into(),
            Self::Bytes(bytes) => OsString::from_vec(bytes).into(),
        }
    }
}

pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    PathJson::new(path).serialize(serializer)
}

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    PathJson::deserialize(deserializer).map(PathJson::into_path)
}

/// The same for a text.
pub mod text {
    use super::{Deserialize, Deserializer, OsStr, OsStrExt, OsStringExt, Path, PathJson, Serialize, Serializer};

    pub fn serialize<S: Serializer>(text: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        PathJson::new(Path::new(OsStr::from_bytes(text))).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = PathJson::deserialize(deserializer)?;
        Ok(text.into_path().into_os_string().into_vec())
    }
}

/// The same for an optional path.
pub mod optional {
    use super::{Deserialize, Deserializer, PathBuf, PathJson, Serialize, Serializer};

    pub fn serialize<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
        path.as_deref().map(PathJson::new).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
        Ok(Option::<PathJson>::deserialize(deserializer)?.map(PathJson::into_path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Whole(
        #[serde(with = "super")] PathBuf,
        #[serde(with = "optional")] Option<PathBuf>,
        #[serde(with = "text")] Vec<u8>,
    );

    #[test]
    fn paths_are_text_where_they_are_utf_8() {
        let whole =
            |bytes: &[u8]| Whole(OsStr::from_bytes(bytes).into(), Some(OsStr::from_bytes(bytes).into()), bytes.into());
        let json = |whole: &Whole| serde_json::to_string(whole).unwrap();
        assert_eq!(json(&whole("/é".as_bytes())), r#"["/é","/é","/é"]"#);
        assert_eq!(json(&whole(b"\xe9")), "[[233],[233],[233]]");
        let none = Whole("/a".into(), None, b"".into());
        assert_eq!(json(&none), r#"["/a",null,""]"#);
        for value in [none, whole("/é".as_bytes()), whole(b"/\xe9")] {
            assert_eq!(serde_json::from_str::<Whole>(&json(&value)).unwrap(), value);
        }
    }
}
