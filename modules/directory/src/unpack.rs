//! Unpacks a tar archive below one directory, and never through a symlink.
//!
//! Every entry is made in its open parent directory, which is reached from the top of the tree name by name without
//! following symlinks. A stack has the directories on the way to the current entry; on leaving one, its modification
//! time is set. So memory does not grow with the archive, for any order of entries, and one directory is open at any
//! depth.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail, ensure};
use mender_update_module::durable::{Attributes, Dir, Kind, Times};
use mender_update_module::{Accounts, FileName};

use crate::settings::UnknownXattrs;
use crate::tar::{Archive, Content, Entry, Names, Part};

/// The size of the copy buffer, in bytes.
const BUFFER: usize = 128 << 10;

/// What is refused of an archive whose entries contradict each other.
pub const NO_ENTRY: &str = "invalid archive: no entry";
pub const TOP: &str = "not a directory, but the top of the tree";
pub const NOT_A_DIRECTORY: &str =
    "in its path is not a directory in this archive: make the archive from a tree, with tar";
pub const IS_A_DIRECTORY: &str = "an earlier entry makes it a directory";
pub const NO_TARGET: &str = "hard link before its target: make the archive with tar, in one run";

/// Writes entries below the top of the tree.
pub struct Unpacker {
    top: Dir,
    /// The current directory: the last of `levels`.
    here: Dir,
    /// `levels[0]` is the top.
    levels: Vec<Level>,
    accounts: Accounts,
    unknown_xattrs: UnknownXattrs,
    reserve: u64,
    buffer: Vec<u8>,
    report: Report,
}

/// A directory on the way to the current entry.
struct Level {
    /// `None` for the top.
    name: Option<FileName>,
    place: (u64, u64),
    /// The times that are set on leaving it.
    times: Times,
}

/// The content of an unpacked archive.
#[derive(Default)]
pub struct Report {
    /// The number of entries.
    pub entries: u64,
    /// The bytes written to files.
    pub bytes: u64,
    /// Whether the archive has an entry for the top of the tree, with owner and mode.
    pub has_top: bool,
}

/// Unpacks the archive `from` below `top`, and leaves `reserve` bytes free on its file system. It does not sync.
///
/// # Errors
/// When the archive is damaged, has an entry that is refused, or does not fit.
pub fn unpack(from: impl Read, top: Dir, reserve: u64, unknown_xattrs: UnknownXattrs) -> Result<Report> {
    let (times, place) = (top.times()?, top.device_and_inode()?);
    let mut unpacker = Unpacker {
        here: top.reopen()?,
        top,
        levels: vec![Level { name: None, place, times }],
        accounts: Accounts::read()?,
        unknown_xattrs,
        reserve,
        buffer: vec![0; BUFFER],
        report: Report::default(),
    };
    let mut archive = Archive::new(from);
    while let Some(entry) = archive.next()? {
        unpacker.write(&entry, &mut archive).with_context(|| format!("entry {}", entry.shown))?;
    }
    unpacker.leave(0)?;
    ensure!(unpacker.report.entries > 0, NO_ENTRY);
    Ok(unpacker.report)
}

impl Unpacker {
    fn write<R: Read>(&mut self, entry: &Entry, archive: &mut Archive<R>) -> Result<()> {
        self.report.entries += 1;
        let attributes = entry.attributes(&self.accounts, self.unknown_xattrs)?;
        let Some((name, directories)) = entry.names.split_last() else { return self.top(entry, &attributes) };
        self.enter(directories)?;
        match &entry.content {
            Content::Directory => return self.directory(name, &attributes),
            Content::File(size, parts) => {
                self.clear(name)?;
                let file = self.file(name, *size, parts, archive)?;
                self.here.set_attributes_of_file(name, &file, &attributes)?;
            }
            Content::HardLink(target) => self.hard_link(name, target)?,
            Content::Symlink(target) => {
                self.clear(name)?;
                self.here.symlink(name, target)?;
                self.here.set_attributes_of_name(name, &attributes)?;
            }
            Content::Node(node) => {
                self.clear(name)?;
                self.here.make_node(name, *node)?;
                self.here.set_attributes_of_name(name, &attributes)?;
            }
        }
        Ok(())
    }

    fn top(&mut self, entry: &Entry, attributes: &Attributes) -> Result<()> {
        ensure!(matches!(entry.content, Content::Directory), TOP);
        self.leave(1)?;
        self.report.has_top = true;
        self.set_directory(attributes)
    }

    /// Enters the directory `directories`, and makes those that do not exist.
    fn enter(&mut self, directories: &[FileName]) -> Result<()> {
        let on_the_way = self.levels[1..].iter().map(|level| level.name.as_ref());
        let common = on_the_way.zip(directories).take_while(|(here, there)| *here == Some(*there)).count();
        self.leave(1 + common)?;
        for name in &directories[common..] {
            self.descend(name, 0o755)?;
        }
        Ok(())
    }

    /// Enters `name` in the current directory; makes it with the permissions `mode` if it does not exist.
    fn descend(&mut self, name: &FileName, mode: u32) -> Result<()> {
        let here = &self.here;
        let dir = match here.kind(name)? {
            None => here.make_child(name, mode)?,
            Some(Kind::Directory) => here.child(name)?,
            Some(_) => {
                bail!("{name} {NOT_A_DIRECTORY}")
            }
        };
        self.levels.push(Level { name: Some(name.clone()), place: dir.device_and_inode()?, times: dir.times()? });
        self.here = dir;
        Ok(())
    }

    /// Leaves all directories on the way but the first `stay`.
    fn leave(&mut self, stay: usize) -> Result<()> {
        while self.levels.len() > stay {
            if let Some(level) = self.levels.pop() {
                self.here.set_times(level.times)?;
            }
            if let Some(above) = self.levels.last() {
                self.here = self.here.up(above.place)?;
            }
        }
        Ok(())
    }

    fn directory(&mut self, name: &FileName, attributes: &Attributes) -> Result<()> {
        self.descend(name, 0o700)?;
        self.set_directory(attributes)
    }

    /// Sets `attributes` on the current directory; the modification time on leaving it.
    fn set_directory(&mut self, attributes: &Attributes) -> Result<()> {
        self.here.set_attributes(attributes)?;
        if let Some(level) = self.levels.last_mut() {
            level.times = Times::at(attributes.modified);
        }
        Ok(())
    }

    /// Removes an earlier entry of the same name: the last one counts, as with tar.
    fn clear(&self, name: &FileName) -> Result<()> {
        match self.here.kind(name)? {
            None => Ok(()),
            Some(Kind::Directory) => bail!(IS_A_DIRECTORY),
            Some(_) => self.here.remove(name),
        }
    }

    fn file(&mut self, name: &FileName, size: u64, parts: &[Part], from: &mut impl Read) -> Result<File> {
        let here = &self.here;
        let bytes = parts.iter().fold(0_u64, |sum, part| sum.saturating_add(part.length));
        here.check_space(bytes, self.reserve)?;
        let file = here.create_file(name)?;
        let path = here.path().join(name);
        let writing = || format!("writing {} failed", path.display());
        for part in parts {
            copy(from, &file, *part, &mut self.buffer).with_context(writing)?;
        }
        if parts.last().is_none_or(|part| part.offset + part.length < size) {
            file.set_len(size).with_context(writing)?;
        }
        self.report.bytes = self.report.bytes.saturating_add(bytes);
        Ok(file)
    }

    fn hard_link(&mut self, name: &FileName, target: &Names) -> Result<()> {
        let (target_name, directories) = target.split_last().context("hard link to the top of the tree")?;
        let mut directory = self.top.reopen()?;
        for name in directories {
            directory = directory.child(name).context(NO_TARGET)?;
        }
        if directory.kind(target_name)?.is_none() {
            bail!(NO_TARGET);
        }
        if self.here.device_and_inode()? == directory.device_and_inode()? && name == target_name {
            return Ok(()); // a hard link to itself
        }
        self.clear(name)?;
        directory.link_as(target_name, &self.here, name)
    }
}

/// Copies one part of a file from the archive.
fn copy(from: &mut impl Read, to: &File, part: Part, buffer: &mut [u8]) -> Result<()> {
    let (mut at, end) = (part.offset, part.offset + part.length);
    while at < end {
        let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        match from.read(&mut buffer[..most]) {
            Ok(0) => bail!("invalid archive: truncated in an entry"),
            Ok(read) => {
                to.write_all_at(&buffer[..read], at)?;
                at += read as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// Fails once with an error of this kind, before its content.
    struct Failing(Option<ErrorKind>, &'static [u8]);

    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.take().map_or_else(|| self.1.read(buffer), |kind| Err(kind.into()))
        }
    }

    #[test]
    fn an_interrupted_read_is_repeated_and_another_error_is_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let copied = |kind, length| {
            let part = Part { offset: 2, length };
            copy(&mut Failing(kind, b"content"), &File::create(&path)?, part, &mut [0; 4])?;
            anyhow::Ok(std::fs::read(&path)?)
        };
        assert_eq!(copied(None, 7).unwrap(), b"\0\0content");
        assert_eq!(copied(Some(ErrorKind::Interrupted), 5).unwrap(), b"\0\0conte");
        assert!(copied(Some(ErrorKind::UnexpectedEof), 7).is_err());
        assert!(copied(None, 8).unwrap_err().to_string().contains("truncated"));
    }
}
