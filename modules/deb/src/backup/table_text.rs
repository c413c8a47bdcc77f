//! Text in the tables: paths and others, which may be in any encoding.

use std::str;

/// The beginning of a text that is not UTF-8, with a character for each byte after it. A path never begins so.
const NOT_UTF_8: &str = "not UTF-8: ";

/// `bytes` as text. [`to_bytes`] returns them.
pub fn from_bytes(bytes: &[u8]) -> String {
    match str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => NOT_UTF_8.chars().chain(bytes.iter().map(|byte| char::from(*byte))).collect(),
    }
}

/// The bytes that `text` was made from.
pub fn to_bytes(text: &str) -> Vec<u8> {
    let of_chars = |chars: &str| chars.chars().map(|char| u8::try_from(char).ok()).collect();
    text.strip_prefix(NOT_UTF_8).and_then(of_chars).unwrap_or_else(|| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_are_kept() {
        let every: Vec<u8> = (0..=255).collect();
        for bytes in [&b"/srv/a"[..], "/srv/é".as_bytes(), b"/srv/\xe9", &every, b""] {
            assert_eq!(to_bytes(&from_bytes(bytes)), bytes);
        }
        assert_eq!(from_bytes("/srv/é".as_bytes()), "/srv/é");
        assert_eq!(from_bytes(b"/srv/\xe9"), "not UTF-8: /srv/é");
    }
}
