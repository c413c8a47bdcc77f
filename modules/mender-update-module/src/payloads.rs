//! The payload while it streams in: an iterator of named readers.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::name::FileName;

/// The most bytes of an announcement: the longest path, with a size.
const LINE_MAX: u64 = 8192;

/// The files of a payload in the order in which they stream in.
///
/// Each [`Payload`] has to be read to its end before the next is asked for. Once this iterator has been asked for
/// the first time it has to be followed to its end, else the client takes the download for failed; a module
/// that never asks gets the payload in `files/`.
pub struct Payloads {
    tree: PathBuf,
    sizes: bool,
    ended: bool,
}

/// One file of the payload: its name, its size in bytes where the client told it, and its content as a reader.
pub struct Payload {
    /// The file's name in the artifact.
    pub name: FileName,
    /// Its size in bytes, in `DownloadWithFileSizes` only.
    pub size: Option<u64>,
    content: File,
    read: u64,
}

impl Read for Payload {
    /// Fails where more or less comes than the client has announced.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(buffer)?;
        self.read = self.read.saturating_add(read as u64);
        match self.size {
            Some(size) if self.read > size || (read == 0 && !buffer.is_empty() && self.read < size) => {
                let come = if self.read > size { "more" } else { "less" };
                Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("payload file {}: {come} came than the {size} bytes announced", self.name),
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
        File::open(&next).and_then(|next| next.take(LINE_MAX + 1).read_to_end(&mut line)).with_context(
            || format!("reading {}, where the client announces payload files", next.display()),
        )?;
        ensure!(line.len() as u64 <= LINE_MAX, "{}: a name of more than {LINE_MAX} bytes", next.display());
        if line.is_empty() {
            return Ok(None);
        }
        let (name, size) = parse(&line, self.sizes)
            .with_context(|| format!("{} announces {:?}", next.display(), String::from_utf8_lossy(&line)))?;
        let stream = self.tree.join("streams").join(&name);
        let content = File::open(&stream)
            .with_context(|| format!("opening the payload stream {}", stream.display()))?;
        Ok(Some(Payload { name, size, content, read: 0 }))
    }
}

impl Iterator for Payloads {
    type Item = Result<Payload>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        // After the last file, or after an error, nobody writes to stream-next any more: reading it would hang.
        let announced = self.announced().transpose();
        self.ended = !matches!(announced, Some(Ok(_)));
        announced
    }
}

/// Takes `streams/NAME\n`, or with `sizes` `streams/NAME SIZE\n`, apart.
fn parse(line: &[u8], sizes: bool) -> Result<(FileName, Option<u64>)> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let Some(rest) = line.strip_prefix(b"streams/") else {
        bail!("expected a name that begins with streams/");
    };
    if !sizes {
        return Ok((FileName::new(OsStr::from_bytes(rest))?, None));
    }
    let Some(blank) = rest.iter().rposition(|&byte| byte == b' ') else {
        bail!("expected a size in bytes after the name");
    };
    let (name, size) = (&rest[..blank], &rest[blank + 1..]);
    let size = String::from_utf8_lossy(size);
    let bytes = size.parse().with_context(|| format!("{size:?} is not a size in bytes"))?;
    Ok((FileName::new(OsStr::from_bytes(name))?, Some(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> FileName {
        FileName::new(name).unwrap()
    }

    #[test]
    fn both_forms_are_understood() {
        assert_eq!(parse(b"streams/index.html\n", false).unwrap(), (name("index.html"), None));
        assert_eq!(parse(b"streams/a b\nc\n", false).unwrap(), (name("a b\nc"), None));
        assert_eq!(parse(b"streams/a b 12\n", true).unwrap(), (name("a b"), Some(12)));
    }

    #[test]
    fn everything_else_is_an_error_and_no_panic() {
        for line in [&b"x"[..], b"streams/", b"streams/..", b"streams/a/b", b"\n", b"streams/\xff/x"] {
            assert!(parse(line, false).is_err(), "{line:?} was taken");
        }
        for line in [&b"streams/a"[..], b"streams/a -1", b"streams/ 5", b"streams/a 99999999999999999999"] {
            assert!(parse(line, true).is_err(), "{line:?} was taken");
        }
    }

    #[test]
    fn more_or_less_than_announced_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("payload");
        std::fs::write(&path, "12345").unwrap();
        for (size, words) in [
            (None, ""),
            (Some(5), ""),
            (Some(4), "more came"),
            (Some(6), "less came"),
            (Some(0), "more came"),
        ] {
            let mut payload =
                Payload { name: name("payload"), size, content: File::open(&path).unwrap(), read: 0 };
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
