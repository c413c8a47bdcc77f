//! Files that an artifact brings beside images: definitions, and what containers may read of them.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use mender_update_module::durable::{self, Dir};
use mender_update_module::{FileName, Payload};

use crate::tar::{Kind, Reader};

/// The largest definition: it is text, and read into memory.
const DEFINITION: u64 = 256 << 10;

/// The most that all files of an archive may have together.
const ALL: u64 = 256 << 20;

/// The most files and directories.
const ENTRIES: usize = 2000;

/// The files of a project that is being staged, in a directory of their own.
pub struct Carried {
    directory: PathBuf,
    /// Bytes that stay free on its file system.
    reserve: u64,
    files: BTreeSet<String>,
    directories: BTreeSet<String>,
    bytes: u64,
}

impl Carried {
    /// None yet; they will be in `directory`, which need not exist.
    pub fn new(directory: PathBuf, reserve: u64) -> Self {
        Self { directory, reserve, files: BTreeSet::new(), directories: BTreeSet::new(), bytes: 0 }
    }

    /// Takes the payload file `name`, which is a definition.
    ///
    /// # Errors
    /// When it is too long, or cannot be written.
    pub fn take(&mut self, name: &FileName, payload: &mut Payload) -> Result<()> {
        let path =
            name.as_ref().to_str().with_context(|| format!("the name {name} is not UTF-8"))?.to_owned();
        let mut limited = payload.take(DEFINITION + 1);
        self.write(&path, 0o644, &mut limited).with_context(|| format!("writing {name}"))?;
        ensure!(limited.limit() > 0, "{name} is longer than a definition may be, {DEFINITION} bytes");
        Ok(())
    }

    /// Unpacks the tar archive `name`: directories and regular files, and nothing else.
    ///
    /// # Errors
    /// When it has something else, a name twice, or more than the limits, or is damaged.
    pub fn unpack(&mut self, name: &FileName, payload: &mut Payload) -> Result<()> {
        self.unpack_from(payload).with_context(|| format!("unpacking {name}"))?;
        io::copy(payload, &mut io::sink()).with_context(|| format!("reading {name}")).map(drop)
    }

    fn unpack_from(&mut self, archive: &mut impl Read) -> Result<()> {
        let mut entries = Reader::new(archive);
        while let Some(entry) = entries.next()? {
            let path = entry.path;
            ensure!(
                self.files.len() + self.directories.len() < ENTRIES,
                "it has more than {ENTRIES} files and directories"
            );
            match entry.kind {
                Kind::Directory => self.make_directories(&path)?,
                Kind::File => {
                    self.bytes = self.bytes.saturating_add(entry.size);
                    ensure!(self.bytes <= ALL, "its files have more than {ALL} bytes");
                    let mut content = (&mut entries).take(entry.size);
                    self.write(&path, entry.mode, &mut content)
                        .with_context(|| format!("the file {path:?}"))?;
                }
                Kind::Other(_) => ensure!(
                    false,
                    "{path:?} is neither a regular file nor a directory: put a copy of what a link leads to in its place"
                ),
            }
        }
        Ok(())
    }

    fn make_directories(&mut self, path: &str) -> Result<()> {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for directory in ends.map(|end| &path[..end]).filter(|directory| !directory.is_empty()) {
            ensure!(!self.files.contains(directory), "{directory:?} is a file and a directory");
            self.directories.insert(directory.to_owned());
        }
        durable::make_dirs(&self.directory.join(path)).map(drop)
    }

    fn write(&mut self, path: &str, mode: u32, content: &mut impl Read) -> Result<()> {
        ensure!(!path.is_empty() && !self.directories.contains(path), "{path:?} is a directory and a file");
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        self.make_directories(directory)?;
        ensure!(self.files.insert(path.to_owned()), "it is there twice");
        let directory = Dir::open(&self.directory.join(directory))?;
        directory.check_space(0, self.reserve)?;
        let mut file = directory.create_file(&FileName::new(name)?)?;
        io::copy(content, &mut file).context("writing it")?;
        // Nobody but root changes what a version is made of.
        file.set_permissions(Permissions::from_mode(mode & 0o755)).context("setting its mode")
    }

    /// Whether there is the file or directory `path`, without `.` in it; the empty one is the directory of all.
    pub fn has(&self, path: &str) -> bool {
        self.has_file(path) || self.directories.contains(path) || (path.is_empty() && !self.files.is_empty())
    }

    /// Whether there is the file `path`.
    pub fn has_file(&self, path: &str) -> bool {
        self.files.contains(path)
    }

    /// The content of the definition `name`.
    ///
    /// # Errors
    /// When it is missing, too long, or not UTF-8.
    pub fn definition(&self, name: &FileName) -> Result<String> {
        let path = name.as_ref().to_str().unwrap_or_default();
        ensure!(self.has_file(path), "the artifact has no file {name}");
        let path = self.directory.join(path);
        let length = fs::metadata(&path).with_context(|| format!("reading {}", path.display()))?.len();
        ensure!(length <= DEFINITION, "{name} is longer than a definition may be, {DEFINITION} bytes");
        fs::read_to_string(&path).with_context(|| format!("reading {name}"))
    }

    /// Takes `files`, names and contents.
    #[cfg(test)]
    pub fn unpack_for_test(&mut self, files: &[(&str, &str)]) {
        for (path, content) in files {
            self.write(path, 0o644, &mut content.as_bytes()).unwrap();
        }
    }

    /// Where they are while the project is staged.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::{header, padding};

    fn entry(path: &str, kind: u8, content: &[u8]) -> Vec<u8> {
        let mut entry = header(path, content.len()).to_vec();
        entry[156] = kind;
        entry[148..156].fill(b' ');
        let sum: u32 = entry.iter().map(|byte| u32::from(*byte)).sum();
        entry[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        entry.extend_from_slice(content);
        entry.resize(entry.len() + padding(content.len() as u64) as usize, 0);
        entry
    }

    fn unpack(entries: &[Vec<u8>]) -> Result<(Carried, tempfile::TempDir)> {
        let directory = tempfile::tempdir()?;
        let mut carried = Carried::new(directory.path().join("files"), 0);
        carried.unpack_from(&mut [entries.concat(), vec![0; 1024]].concat().as_slice())?;
        Ok((carried, directory))
    }

    #[test]
    fn files_and_directories_are_unpacked_and_nobody_else_may_write_to_them() {
        let (carried, directory) = unpack(&[
            entry("./conf/", b'5', b""),
            entry("./conf/a/b.env", b'0', b"A=1\n"),
            entry("c.yaml", b'0', b"x"),
        ])
        .unwrap();
        assert!(
            carried.has("conf") && carried.has("conf/a/b.env") && carried.has("") && !carried.has("conf/x")
        );
        let path = directory.path().join("files/conf/a/b.env");
        assert_eq!(fs::read(&path).unwrap(), b"A=1\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o644);
        assert_eq!(carried.definition(&FileName::new("c.yaml").unwrap()).unwrap(), "x");
    }

    #[test]
    fn links_devices_doubles_and_paths_that_lead_out_are_refused() {
        for (entries, word) in [
            (vec![entry("a", b'2', b"")], "neither"),
            (vec![entry("a", b'1', b"")], "neither"),
            (vec![entry("a", b'3', b"")], "neither"),
            (vec![entry("../a", b'0', b"")], "leads out"),
            (vec![entry("a", b'0', b""), entry("a", b'0', b"")], "twice"),
            (vec![entry("a", b'0', b""), entry("a/b", b'0', b"")], "a file and a directory"),
            (vec![entry("a", b'5', b""), entry("a", b'0', b"")], "a directory and a file"),
            ((0..=ENTRIES).map(|number| entry(&number.to_string(), b'0', b"")).collect(), "more than"),
        ] {
            let error = format!("{:#}", unpack(&entries).err().unwrap());
            assert!(error.contains(word), "{error}");
        }
    }
}
