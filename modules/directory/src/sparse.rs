//! Sparse files in tar archives: which parts of the file have content, and where the archive says so.
//!
//! GNU tar writes them in its old form, by default, and in version 1.0 of its pax form; in versions 0.0 and 0.1 of the
//! latter on request.

use std::io::Read;

use anyhow::{Context, Result, ensure};
use tar::{GnuExtSparseHeader, GnuHeader, GnuSparseHeader};

use crate::archive::BLOCK;
use crate::pax::{Records, SPARSE_MAP};

/// The most parts that a file may have: what their list takes in memory has to stay small.
const PARTS: usize = 1 << 16;

/// A part of a file that has content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// Its bytes.
    pub length: u64,
}

/// The parts that an old GNU header lists, and the blocks that follow it in `from`.
///
/// # Errors
/// When they cannot be read or contradict each other.
pub fn old_gnu(header: &GnuHeader, from: &mut impl Read) -> Result<(u64, Vec<Part>)> {
    let mut parts = Vec::new();
    add(&header.sparse, &mut parts)?;
    let mut more = header.is_extended();
    while more {
        let mut block = GnuExtSparseHeader::new();
        from.read_exact(block.as_mut_bytes()).context("reading a sparse file's list of parts")?;
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

/// The parts of a file in version 1.0 of the pax form, which begin its content in `from`, and the bytes that the list
/// takes there. `None` for a file that is not sparse.
///
/// # Errors
/// When the version is another one, or the list cannot be read or contradicts itself.
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
        "a sparse file is in another form than 0.0, 0.1 and 1.0: make the archive without --sparse-version"
    );
    let size = records.number("GNU.sparse.realsize")?.context("a sparse file has no GNU.sparse.realsize")?;
    let mut list = List { from, taken: 0 };
    let mut parts = Vec::new();
    for _ in 0..list.number()? {
        push(&mut parts, Part { offset: list.number()?, length: list.number()? })?;
    }
    list.fill_block()?;
    check(&parts, size)?;
    Ok(Some((size, parts, list.taken)))
}

/// The parts of a file in version 0.1 of the pax form, or 0.0: `OFFSET,LENGTH,OFFSET,LENGTH…` in the header.
fn in_header(records: &Records, map: &str) -> Result<(u64, Vec<Part>)> {
    let size = records.number("GNU.sparse.size")?.context("a sparse file has no GNU.sparse.size")?;
    let mut numbers = map.split(',').map(str::parse);
    let mut parts = Vec::new();
    while let Some(offset) = numbers.next() {
        let length = numbers.next().context("a sparse file's list of parts ends in the middle of one")?;
        let malformed = "a sparse file's list of parts is malformed";
        push(&mut parts, Part { offset: offset.context(malformed)?, length: length.context(malformed)? })?;
    }
    check(&parts, size)?;
    Ok((size, parts))
}

/// Decimal numbers, each ended by a newline, filled up with zeros to whole blocks.
struct List<'a, R> {
    from: &'a mut R,
    taken: u64,
}

impl<R: Read> List<'_, R> {
    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.from.read_exact(&mut byte).context("reading a sparse file's list of parts")?;
        self.taken += 1;
        Ok(byte[0])
    }

    fn number(&mut self) -> Result<u64> {
        let mut digits = String::new();
        loop {
            match self.byte()? {
                b'\n' => return digits.parse().context("a sparse file's list of parts is malformed"),
                byte => digits.push(char::from(byte)),
            }
            ensure!(digits.len() <= 20, "a sparse file's list of parts is malformed");
        }
    }

    fn fill_block(&mut self) -> Result<()> {
        while self.taken % BLOCK as u64 != 0 {
            self.byte()?;
        }
        Ok(())
    }
}

fn push(parts: &mut Vec<Part>, part: Part) -> Result<()> {
    ensure!(
        parts.len() < PARTS,
        "a sparse file has more than {PARTS} parts: make the archive without --sparse"
    );
    // GNU tar marks a hole at the end of a file by a part of length 0 behind it.
    if part.length > 0 {
        parts.push(part);
    }
    Ok(())
}

/// Refuses parts that overlap, are out of order, or lead out of the file.
fn check(parts: &[Part], size: u64) -> Result<()> {
    let mut end = 0;
    for part in parts {
        ensure!(part.offset >= end, "a sparse file's parts overlap");
        end = part.offset.checked_add(part.length).context("a sparse file's part is too long")?;
    }
    ensure!(end <= size, "a sparse file's parts lead out of it");
    Ok(())
}
