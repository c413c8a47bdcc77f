//! The payload stream: an iterator of named readers.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::name::FileName;

/// The largest announcement, in bytes: the longest path, with a size.
const LINE_MAX: u64 = 8192;

/// The files of a payload, in the order of the stream.
///
/// Read each [`Payload`] to its end before the next. After the first call of [`next`](Iterator::next), read to the
/// end of the iterator, or the download fails. If a module never calls it, the client writes the payload to `files/`.
pub struct Payloads {
    tree: PathBuf,
    sizes: bool,
    ended: bool,
}

/// One file of the payload. [`Read`] returns its content.
pub struct Payload {
    /// The name in the artifact.
    pub name: FileName,
    /// The size in bytes, in `DownloadWithFileSizes` only.
    pub size: Option<u64>,
    content: File,
    read: u64,
}

impl Read for Payload {
    /// Fails if the stream is longer or shorter than the announced size.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(buffer)?;
        self.read = self.read.saturating_add(read as u64);
        match self.size {
            Some(size) if self.read > size || (read == 0 && !buffer.is_empty() && self.read < size) => {
                let length = if self.read > size { "longer" } else { "shorter" };
                Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("payload file {}: {length} than the announced {size} bytes", self.name),
                ))
            }
            _ => Ok(read),
        }
    }
}

impl Payloads {
    /// The payloads of `Download` in the work tree `tree`.
    pub(crate) fn without_sizes(tree: &Path) -> Self {
        Self { tree: tree.to_owned(), sizes: false, ended: false }
    }

    /// The payloads of `DownloadWithFileSizes` in the work tree `tree`.
    pub(crate) fn with_sizes(tree: &Path) -> Self {
        Self { tree: tree.to_owned(), sizes: true, ended: false }
    }

    fn announced(&mut self) -> Result<Option<Payload>> {
        let next = self.tree.join("stream-next");
        let mut line = Vec::new();
        File::open(&next)
            .and_then(|next| next.take(LINE_MAX + 1).read_to_end(&mut line))
            .with_context(|| format!("reading {} failed", next.display()))?;
        ensure!(line.len() as u64 <= LINE_MAX, "invalid {}: longer than {LINE_MAX} bytes", next.display());
        if line.is_empty() {
            return Ok(None);
        }
        let (name, size) = parse(&line, self.sizes)
            .with_context(|| format!("invalid {}: {:?}", next.display(), String::from_utf8_lossy(&line)))?;
        let stream = self.tree.join("streams").join(&name);
        let content =
            File::open(&stream).with_context(|| format!("opening the payload stream {} failed", stream.display()))?;
        Ok(Some(Payload { name, size, content, read: 0 }))
    }
}

impl Iterator for Payloads {
    type Item = Result<Payload>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        // After the last file or an error, the client does not write to stream-next any more: reading it would block.
        let announced = self.announced().transpose();
        self.ended = !matches!(announced, Some(Ok(_)));
        announced
    }
}

/// Parses `streams/NAME\n`, or with `sizes` `streams/NAME SIZE\n`.
fn parse(line: &[u8], sizes: bool) -> Result<(FileName, Option<u64>)> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let Some(rest) = line.strip_prefix(b"streams/") else {
        bail!("no prefix streams/");
    };
    if !sizes {
        return Ok((FileName::new(OsStr::from_bytes(rest))?, None));
    }
    let Some(space) = rest.iter().rposition(|&byte| byte == b' ') else {
        bail!("no size after the name");
    };
    let (name, size) = (&rest[..space], &rest[space + 1..]);
    let size = String::from_utf8_lossy(size);
    let bytes = size.parse().with_context(|| format!("invalid size {size:?}"))?;
    Ok((FileName::new(OsStr::from_bytes(name))?, Some(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> FileName {
        FileName::new(name).unwrap()
    }

    #[test]
    fn both_forms_are_parsed() {
        assert_eq!(parse(b"streams/index.html\n", false).unwrap(), (name("index.html"), None));
        assert_eq!(parse(b"streams/a b\nc\n", false).unwrap(), (name("a b\nc"), None));
        assert_eq!(parse(b"streams/a b 12\n", true).unwrap(), (name("a b"), Some(12)));
    }

    #[test]
    fn invalid_announcements_are_refused() {
        for line in [&b"x"[..], b"streams/", b"streams/..", b"streams/a/b", b"\n", b"streams/\xff/x"] {
            assert!(parse(line, false).is_err(), "{line:?} was accepted");
        }
        for line in [&b"streams/a"[..], b"streams/a -1", b"streams/ 5", b"streams/a 99999999999999999999"] {
            assert!(parse(line, true).is_err(), "{line:?} was accepted");
        }
    }

    #[test]
    fn a_stream_that_differs_from_its_announced_size_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("payload");
        std::fs::write(&path, "12345").unwrap();
        for (size, words) in [(None, ""), (Some(5), ""), (Some(4), "longer"), (Some(6), "shorter"), (Some(0), "longer")]
        {
            let mut payload = Payload { name: name("payload"), size, content: File::open(&path).unwrap(), read: 0 };
            let outcome = io::read_to_string(&mut payload);
            match outcome {
                Ok(text) => assert!(words.is_empty() && text == "12345", "{size:?}"),
                Err(error) => {
                    assert!(!words.is_empty() && error.to_string().contains(words), "{size:?}: {error}")
                }
            }
        }
    }
}
