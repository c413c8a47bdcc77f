//! A tar archive becomes a tree: beneath one directory, and never through a symlink.
//!
//! Every entry is made in its open parent directory, which was reached from the tree's top name by name without following
//! symlinks. The names of the directories on the way to the current entry are kept on a stack; one that is left gets its own
//! modification time back. So memory does not grow with the archive, in whichever order its entries come, and one directory
//! is open at any depth.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail, ensure};
use mender_update_module::durable::{Attributes, Dir, Kind as Found, Times};
use mender_update_module::{Accounts, FileName};

use crate::archive::Archive;
use crate::entry::{Entry, Kind, Names};
use crate::settings::UnknownXattrs;
use crate::sparse::Part;

/// Bytes copied at a time.
const BUFFER: usize = 128 << 10;

/// Writes entries below the tree's top.
pub struct Unpacker {
    top: Dir,
    /// The directory that entries are made in: that of the last of `levels`.
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
    /// What it gets when it is left.
    times: Times,
}

/// What an archive had.
#[derive(Default)]
pub struct Report {
    /// Entries of all kinds.
    pub entries: u64,
    /// Bytes written to files.
    pub bytes: u64,
    /// Whether one of them was the tree's top itself, with its owner and mode.
    pub has_top: bool,
}

/// Unpacks the archive `from` below `top`, and leaves `reserve` bytes free on its file system. Nothing is synced.
///
/// # Errors
/// When the archive is damaged, has an entry that is refused, or does not fit: the entry and the cause.
pub fn unpack(from: impl Read, top: Dir, reserve: u64, unknown_xattrs: UnknownXattrs) -> Result<Report> {
    let (times, place) = (top.times()?, top.place()?);
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
        unpacker.write(&entry, &mut archive).with_context(|| format!("the entry {}", entry.shown))?;
    }
    unpacker.leave(0)?;
    ensure!(unpacker.report.entries > 0, "the archive is empty");
    Ok(unpacker.report)
}

impl Unpacker {
    fn write<R: Read>(&mut self, entry: &Entry, archive: &mut Archive<R>) -> Result<()> {
        self.report.entries += 1;
        let attributes = entry.attributes(&self.accounts, self.unknown_xattrs)?;
        let Some((name, directories)) = entry.names.split_last() else { return self.top(entry, &attributes) };
        self.enter(directories)?;
        match &entry.kind {
            Kind::Directory => return self.directory(name, &attributes),
            Kind::File(size, parts) => {
                self.clear(name)?;
                let file = self.file(name, *size, parts, archive)?;
                self.here.set_attributes_of_file(name, &file, &attributes)?;
            }
            Kind::HardLink(target) => self.hard_link(name, target)?,
            Kind::Symlink(target) => {
                self.clear(name)?;
                self.here.symlink(name, target)?;
                self.here.set_attributes_of_name(name, &attributes)?;
            }
            Kind::Node(node) => {
                self.clear(name)?;
                self.here.make_node(name, *node)?;
                self.here.set_attributes_of_name(name, &attributes)?;
            }
        }
        Ok(())
    }

    fn top(&mut self, entry: &Entry, attributes: &Attributes) -> Result<()> {
        ensure!(matches!(entry.kind, Kind::Directory), "the tree itself is no directory in the archive");
        self.leave(1)?;
        self.report.has_top = true;
        self.set_directory(attributes)
    }

    /// Comes to the directory `directories`, making what is missing of it.
    fn enter(&mut self, directories: &[FileName]) -> Result<()> {
        let on_the_way = self.levels[1..].iter().map(|level| level.name.as_ref());
        let common = on_the_way.zip(directories).take_while(|(here, there)| *here == Some(*there)).count();
        self.leave(1 + common)?;
        for name in &directories[common..] {
            self.descend(name, 0o755)?;
        }
        Ok(())
    }

    /// Comes to the directory `name` in the one that entries are made in; one that is missing gets the permissions `mode`.
    fn descend(&mut self, name: &FileName, mode: u32) -> Result<()> {
        let here = &self.here;
        let dir = match here.kind(name)? {
            None => here.make_child(name, mode)?,
            Some(Found::Directory) => here.child(name)?,
            Some(_) => bail!(
                "{name} on its way is no directory in this archive, and is not followed: make the archive of a tree as it is"
            ),
        };
        self.levels.push(Level { name: Some(name.clone()), place: dir.place()?, times: dir.times()? });
        self.here = dir;
        Ok(())
    }

    /// Leaves all but the first `stay` directories on the way.
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

    /// Gives the directory on top `attributes`, its time when it is left.
    fn set_directory(&mut self, attributes: &Attributes) -> Result<()> {
        self.here.set_attributes(attributes)?;
        if let Some(level) = self.levels.last_mut() {
            level.times = Times::at(attributes.modified);
        }
        Ok(())
    }

    /// Makes room for an entry whose name came before: the last one counts, as with tar.
    fn clear(&self, name: &FileName) -> Result<()> {
        match self.here.kind(name)? {
            None => Ok(()),
            Some(Found::Directory) => bail!("it was a directory before"),
            Some(_) => self.here.remove(name),
        }
    }

    fn file(&mut self, name: &FileName, size: u64, parts: &[Part], from: &mut impl Read) -> Result<File> {
        let here = &self.here;
        let bytes = parts.iter().fold(0_u64, |sum, part| sum.saturating_add(part.length));
        here.check_space(bytes, self.reserve)?;
        let file = here.create_file(name)?;
        let path = here.path().join(name);
        let writing = || {
            format!("writing {} (on a full disk: free some space there, and install again)", path.display())
        };
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
        let (target_name, directories) =
            target.split_last().context("it is to be another name of the tree itself")?;
        let before = "the file that it is another name of has to come before it: make the archive with tar, in one run";
        let mut directory = self.top.reopen()?;
        for name in directories {
            directory = directory.child(name).context(before)?;
        }
        if directory.kind(target_name)?.is_none() {
            bail!("{before}");
        }
        if self.here.place()? == directory.place()? && name == target_name {
            return Ok(()); // another name of itself
        }
        self.clear(name)?;
        directory.link_as(target_name, &self.here, name)
    }
}

/// Copies one part of a file from the archive to its place.
fn copy(from: &mut impl Read, to: &File, part: Part, buffer: &mut [u8]) -> Result<()> {
    let (mut at, end) = (part.offset, part.offset + part.length);
    while at < end {
        let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
        match from.read(&mut buffer[..most]) {
            Ok(0) => bail!("the archive ends in the middle of it"),
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
