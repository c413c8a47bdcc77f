//! The payload stream: an iterator of named readers.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail, ensure};

use crate::durable::{Dir, SpaceChecked};
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
    progress: Progress,
}

/// How far the stream was read.
#[derive(Clone, Default)]
pub(crate) struct Progress(Arc<Mutex<Position>>);

/// The part of the stream that was read.
#[derive(Default)]
struct Position {
    /// Whether the client announces nothing more.
    ended: bool,
    /// The file that was announced last.
    current: Option<File>,
}

impl Progress {
    fn lock(&self) -> MutexGuard<'_, Position> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads from the streams in `tree` what a failed download has to read before it ends: the rest of the current
    /// file, and the next announcement. The file that it announces is not opened.
    ///
    /// Client 3.4.0 (`installer/modules.go`, `downloadProcessLoop`) hangs if the module ends while it does not wait for
    /// the result of a file: before it has offered the first one, or between two. In the middle of a file it reports
    /// the end of the stream and that of the module, and may hang at the second report.
    pub(crate) fn complete(&self, tree: &Path) {
        let Position { ended, current } = std::mem::take(&mut *self.lock());
        if let Some(mut current) = current {
            // A failure of the client ends the stream, too.
            let _ = io::copy(&mut current, &mut io::sink());
        }
        if !ended {
            let _ = File::open(tree.join("stream-next"))
                .and_then(|next| io::copy(&mut next.take(LINE_MAX), &mut io::sink()));
        }
    }
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

impl Payload {
    /// The content, for the caller to write to `directory`, where `reserve` bytes stay free. A client older than 4.0
    /// announces no size: then the space is checked again before each block is returned.
    ///
    /// # Errors
    /// When the announced size does not fit.
    pub fn with_space_checked<'a>(&'a mut self, directory: &'a Dir, reserve: u64) -> Result<impl Read + 'a> {
        let size = self.size;
        directory.check_space(size.unwrap_or(0), reserve)?;
        Ok(SpaceChecked::new(self, move |block, _| match size {
            Some(_) => Ok(()),
            None => directory.check_space(block, reserve),
        }))
    }
}

impl Read for Payload {
    /// Fails if the stream is longer or shorter than the announced size.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(buffer)?;
        self.read = self.read.saturating_add(read as u64);
        let Some(size) = self.size else { return Ok(read) };
        let length = match self.read.cmp(&size) {
            Ordering::Greater => "longer",
            Ordering::Less if read == 0 && !buffer.is_empty() => "shorter",
            _ => return Ok(read),
        };
        let text = format!("payload file {}: {length} than the announced {size} bytes", self.name);
        Err(io::Error::new(io::ErrorKind::InvalidData, text))
    }
}

impl Payloads {
    /// The payloads of `Download` in the work tree `tree`.
    pub(crate) fn without_sizes(tree: &Path) -> Self {
        Self { tree: tree.to_owned(), sizes: false, progress: Progress::default() }
    }

    /// The payloads of `DownloadWithFileSizes` in the work tree `tree`.
    pub(crate) fn with_sizes(tree: &Path) -> Self {
        Self { tree: tree.to_owned(), sizes: true, progress: Progress::default() }
    }

    /// The progress of this stream, also when a module has it.
    pub(crate) fn progress(&self) -> Progress {
        self.progress.clone()
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
        self.progress.lock().current = content.try_clone().ok();
        Ok(Some(Payload { name, size, content, read: 0 }))
    }
}

impl Iterator for Payloads {
    type Item = Result<Payload>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.progress.lock().ended {
            return None;
        }
        // The client writes the next announcement when the file before was read.
        self.progress.lock().current = None;
        // After the last file or an error, the client does not write to stream-next any more: reading it would block.
        let announced = self.announced().transpose();
        self.progress.lock().ended = !matches!(announced, Some(Ok(_)));
        announced
    }
}

/// Parses `streams/NAME\n`, or with `sizes` `streams/NAME SIZE\n`.
pub(crate) fn parse(line: &[u8], sizes: bool) -> Result<(FileName, Option<u64>)> {
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
    use std::thread;

    use rustix::fs;

    use super::*;
    use crate::test_support::write_when_read;

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
            let payload = Payload { name: name("payload"), size, content: File::open(&path).unwrap(), read: 0 };
            let outcome = io::read_to_string(payload.take(100));
            match outcome {
                Ok(text) => assert!(words.is_empty() && text == "12345", "{size:?}"),
                Err(error) => {
                    assert!(!words.is_empty() && error.to_string().contains(words), "{size:?}: {error}")
                }
            }
        }
    }

    #[test]
    fn a_stream_of_its_announced_size_is_read_in_parts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("payload");
        std::fs::write(&path, "12345").unwrap();
        let mut payload = Payload { name: name("payload"), size: Some(5), content: File::open(path).unwrap(), read: 0 };
        for (length, expected) in [(0, 0), (2, 2), (2, 2), (0, 0), (2, 1), (2, 0)] {
            assert_eq!(payload.read(&mut [0; 2][..length]).unwrap(), expected);
        }
    }

    #[test]
    fn an_announcement_that_is_too_long_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let line = ["streams/", &"x".repeat(LINE_MAX as usize + 1 - 8)].concat();
        std::fs::write(directory.path().join("stream-next"), line).unwrap();
        let mut payloads = Payloads::without_sizes(directory.path());
        let error = format!("{:#}", payloads.next().unwrap().err().unwrap());
        assert!(error.contains("stream-next") && error.contains("longer than"), "{error}");
        assert!(payloads.next().is_none(), "nothing more is read: it would block");
    }

    /// A work tree with FIFOs, and a client that offers `files` and then the end. It returns what it had written when
    /// it could not go on, or everything.
    fn client(tree: &Path, files: &'static [(&'static str, &'static str)]) -> thread::JoinHandle<Vec<String>> {
        let fifo = |path: &Path| fs::mknodat(fs::CWD, path, fs::FileType::Fifo, fs::Mode::RWXU, 0).unwrap();
        std::fs::create_dir(tree.join("streams")).unwrap();
        fifo(&tree.join("stream-next"));
        files.iter().for_each(|(name, _)| fifo(&tree.join("streams").join(name)));
        let tree = tree.to_owned();
        thread::spawn(move || {
            let write = |path: &str, text: &str| matches!(write_when_read(&tree.join(path), text), Some(Ok(())));
            let mut written = Vec::new();
            for (name, content) in files {
                if !write("stream-next", &format!("streams/{name}\n")) {
                    return written;
                }
                written.push((*name).to_owned());
                if !write(&format!("streams/{name}"), content) {
                    return written;
                }
            }
            if write("stream-next", "") {
                written.push(String::new());
            }
            written
        })
    }

    #[test]
    fn a_failed_download_reads_the_rest_of_its_file_and_the_next_announcement() {
        // More than a pipe holds: the client is still writing it.
        const CONTENT: &str = match std::str::from_utf8(&[b'x'; 200_000]) {
            Ok(content) => content,
            Err(_) => "",
        };
        let directory = tempfile::tempdir().unwrap();
        let client = client(directory.path(), &[("a", CONTENT)]);
        let mut payloads = Payloads::without_sizes(directory.path());
        let progress = payloads.progress();
        let mut payload = payloads.next().unwrap().unwrap();
        payload.read_exact(&mut [0; 2]).unwrap();
        drop((payload, payloads));
        progress.complete(directory.path());
        // Nothing more is read: it would block.
        progress.lock().ended = true;
        progress.complete(directory.path());
        drop(progress);
        assert_eq!(client.join().unwrap(), ["a", ""]);
    }

    #[test]
    fn a_download_that_fails_at_once_reads_the_first_announcement_only() {
        let directory = tempfile::tempdir().unwrap();
        let next = directory.path().join("stream-next");
        fs::mknodat(fs::CWD, &next, fs::FileType::Fifo, fs::Mode::RWXU, 0).unwrap();
        let client = thread::spawn(move || write_when_read(&next, "streams/a\n"));
        Payloads::without_sizes(directory.path()).progress().complete(directory.path());
        assert!(client.join().unwrap().is_some(), "the announcement was not read");
        Payloads::without_sizes(Path::new("/nowhere")).progress().complete(Path::new("/nowhere"));
    }

    #[test]
    fn all_files_are_read_in_their_order() {
        let directory = tempfile::tempdir().unwrap();
        let client = client(directory.path(), &[("a", "1"), ("b", "22")]);
        let contents = Payloads::without_sizes(directory.path()).take(3).map(|payload| {
            let payload = payload.unwrap();
            (payload.name.clone(), io::read_to_string(payload.take(100)).unwrap())
        });
        let expected = [(name("a"), "1".to_owned()), (name("b"), "22".to_owned())];
        assert_eq!(contents.collect::<Vec<_>>(), expected);
        assert_eq!(client.join().unwrap(), ["a", "b", ""]);
    }
}
