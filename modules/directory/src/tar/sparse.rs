//! Sparse files in tar archives: the lists of the parts that have content.
//!
//! GNU tar writes its old GNU format by default, and version 1.0 of its pax format; versions 0.0 and 0.1 on request.

use std::io::Read;

use anyhow::{Context, Result, ensure};
use tar::{GnuExtSparseHeader, GnuHeader, GnuSparseHeader};

use super::BLOCK;
use super::pax::{Records, SPARSE_MAP};

/// The largest number of parts of a file, to bound memory.
const PARTS_MAX: usize = 1 << 16;

/// A part of a file that has content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The offset in the file, in bytes.
    pub offset: u64,
    /// The length, in bytes.
    pub length: u64,
}

/// The size of a file and its parts, from an old GNU header and the blocks that follow it in `from`.
///
/// # Errors
/// When the list is truncated or contradicts itself.
pub fn old_gnu(header: &GnuHeader, from: &mut impl Read) -> Result<(u64, Vec<Part>)> {
    let mut parts = Vec::new();
    add(&header.sparse, &mut parts)?;
    let mut more = header.is_extended();
    while more {
        let mut block = GnuExtSparseHeader::new();
        from.read_exact(block.as_mut_bytes()).context("reading the parts of a sparse file failed")?;
        add(&block.sparse, &mut parts)?;
        more = block.is_extended();
    }
    let size = header.real_size()?;
    check(&parts, size)?;
    Ok((size, parts))
}

fn add(listed: &[GnuSparseHeader], parts: &mut Vec<Part>) -> Result<()> {
    for part in listed.iter().filter(|part| !part.is_empty()) {
        push(parts, Part { offset: part.offset()?, length: part.length()? })?;
    }
    Ok(())
}

/// The size of a file in the pax format, its parts, and the length of the list at the start of its content in `from`.
/// `None` for a file that is not sparse.
///
/// # Errors
/// When the version is unknown, or the list is truncated or contradicts itself.
pub fn pax(records: &Records, from: &mut impl Read) -> Result<Option<(u64, Vec<Part>, u64)>> {
    if records.with_prefix("GNU.sparse.").next().is_none() {
        return Ok(None);
    }
    if let Some(map) = records.text(SPARSE_MAP)? {
        return in_header(records, map).map(|(size, parts)| Some((size, parts, 0)));
    }
    let version = (records.text("GNU.sparse.major")?, records.text("GNU.sparse.minor")?);
    ensure!(
        version == (Some("1"), Some("0")),
        "invalid sparse file: unknown version: make the archive without --sparse-version"
    );
    let size = records.number("GNU.sparse.realsize")?.context("invalid sparse file: no GNU.sparse.realsize")?;
    let mut list = List { from, taken: 0 };
    let mut parts = Vec::new();
    for _ in 0..list.number()? {
        push(&mut parts, Part { offset: list.number()?, length: list.number()? })?;
    }
    list.skip_padding()?;
    check(&parts, size)?;
    Ok(Some((size, parts, list.taken)))
}

/// The size and the parts of a file in version 0.1 or 0.0 of the pax format: `OFFSET,LENGTH,OFFSET,LENGTH…` in the
/// header.
fn in_header(records: &Records, map: &str) -> Result<(u64, Vec<Part>)> {
    let size = records.number("GNU.sparse.size")?.context("invalid sparse file: no GNU.sparse.size")?;
    let mut numbers = map.split(',').map(str::parse);
    let mut parts = Vec::new();
    while let Some(offset) = numbers.next() {
        let length = numbers.next().context("invalid sparse file: truncated list of parts")?;
        let invalid = "invalid sparse file: list of parts";
        push(&mut parts, Part { offset: offset.context(invalid)?, length: length.context(invalid)? })?;
    }
    check(&parts, size)?;
    Ok((size, parts))
}

/// A list of decimal numbers, each followed by a newline, padded with zeros to a whole block.
struct List<'a, R> {
    from: &'a mut R,
    taken: u64,
}

impl<R: Read> List<'_, R> {
    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.from.read_exact(&mut byte).context("reading the parts of a sparse file failed")?;
        self.taken += 1;
        Ok(byte[0])
    }

    fn number(&mut self) -> Result<u64> {
        let mut digits = String::new();
        loop {
            match self.byte()? {
                b'\n' => return digits.parse().context("invalid sparse file: list of parts"),
                byte => digits.push(char::from(byte)),
            }
            ensure!(digits.len() <= 20, "invalid sparse file: list of parts");
        }
    }

    fn skip_padding(&mut self) -> Result<()> {
        while self.taken % BLOCK as u64 != 0 {
            self.byte()?;
        }
        Ok(())
    }
}

fn push(parts: &mut Vec<Part>, part: Part) -> Result<()> {
    ensure!(
        parts.len() < PARTS_MAX,
        "invalid sparse file: more than {PARTS_MAX} parts: make the archive without --sparse"
    );
    // GNU tar marks a hole at the end of a file with a part of length 0.
    if part.length > 0 {
        parts.push(part);
    }
    Ok(())
}

/// Refuses parts that overlap, are not sorted, or exceed the file.
fn check(parts: &[Part], size: u64) -> Result<()> {
    let mut end = 0;
    for part in parts {
        ensure!(part.offset >= end, "invalid sparse file: overlapping parts");
        end = part.offset.checked_add(part.length).context("invalid sparse file: part too long")?;
    }
    ensure!(end <= size, "invalid sparse file: part beyond its end");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(offset: u64, length: u64) -> Part {
        Part { offset, length }
    }

    #[test]
    fn parts_without_content_are_left_out() {
        let mut parts = Vec::new();
        for length in [1, 0, 2] {
            push(&mut parts, part(7, length)).unwrap();
        }
        assert_eq!(parts, [part(7, 1), part(7, 2)]);
        parts.resize(PARTS_MAX - 1, part(0, 1));
        push(&mut parts, part(0, 1)).unwrap();
        assert!(push(&mut parts, part(0, 1)).is_err());
    }

    #[test]
    fn parts_are_sorted_and_in_the_file() {
        check(&[part(0, 2), part(2, 3)], 5).unwrap();
        for (parts, size) in
            [([part(0, 2), part(1, 1)], 9), ([part(0, 2), part(2, 3)], 4), ([part(0, 1), part(9, u64::MAX)], 9)]
        {
            assert!(check(&parts, size).is_err(), "{parts:?}");
        }
    }

    #[test]
    fn lists_are_read_with_their_padding() {
        let mut records = Records::default();
        for (key, value) in [("major", "1"), ("minor", "0"), ("realsize", "9")] {
            let record = format!(" GNU.sparse.{key}={value}\n");
            records.add(format!("{}{record}", record.len() + 2).as_bytes()).unwrap();
        }
        let list = |text: &str| {
            let mut block = text.as_bytes().to_vec();
            block.resize(BLOCK, 0);
            block.extend(b"content");
            let mut from = &block[..];
            pax(&records, &mut from).map(|found| (found, from.len()))
        };
        let expected = Some((9, vec![part(0, 2), part(4, 5)], BLOCK as u64));
        assert_eq!(list("2\n0\n2\n4\n5\n").unwrap(), (expected, 7));
        assert_eq!(list("0\n").unwrap(), (Some((9, vec![], BLOCK as u64)), 7));
        for bad in ["1\n0\n10\n", "x\n", "1\n0\n\n", "123456789012345678901\n"] {
            assert!(list(bad).is_err(), "{bad:?} was accepted");
        }
        assert_eq!(pax(&Records::default(), &mut &b""[..]).unwrap(), None);
    }
}
