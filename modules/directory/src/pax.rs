//! Extended headers of tar archives (POSIX.1-2001, "pax"): records of the form `LENGTH KEY=VALUE\n`.
//!
//! Read by their length: a value may have newlines in it, as a binary attribute does.

use anyhow::{Context, Result, ensure};

/// The records of one or more extended headers; a later record of a key counts instead of an earlier one.
#[derive(Clone, Debug, Default)]
pub struct Records(Vec<(String, Vec<u8>)>);

impl Records {
    /// Adds the records of the extended header `data`.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn add(&mut self, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            let (key, value, rest) = record(data).context("an extended header (pax) is malformed")?;
            self.0.retain(|(known, _)| *known != key);
            self.0.push((key, value.to_vec()));
            data = rest;
        }
        Ok(())
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_slice())
    }

    /// The value of `key` as text.
    ///
    /// # Errors
    /// When it is not UTF-8.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        self.get(key)
            .map(std::str::from_utf8)
            .transpose()
            .with_context(|| format!("the value of {key} is no text"))
    }

    /// The value of `key` as a number.
    ///
    /// # Errors
    /// When it is none.
    pub fn number(&self, key: &str) -> Result<Option<u64>> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        text.parse().map(Some).with_context(|| format!("the value of {key}, {text:?}, is no number"))
    }

    /// Keys that begin with `prefix`, without it, and their values.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.0.iter().filter_map(move |(key, value)| Some((key.strip_prefix(prefix)?, value.as_slice())))
    }
}

/// The first record of `data`: key, value, and what follows.
fn record(data: &[u8]) -> Result<(String, &[u8], &[u8])> {
    let blank = data.iter().position(|&byte| byte == b' ').context("a record has no length")?;
    let length: usize =
        std::str::from_utf8(&data[..blank])?.parse().context("a record's length is no number")?;
    ensure!(length > blank + 1 && length <= data.len(), "a record's length leads out of its header");
    let (record, rest) = data.split_at(length);
    let pair = record[blank + 1..].strip_suffix(b"\n").context("a record does not end with a newline")?;
    let equals = pair.iter().position(|&byte| byte == b'=').context("a record has no '='")?;
    Ok((String::from_utf8(pair[..equals].to_vec())?, &pair[equals + 1..], rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_have_newlines_and_later_ones_count() {
        let mut records = Records::default();
        records.add(b"14 path=a b/c\n21 SCHILY.xattr.u=\n\n\n12 size=123\n").unwrap();
        assert_eq!(records.get("path"), Some(&b"a b/c"[..]));
        assert_eq!(records.with_prefix("SCHILY.xattr.").collect::<Vec<_>>(), [("u", &b"\n\n"[..])]);
        assert_eq!(records.number("size").unwrap(), Some(123));
        records.add(b"10 size=7\n").unwrap();
        assert_eq!(records.number("size").unwrap(), Some(7));
    }

    #[test]
    fn malformed_headers_are_errors() {
        for bad in [&b"x"[..], b"99 a=b\n", b"6 a=b", b"5 ab\n", b"0 a=b\n", b"2 \n", b" a=b\n", b"-6 a=b\n"]
        {
            assert!(Records::default().add(bad).is_err(), "{bad:?} was taken");
        }
    }
}
