//! The records of extended headers (pax) that apply to an entry.

use std::collections::BTreeMap;
use std::rc::Rc;

use anyhow::{Context, Result, bail, ensure};
use mender_update_module::pax_records;

/// The largest number of global records: they are searched for each entry.
const GLOBAL_RECORDS_MAX: usize = 1024;

/// The largest size of the records of one entry, or of all global records, in bytes: several times the size that common
/// file systems allow for all attributes of a file.
const BYTES_MAX: usize = 1 << 20;

/// The key of the parts of a sparse file in version 0.1. Version 0.0 has one record for each number.
pub const SPARSE_MAP: &str = "GNU.sparse.map";
const SPARSE_NUMBERS: [&str; 2] = ["GNU.sparse.offset", "GNU.sparse.numbytes"];

/// The records of an entry, and the global records of the archive. An entry's record takes precedence over a global
/// one, a later record over an earlier one.
#[derive(Clone, Debug, Default)]
pub struct Records {
    own: BTreeMap<String, Vec<u8>>,
    global: Rc<BTreeMap<String, Vec<u8>>>,
    bytes: usize,
}

impl Records {
    /// No records but the `global` ones, which are not copied.
    pub fn with_global(global: &Records) -> Self {
        Self { own: BTreeMap::new(), global: Rc::clone(&global.global), bytes: 0 }
    }

    /// Sets the `global` records.
    pub fn set_global(&mut self, global: &Records) {
        self.global = Rc::clone(&global.global);
    }

    /// Adds the records of the extended header `data`.
    ///
    /// # Errors
    /// When it is invalid, or the records are too large together.
    pub fn add(&mut self, data: &[u8]) -> Result<()> {
        add(data, &mut self.own, &mut self.bytes)
    }

    /// Adds the records of the global extended header `data`, which apply to all later entries.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_global(&mut self, data: &[u8]) -> Result<()> {
        let global = Rc::make_mut(&mut self.global);
        add(data, global, &mut self.bytes)?;
        if global.len() > GLOBAL_RECORDS_MAX {
            bail!("invalid archive: more than {GLOBAL_RECORDS_MAX} global records");
        }
        Ok(())
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.own.get(key).or_else(|| self.global.get(key)).map(Vec::as_slice)
    }

    /// The value of `key` as text.
    ///
    /// # Errors
    /// When the value is not UTF-8.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        self.get(key).map(std::str::from_utf8).transpose().with_context(|| format!("invalid {key}: not UTF-8"))
    }

    /// The value of `key` as a number.
    ///
    /// # Errors
    /// When the value is not a number.
    pub fn number(&self, key: &str) -> Result<Option<u64>> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        text.parse().map(Some).with_context(|| format!("invalid {key}: {text:?}: not a number"))
    }

    /// The keys that start with `prefix`, without it, and their values.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let of = move |records: &'a BTreeMap<String, Vec<u8>>| {
            let from = records.range(prefix.to_owned()..);
            let these = from.take_while(move |(key, _)| key.starts_with(prefix));
            these.map(move |(key, value)| (&key[prefix.len()..], value.as_slice()))
        };
        let global = of(&self.global).filter(move |(key, _)| !self.own.contains_key(&format!("{prefix}{key}")));
        of(&self.own).chain(global)
    }
}

fn add(data: &[u8], records: &mut BTreeMap<String, Vec<u8>>, bytes: &mut usize) -> Result<()> {
    for record in pax_records(data) {
        let (key, value) = record?;
        let key = std::str::from_utf8(key).context("invalid extended header (pax): key of a record: not UTF-8")?;
        *bytes = bytes.saturating_add(key.len()).saturating_add(value.len());
        ensure!(*bytes <= BYTES_MAX, "invalid archive: more than {BYTES_MAX} bytes of extended headers");
        if SPARSE_NUMBERS.contains(&key) {
            let map = records.entry(SPARSE_MAP.to_owned()).or_default();
            if !map.is_empty() {
                map.push(b',');
            }
            map.extend_from_slice(value);
        } else {
            records.insert(key.to_owned(), value.to_vec());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_can_contain_newlines_and_later_records_take_precedence() {
        let mut records = Records::default();
        records.add(b"14 path=a b/c\n21 SCHILY.xattr.u=\n\n\n12 size=123\n").unwrap();
        assert_eq!(records.get("path"), Some(&b"a b/c"[..]));
        assert_eq!(records.with_prefix("SCHILY.xattr.").collect::<Vec<_>>(), [("u", &b"\n\n"[..])]);
        assert_eq!(records.number("size").unwrap(), Some(123));
        records.add(b"10 size=7\n").unwrap();
        assert_eq!(records.number("size").unwrap(), Some(7));
    }

    #[test]
    fn records_of_an_entry_take_precedence_over_global_ones() {
        let mut global = Records::default();
        global.add_global(b"17 path=from-all\n10 gid=77\n26 SCHILY.xattr.user.a=xy\n").unwrap();
        let mut records = Records::with_global(&global);
        records.add(b"8 gid=7\n25 SCHILY.xattr.user.a=z\n").unwrap();
        assert_eq!(records.get("path"), Some(&b"from-all"[..]));
        assert_eq!(records.number("gid").unwrap(), Some(7));
        assert_eq!(records.with_prefix("SCHILY.xattr.").collect::<Vec<_>>(), [("user.a", &b"z"[..])]);
        assert_eq!(Records::with_global(&global).number("gid").unwrap(), Some(77));
    }

    #[test]
    fn the_size_of_all_headers_is_bounded() {
        let value = "x".repeat(400 << 10);
        let header = format!("{} a={value}\n", value.len() + "409610 a=\n".len());
        let mut records = Records::default();
        records.add(header.as_bytes()).unwrap();
        records.add(header.as_bytes()).unwrap();
        let error = format!("{:#}", records.add(header.as_bytes()).unwrap_err());
        assert!(error.contains("more than"), "{error}");
        let many: String = (0..2000).map(|number| format!("10 {number:04}=\n")).collect();
        assert!(Records::default().add_global(many.replace("10 ", "8 ").as_bytes()).is_err());
    }

    #[test]
    fn invalid_headers_are_refused() {
        for bad in [&b"x"[..], b"99 a=b\n", b"6 \xff=b\n"] {
            assert!(Records::default().add(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn the_number_of_global_records_is_bounded() {
        let header = |number: usize| (0..number).map(|key| format!("8 {key:04}=\n")).collect::<String>();
        Records::default().add_global(header(GLOBAL_RECORDS_MAX).as_bytes()).unwrap();
        assert!(Records::default().add_global(header(GLOBAL_RECORDS_MAX + 1).as_bytes()).is_err());
    }

    #[test]
    fn later_global_records_apply_too() {
        let mut global = Records::default();
        let mut records = Records::with_global(&global);
        global.add_global(b"10 gid=77\n").unwrap();
        assert_eq!(records.number("gid").unwrap(), None);
        records.set_global(&global);
        assert_eq!(records.number("gid").unwrap(), Some(77));
    }

    #[test]
    fn the_numbers_of_a_sparse_file_are_one_list() {
        let mut records = Records::default();
        records.add(b"23 GNU.sparse.offset=1\n25 GNU.sparse.numbytes=2\n23 GNU.sparse.offset=3\n").unwrap();
        assert_eq!(records.get(SPARSE_MAP), Some(&b"1,2,3"[..]));
    }
}
