//! Reads a tar archive entry by entry from a stream. Memory does not grow with the archive.
//!
//! Supported formats: ustar, GNU and pax, with long names and sparse files. The crate `tar` decodes the fields of
//! headers. The iteration is not that crate's, because it splits extended headers at newlines, which damages binary
//! attributes, and holds them in memory whatever their size.

use std::io::{self, Read};

use anyhow::{Context, Result, bail, ensure};
use tar::{EntryType, Header};

use super::BLOCK;
use super::entry::Entry;
use super::pax::Records;
use super::sparse::{self, Part};

/// The largest extended header or long name, in bytes: several times the size that common file systems allow for all
/// attributes of a file.
const EXTENSION_MAX: u64 = 1 << 20;

/// The largest size of all extended headers and long names of an archive together, in bytes.
const EXTENSIONS_MAX: u64 = 1 << 30;

/// The largest number of entries of an archive, including extended headers.
const ENTRIES_MAX: u64 = 10_000_000;

/// A tar archive, read from `from`.
pub struct Archive<R> {
    from: R,
    /// The unread bytes of the current entry.
    left: u64,
    /// The bytes after the entry, up to a whole block.
    padding: u64,
    global: Records,
    /// A block that was read ahead.
    ahead: Option<[u8; BLOCK]>,
    entries: u64,
    /// Bytes of extended headers and long names so far.
    extensions: u64,
}

/// The extension headers of an entry.
#[derive(Default)]
struct Extensions {
    records: Records,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl<R: Read> Archive<R> {
    /// The archive that starts at the position of `from`.
    pub fn new(from: R) -> Self {
        Self { from, left: 0, padding: 0, global: Records::default(), ahead: None, entries: 0, extensions: 0 }
    }

    /// The next entry. [`Read`] then returns its content. `None` at the end of the archive, after reading all that
    /// follows.
    ///
    /// # Errors
    /// When the archive is damaged, truncated, or of another format.
    pub fn next(&mut self) -> Result<Option<Entry>> {
        let mut extensions = Extensions { records: Records::with_global(&self.global), ..Extensions::default() };
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            self.entries += 1;
            ensure!(
                self.entries <= ENTRIES_MAX,
                "invalid archive: more than {ENTRIES_MAX} entries: make several artifacts"
            );
            let size = header.entry_size().context("invalid archive: size of an entry")?;
            self.begin_content(size);
            match header.entry_type() {
                EntryType::XHeader => extensions.records.add(&self.extension(size)?)?,
                EntryType::XGlobalHeader => {
                    let data = self.extension(size)?;
                    self.global.add_global(&data)?;
                    extensions.records.set_global(&self.global);
                }
                // The volume label of GNU tar's --label.
                other if other.as_byte() == b'V' => {}
                EntryType::GNULongName => extensions.path = Some(until_nul(self.extension(size)?)),
                EntryType::GNULongLink => extensions.link = Some(until_nul(self.extension(size)?)),
                _ => return self.entry(&header, extensions).map(Some),
            }
        }
    }

    fn entry(&mut self, header: &Header, extensions: Extensions) -> Result<Entry> {
        let Extensions { records, path, link } = extensions;
        if let Some(size) = records.number("size")? {
            self.begin_content(size);
        }
        if header.entry_type() == EntryType::Link && self.left > 0 {
            self.skip_content_of_link()?;
        }
        let (size, parts) = self.extent(header, &records)?;
        let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = link.or_else(|| header.link_name_bytes().map(|link| link.into_owned())).unwrap_or_default();
        Entry::new(header, &records, path, link, size, parts)
    }

    /// The size of the file, and the parts of it that the archive contains.
    fn extent(&mut self, header: &Header, records: &Records) -> Result<(u64, Vec<Part>)> {
        let stored = self.left;
        let whole = (stored, vec![Part { offset: 0, length: stored }]);
        let (size, parts, list) = if header.entry_type() == EntryType::GNUSparse {
            let header = header.as_gnu().context("invalid archive: sparse file without GNU header")?;
            // These blocks are part of the header, and not counted as content.
            let (size, parts) = sparse::old_gnu(header, &mut self.from)?;
            (size, parts, 0)
        } else {
            match sparse::pax(records, self)? {
                Some(extent) => extent,
                None => return Ok(whole),
            }
        };
        let content: u64 = parts.iter().map(|part| part.length).sum();
        ensure!(
            content.checked_add(list) == Some(stored),
            "invalid archive: the parts of a sparse file are not as long as its content"
        );
        Ok((size, parts))
    }

    /// The next header; `None` at the end marker. An archive without the marker is truncated.
    fn header(&mut self) -> Result<Option<Header>> {
        self.skip_content()?;
        let mut block = [0; BLOCK];
        self.read_block(&mut block)?;
        if block.iter().all(|&byte| byte == 0) {
            io::copy(&mut self.from, &mut io::sink()).context("reading the archive failed")?;
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        ensure!(
            header.cksum().ok() == Some(checksum(&block)),
            "invalid archive: wrong checksum of a header: it is damaged, not a tar archive, or compressed: compress the \
             artifact instead"
        );
        Ok(Some(header))
    }

    /// Skips the content of a hard link. POSIX allows content, and some programs write the size without it: if a
    /// header or the end marker follows, the link has no content.
    fn skip_content_of_link(&mut self) -> Result<()> {
        let mut block = [0; BLOCK];
        self.read_block(&mut block)?;
        let is_header = Header::from_byte_slice(&block).cksum().ok() == Some(checksum(&block));
        if is_header || block.iter().all(|&byte| byte == 0) {
            self.ahead = Some(block);
            self.begin_content(0);
        } else {
            let whole = self.left.checked_add(self.padding).context("invalid archive: size of an entry")?;
            (self.left, self.padding) = (whole - BLOCK as u64, 0);
            self.skip_content()?;
        }
        Ok(())
    }

    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> Result<()> {
        if let Some(ahead) = self.ahead.take() {
            *block = ahead;
            return Ok(());
        }
        self.from
            .read_exact(block)
            .context("reading the archive failed: it ends without an end marker: it is truncated, compressed or empty")
    }

    fn begin_content(&mut self, size: u64) {
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    fn skip_content(&mut self) -> Result<()> {
        let rest = self.left.checked_add(self.padding).context("invalid archive: size of an entry")?;
        let skipped =
            io::copy(&mut (&mut self.from).take(rest), &mut io::sink()).context("reading the archive failed")?;
        ensure!(skipped == rest, "invalid archive: truncated in an entry");
        self.begin_content(0);
        Ok(())
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > EXTENSION_MAX {
            bail!("invalid archive: an extended header of {size} bytes: the limit is {EXTENSION_MAX}");
        }
        self.extensions = self.extensions.saturating_add(size);
        ensure!(
            self.extensions <= EXTENSIONS_MAX,
            "invalid archive: more than {EXTENSIONS_MAX} bytes of extended headers: make several artifacts"
        );
        let mut data = vec![0; size as usize];
        self.read_exact(&mut data).context("reading an extended header failed")?;
        Ok(data)
    }
}

impl<R: Read> Read for Archive<R> {
    /// Reads the content of the current entry.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.from.read(&mut buffer[..most])?;
        self.left -= read as u64;
        Ok(read)
    }
}

/// The checksum of a header: the sum of its bytes, with spaces in the checksum field.
fn checksum(block: &[u8; BLOCK]) -> u32 {
    const FIELD: std::ops::Range<usize> = 148..156;
    let byte = |(at, &byte): (usize, &u8)| if FIELD.contains(&at) { u32::from(b' ') } else { u32::from(byte) };
    block.iter().enumerate().map(byte).sum()
}

fn until_nul(mut name: Vec<u8>) -> Vec<u8> {
    name.truncate(name.iter().position(|&byte| byte == 0).unwrap_or(name.len()));
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::UnknownXattrs;

    /// An archive made by tar, with extended headers, long names, links and a sparse file.
    fn sample(format: &str) -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let long = "n".repeat(150);
        std::fs::create_dir(directory.path().join(&long)).unwrap();
        std::fs::write(directory.path().join(&long).join("file"), "content").unwrap();
        std::fs::hard_link(directory.path().join(&long).join("file"), directory.path().join("link")).unwrap();
        let sparse = std::fs::File::create(directory.path().join("sparse")).unwrap();
        for part in 0..8 {
            std::os::unix::fs::FileExt::write_all_at(&sparse, b"part", part << 16).unwrap();
        }
        let mut tar = std::process::Command::new("tar");
        let output = tar.args(["--create", "--sparse", format, "--directory"]).arg(directory.path()).arg(".").output();
        output.unwrap().stdout
    }

    fn entries(archive: &[u8]) -> Result<usize> {
        let mut archive = Archive::new(archive);
        let mut entries = 0;
        while let Some(entry) = archive.next()? {
            entry.attributes(&mender_update_module::Accounts::read()?, UnknownXattrs::Refuse)?;
            entries += 1;
        }
        Ok(entries)
    }

    #[test]
    fn more_entries_than_the_limit_are_refused() {
        let whole = sample("--format=gnu");
        let mut archive = Archive::new(whole.as_slice());
        archive.entries = ENTRIES_MAX - 1;
        assert!(archive.next().unwrap().is_some());
        let error = archive.next().err().unwrap().to_string();
        assert!(error.contains("more than 10000000 entries"), "{error}");
    }

    #[test]
    fn damaged_archives_do_not_panic() {
        for format in ["--format=gnu", "--format=posix"] {
            let whole = sample(format);
            assert_eq!(entries(&whole).unwrap(), 5, "{format}");
            let mut seed = 1_u32;
            let mut random = || {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 8) as usize
            };
            for _ in 0..5000 {
                let mut damaged = whole.clone();
                for _ in 0..=random() % 3 {
                    let at = random() % damaged.len();
                    damaged[at] = random() as u8;
                    correct_checksum(&mut damaged, at / BLOCK);
                }
                damaged.truncate(random() % damaged.len() + 1);
                let _ = entries(&damaged); // an error or not, but no panic and bounded memory
            }
        }
    }

    /// Corrects the checksum of a damaged header, so that the damage reaches the parser.
    fn correct_checksum(archive: &mut [u8], block: usize) {
        let Ok(header) = <&mut [u8; BLOCK]>::try_from(&mut archive[block * BLOCK..(block + 1) * BLOCK]) else {
            return;
        };
        if &header[257..262] == b"ustar" {
            let sum = format!("{:06o}\0 ", checksum(header));
            header[148..156].copy_from_slice(sum.as_bytes());
        }
    }

    #[test]
    fn an_extended_header_has_at_most_one_mebibyte() {
        let archive = |size: u64| {
            let mut header = Header::new_ustar();
            header.set_entry_type(EntryType::XHeader);
            header.set_size(size);
            header.set_cksum();
            let mut text = format!("{size} comment=");
            text.extend(std::iter::repeat_n('x', size as usize - text.len() - 1));
            let content = [text.as_bytes(), b"\n"].concat();
            let padding = vec![0; size.next_multiple_of(BLOCK as u64) as usize - content.len()];
            [header.as_bytes(), &content[..], &padding, &sample("--format=gnu")].concat()
        };
        assert_eq!(entries(&archive(EXTENSION_MAX)).unwrap(), 5);
        assert!(entries(&archive(EXTENSION_MAX + 1)).unwrap_err().to_string().contains("the limit is 1048576"));
    }
}
