//! A reader of tar archives from an untrusted stream, with bounded memory.

use std::io::{self, Read};

use anyhow::{Context, Result, bail, ensure};
use mender_update_module::durable::PATH_MAX;
use mender_update_module::pax_records;

/// The block size of a tar archive.
pub const BLOCK: usize = 512;

/// The longest extension header, which holds little more than a path.
const EXTENSION: u64 = 64 << 10;

/// The most entries.
const ENTRIES: usize = 20_000;

const TRUNCATED: &str = "truncated archive";
const SPARSE: &str = "unsupported archive: it has a sparse file: write it without --sparse";

/// The type of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryType {
    File,
    Directory,
    /// A link, a device, or a type that only some programs know: the byte in the header.
    Other(u8),
}

/// The header of an entry.
#[derive(Debug)]
pub struct Entry {
    /// The path, without `.`, `..` and a leading slash.
    pub path: String,
    pub entry_type: EntryType,
    /// The size of the content, in bytes.
    pub size: u64,
    /// The permissions.
    pub mode: u32,
    /// The header with its extension headers, unchanged.
    pub raw: Vec<u8>,
}

/// A tar archive that is read once, from the beginning to the end. Reads return the content of the current entry.
pub struct Reader<R> {
    from: R,
    /// The unread content of the current entry, and the padding of its last block, in bytes.
    rest: u64,
    padding: u64,
    entries: usize,
}

impl<R: Read> Reader<R> {
    pub fn new(from: R) -> Self {
        Self { from, rest: 0, padding: 0, entries: 0 }
    }

    /// The next entry; `None` at the end. The unread content of the entry before is skipped.
    ///
    /// # Errors
    /// When the archive is truncated or damaged, or has something that is not supported: paths that lead out of it,
    /// sparse files, too long paths, or too many entries.
    pub fn next(&mut self) -> Result<Option<Entry>> {
        let skipped = self.rest.saturating_add(self.padding);
        let skip =
            io::copy(&mut (&mut self.from).take(skipped), &mut io::sink()).context("reading the archive failed")?;
        ensure!(skip == skipped, TRUNCATED);
        (self.rest, self.padding) = (0, 0);
        let mut raw = Vec::new();
        let (mut path, mut size) = (None, None);
        let (mut extended, mut named) = (false, false);
        loop {
            let header = self.block()?;
            if header.iter().all(|byte| *byte == 0) {
                return Ok(None);
            }
            self.entries += 1;
            ensure!(self.entries <= ENTRIES, "unsupported archive: more than {ENTRIES} entries");
            check_sum(&header)?;
            raw.extend_from_slice(&header);
            let entry_type = header[156];
            let length = number(&header[124..136]).context("invalid size of an entry of the archive")?;
            match entry_type {
                b'x' | b'L' => {
                    // Programs disagree on which of several is valid.
                    let seen = if entry_type == b'x' { &mut extended } else { &mut named };
                    ensure!(!*seen, "unsupported archive: an entry has two extension headers of one type");
                    *seen = true;
                    ensure!(
                        !(extended && named),
                        "unsupported archive: an entry has extension headers of both types: pax and GNU"
                    );
                    let text = self.extension(length, &mut raw)?;
                    if entry_type == b'L' {
                        path = Some(text.strip_suffix(b"\0").unwrap_or(&text).to_vec());
                    } else {
                        pax(&text, &mut path, &mut size)?;
                    }
                }
                // Of a link's target, and of the whole archive: passed on.
                b'K' => drop(self.extension(length, &mut raw)?),
                b'g' => {
                    let text = self.extension(length, &mut raw)?;
                    let (mut path, mut size) = (None, None);
                    pax(&text, &mut path, &mut size)?;
                    ensure!(
                        path.is_none() && size.is_none(),
                        "unsupported archive: a global header sets one path or size for all entries"
                    );
                }
                _ => return self.entry(&header, path, size.unwrap_or(length), raw).map(Some),
            }
        }
    }

    fn entry(&mut self, header: &[u8], path: Option<Vec<u8>>, size: u64, raw: Vec<u8>) -> Result<Entry> {
        let entry_type = match header[156] {
            b'0' | 0 | b'7' => EntryType::File,
            b'5' => EntryType::Directory,
            other => EntryType::Other(other),
        };
        // Programs disagree on whether other types have content.
        let is_known = !matches!(entry_type, EntryType::Other(other) if !matches!(other, b'1'..=b'4' | b'6' | b'S'));
        ensure!(is_known, "unsupported archive: unknown type of an entry: {:?}", char::from(header[156]));
        ensure!(&header[508..] != b"tar\0", "unsupported archive: it is in the format of star: write it with GNU tar");
        ensure!(entry_type != EntryType::Other(b'S'), SPARSE);
        let path = path.unwrap_or_else(|| short_path(header));
        let size = if entry_type == EntryType::File { size } else { 0 };
        ensure!(size <= i64::MAX as u64, "damaged archive: an entry has a size of {size} bytes");
        self.rest = size;
        self.padding = padding(size);
        Ok(Entry {
            path: components(&path)?,
            entry_type,
            size,
            mode: number(&header[100..108]).unwrap_or(0o644) as u32,
            raw,
        })
    }

    /// Reads the content of an extension header, and appends it to `raw`.
    fn extension(&mut self, length: u64, raw: &mut Vec<u8>) -> Result<Vec<u8>> {
        ensure!(
            length <= EXTENSION,
            "unsupported archive: an extension header has {length} bytes, more than {EXTENSION}"
        );
        ensure!(raw.len() as u64 <= 4 * EXTENSION, "unsupported archive: an entry has too many extension headers");
        let mut text = vec![0; (length + padding(length)) as usize];
        self.from.read_exact(&mut text).context(TRUNCATED)?;
        raw.extend_from_slice(&text);
        text.truncate(length as usize);
        Ok(text)
    }

    fn block(&mut self) -> Result<[u8; BLOCK]> {
        let mut block = [0; BLOCK];
        self.from.read_exact(&mut block).context("truncated archive, or not a tar archive")?;
        Ok(block)
    }

    /// The stream, which may go on after the end of the archive.
    pub fn into_inner(self) -> R {
        self.from
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(usize::try_from(self.rest).unwrap_or(usize::MAX));
        let read = self.from.read(&mut buffer[..length])?;
        if read == 0 && length > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, TRUNCATED));
        }
        self.rest -= read as u64;
        Ok(read)
    }
}

/// The padding after a content of `size` bytes, in bytes.
pub fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

/// A header for a regular file of `size` bytes; `path` has at most 100 bytes.
pub fn header(path: &str, size: usize) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &[u8]| header[at..at + text.len()].copy_from_slice(text);
    put(0, path.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

fn check_sum(header: &[u8; BLOCK]) -> Result<()> {
    let sum: u64 = header
        .iter()
        .enumerate()
        .map(|(at, byte)| match at {
            148..156 => u64::from(b' '),
            _ => u64::from(*byte),
        })
        .sum();
    let expected = number(&header[148..156]);
    ensure!(
        expected.is_ok_and(|expected| expected == sum),
        "damaged archive, or not a tar archive: wrong checksum of a header"
    );
    Ok(())
}

/// A number in a header: octal digits, or binary, as GNU tar writes large ones.
fn number(field: &[u8]) -> Result<u64> {
    if field[0] & 0x80 != 0 {
        let (high, low) = field.split_at(field.len().saturating_sub(8));
        ensure!(high.iter().all(|byte| matches!(byte, 0 | 0x80)), "number too large or negative");
        return Ok(low.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)));
    }
    let text = String::from_utf8_lossy(field);
    let digits = text.trim_matches(|c| c == '\0' || c == ' ');
    if digits.is_empty() {
        return Ok(0);
    }
    u64::from_str_radix(digits, 8).with_context(|| format!("not an octal number: {digits:?}"))
}

/// The path in a header without extensions.
fn short_path(header: &[u8]) -> Vec<u8> {
    let text = |range: &[u8]| range.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
    let (name, prefix) = (text(&header[..100]), text(&header[345..500]));
    // GNU tar uses the bytes of POSIX' prefix for other data.
    if prefix.is_empty() || &header[257..263] != b"ustar\0" { name } else { [prefix, name].join(&b'/') }
}

/// Reads path and size from the records of a pax header.
fn pax(text: &[u8], path: &mut Option<Vec<u8>>, size: &mut Option<u64>) -> Result<()> {
    for record in pax_records(text) {
        let (key, value) = record.context("damaged archive")?;
        match key {
            // An empty value deletes the key.
            b"path" => *path = Some(value.to_vec()).filter(|value| !value.is_empty()),
            b"size" => {
                let value = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
                *size = Some(value.context("damaged archive: the size of an entry is not a number")?);
            }
            _ => ensure!(!key.starts_with(b"GNU.sparse"), SPARSE),
        }
    }
    Ok(())
}

/// `path` without `.`, repeated slashes, and a leading slash.
///
/// # Errors
/// When it leads out of the archive, is not UTF-8, or is too long.
pub fn components(path: &[u8]) -> Result<String> {
    ensure!(path.len() <= PATH_MAX, "unsupported archive: a path is longer than {PATH_MAX} bytes");
    let text = std::str::from_utf8(path).ok();
    let text =
        text.with_context(|| format!("unsupported archive: path {:?}: not UTF-8", String::from_utf8_lossy(path)))?;
    if text.chars().any(char::is_control) {
        bail!("unsupported archive: path {text:?}: it has a control character");
    }
    let parts: Vec<_> = text.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    ensure!(!parts.contains(&".."), "unsupported archive: path {text:?}: it leads out of the archive");
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests;
