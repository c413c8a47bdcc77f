//! Extended headers of tar archives (POSIX.1-2001, "pax"), which several modules read.

use std::iter;

use anyhow::{Context, Result, ensure};

/// The records of the extended header `data`: the key and the value of each. After an error no record follows.
///
/// A record is `LENGTH KEY=VALUE` with a newline at its end. Records are split by their length, because values can
/// contain newlines, as binary attributes do. (The crate tar splits them at newlines.)
///
/// # Errors
/// For a record that is not of this form, or not complete.
pub fn pax_records(data: &[u8]) -> impl Iterator<Item = Result<(&[u8], &[u8])>> {
    let mut rest = data;
    iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let record = first_record(rest).context("invalid extended header (pax)");
        rest = record.as_ref().map_or(&[], |(_, _, rest)| *rest);
        Some(record.map(|(key, value, _)| (key, value)))
    })
}

/// The first record of `data`: key, value, and the rest.
fn first_record(data: &[u8]) -> Result<(&[u8], &[u8], &[u8])> {
    let space = data.iter().position(|&byte| byte == b' ').context("record without length")?;
    let length: usize = std::str::from_utf8(&data[..space])?.parse().context("length of a record: not a number")?;
    ensure!(length > space + 1 && length <= data.len(), "record beyond the end of its header");
    let (record, rest) = data.split_at(length);
    let pair = record[space + 1..].strip_suffix(b"\n").context("record without newline at its end")?;
    let equals = pair.iter().position(|&byte| byte == b'=').context("record without '='")?;
    Ok((&pair[..equals], &pair[equals + 1..], rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_can_contain_newlines() {
        let records: Result<Vec<_>> = pax_records(b"14 path=a b/c\n21 SCHILY.xattr.u=\n\n\n6 a==\n").take(9).collect();
        assert_eq!(records.unwrap(), [(&b"path"[..], &b"a b/c"[..]), (b"SCHILY.xattr.u", b"\n\n"), (b"a", b"=")]);
        assert_eq!(pax_records(b"").count(), 0);
    }

    #[test]
    fn invalid_records_are_an_error_and_the_last_item() {
        for bad in [
            &b"x"[..],
            b"99 a=b\n",
            b"6 a=b",
            b"5 ab\n",
            b"0 a=b\n",
            b"2 \n",
            b" a=b\n",
            b"-6 a=b\n",
            b"18446744073709551616 a=b\n",
            b"\xff a=b\n",
        ] {
            let whole = [b"6 a=b\n", bad].concat();
            let records: Vec<_> = pax_records(&whole).take(9).collect();
            assert_eq!(records.len(), 2, "{bad:?}");
            assert!(records[0].is_ok() && records[1].is_err(), "{bad:?}");
        }
    }
}
