//! The files of an artifact other than images: definitions, and files that containers read.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use mender_update_module::FileName;
use mender_update_module::durable::{self, Dir};

use crate::tar::{EntryType, Reader};

/// The largest definition: it is text, and is read into memory.
const DEFINITION_MAX: u64 = 256 << 10;

/// The largest sum of the sizes of all files in an archive.
const TOTAL_MAX: u64 = 256 << 20;

/// The most files and directories.
const ENTRIES: usize = 2000;

/// The files of a project that is being staged.
pub struct ArtifactFiles {
    directory: PathBuf,
    /// The bytes that stay free on the file system.
    reserve: u64,
    files: BTreeSet<String>,
    directories: BTreeSet<String>,
    bytes: u64,
    /// The paths of the device that the definition names.
    host_paths: RefCell<BTreeSet<String>>,
}

impl ArtifactFiles {
    /// No files yet, for the directory `directory`, which need not exist.
    pub fn new(directory: PathBuf, reserve: u64) -> Self {
        Self {
            directory,
            reserve,
            files: BTreeSet::new(),
            directories: BTreeSet::new(),
            bytes: 0,
            host_paths: RefCell::default(),
        }
    }

    /// Writes the payload file `name`, a definition.
    ///
    /// # Errors
    /// When it is too long, or cannot be written.
    pub fn receive(&mut self, name: &FileName, payload: &mut impl Read) -> Result<()> {
        let path = name.as_ref().to_str().with_context(|| format!("invalid file name: {name}: not UTF-8"))?;
        let mut text = Vec::new();
        let reading = || format!("reading {name} failed");
        payload.take(DEFINITION_MAX + 1).read_to_end(&mut text).with_context(reading)?;
        let size = text.len() as u64;
        ensure!(size <= DEFINITION_MAX, "definition too long: {name}: more than {DEFINITION_MAX} bytes");
        self.write(path, 0o644, size, &mut text.as_slice()).with_context(|| format!("writing {name} failed"))
    }

    /// Unpacks the tar archive `name`.
    ///
    /// # Errors
    /// When it is damaged, exceeds a limit, has a name twice, or has something else than directories and regular files.
    pub fn unpack(&mut self, name: &FileName, payload: &mut impl Read) -> Result<()> {
        self.unpack_from(payload).with_context(|| format!("unpacking {name} failed"))?;
        io::copy(payload, &mut io::sink()).with_context(|| format!("reading {name} failed")).map(drop)
    }

    fn unpack_from(&mut self, archive: &mut impl Read) -> Result<()> {
        let mut entries = Reader::new(archive);
        while let Some(entry) = entries.next()? {
            let path = entry.path;
            ensure!(
                self.files.len() + self.directories.len() < ENTRIES,
                "unsupported archive: more than {ENTRIES} files and directories"
            );
            match entry.entry_type {
                EntryType::Directory => self.make_directories(&path)?,
                EntryType::File => {
                    self.bytes = self.bytes.saturating_add(entry.size);
                    ensure!(self.bytes <= TOTAL_MAX, "unsupported archive: its files have more than {TOTAL_MAX} bytes");
                    let mut content = (&mut entries).take(entry.size);
                    self.write(&path, entry.mode, entry.size, &mut content)
                        .with_context(|| format!("writing the file {path:?} failed"))?;
                }
                EntryType::Other(_) => bail!(
                    "unsupported archive: {path:?} is neither a regular file nor a directory: replace a link by a \
                     copy of its target"
                ),
            }
        }
        Ok(())
    }

    fn make_directories(&mut self, path: &str) -> Result<()> {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for directory in ends.map(|end| &path[..end]).filter(|directory| !directory.is_empty()) {
            ensure!(!self.files.contains(directory), "unsupported archive: {directory:?} is a file and a directory");
            self.directories.insert(directory.to_owned());
        }
        durable::make_dirs(&self.directory.join(path)).map(drop)
    }

    /// Writes the file `path` of at most `size` bytes.
    fn write(&mut self, path: &str, mode: u32, size: u64, content: &mut impl Read) -> Result<()> {
        ensure!(
            !path.is_empty() && !self.directories.contains(path),
            "unsupported archive: {path:?} is a directory and a file"
        );
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        self.make_directories(directory)?;
        ensure!(self.files.insert(path.to_owned()), "the artifact has {path:?} twice");
        let directory = Dir::open(&self.directory.join(directory))?;
        directory.check_space(size, self.reserve)?;
        let mut file = directory.create_file(&FileName::new(name)?)?;
        io::copy(content, &mut file)?;
        // Only root may change a version.
        file.set_permissions(Permissions::from_mode(mode & 0o755)).context("setting the mode failed")
    }

    /// Records that the definition names `path` of the device.
    pub fn record_host_path(&self, path: &str) {
        self.host_paths.borrow_mut().insert(path.to_owned());
    }

    /// The recorded paths of the device.
    pub fn host_paths(self) -> BTreeSet<String> {
        self.host_paths.into_inner()
    }

    /// Whether the file or directory `path` exists; `path` has no `.`, and the empty one is the top directory.
    pub fn has(&self, path: &str) -> bool {
        self.has_file(path) || self.directories.contains(path) || (path.is_empty() && !self.files.is_empty())
    }

    pub fn has_file(&self, path: &str) -> bool {
        self.files.contains(path)
    }

    /// The content of the definition `name`.
    ///
    /// # Errors
    /// When it is missing, too long, or not UTF-8.
    pub fn definition(&self, name: &FileName) -> Result<String> {
        let path = name.as_ref().to_str().unwrap_or_default();
        ensure!(
            self.has_file(path),
            "file missing in the artifact: {name}: the meta-data name it: add it, or remove its name"
        );
        let path = self.directory.join(path);
        let reading = || format!("reading {name} failed");
        let length = fs::metadata(&path).with_context(reading)?.len();
        ensure!(length <= DEFINITION_MAX, "definition too long: {name}: more than {DEFINITION_MAX} bytes");
        fs::read_to_string(&path).with_context(reading)
    }

    /// Files by their paths alone, which are not on disk, for fuzzing.
    pub fn named(paths: &[&str]) -> Self {
        let mut files = Self::new("/nowhere".into(), 0);
        for path in paths {
            files.directories.extend(path.match_indices('/').map(|(at, _)| path[..at].to_owned()));
            files.files.insert((*path).to_owned());
        }
        files
    }

    /// Writes `files`, names and contents.
    #[cfg(test)]
    pub fn write_for_test(&mut self, files: &[(&str, &str)]) {
        for (path, content) in files {
            self.write(path, 0o644, content.len() as u64, &mut content.as_bytes()).unwrap();
        }
    }

    /// The directory of the files while the project is staged.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::{header, padding};

    fn entry(path: &str, type_flag: u8, content: &[u8]) -> Vec<u8> {
        entry_of_mode(0o644, path, type_flag, content)
    }

    fn entry_of_mode(mode: u32, path: &str, type_flag: u8, content: &[u8]) -> Vec<u8> {
        let mut entry = header(path, content.len()).to_vec();
        entry[100..108].copy_from_slice(format!("{mode:07o}\0").as_bytes());
        entry[156] = type_flag;
        entry[148..156].fill(b' ');
        let sum: u32 = entry.iter().map(|byte| u32::from(*byte)).sum();
        entry[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        entry.extend_from_slice(content);
        entry.resize(entry.len() + padding(content.len() as u64) as usize, 0);
        entry
    }

    fn unpack(entries: &[Vec<u8>]) -> Result<(ArtifactFiles, tempfile::TempDir)> {
        let directory = tempfile::tempdir()?;
        let mut artifact_files = ArtifactFiles::new(directory.path().join("files"), 0);
        artifact_files.unpack_from(&mut [entries.concat(), vec![0; 1024]].concat().as_slice())?;
        Ok((artifact_files, directory))
    }

    #[test]
    fn unpacked_files_are_writable_for_root_only() {
        let (artifact_files, directory) = unpack(&[
            entry("./conf/", b'5', b""),
            entry("./conf/a/b.env", b'0', b"A=1\n"),
            entry_of_mode(0o666, "c.yaml", b'0', b"x"),
            entry_of_mode(0o6777, "bin/run", b'0', b"x"),
        ])
        .unwrap();
        assert!(
            artifact_files.has("conf")
                && artifact_files.has("conf/a/b.env")
                && artifact_files.has("")
                && !artifact_files.has("conf/x")
        );
        let files = directory.path().join("files");
        assert_eq!(fs::read(files.join("conf/a/b.env")).unwrap(), b"A=1\n");
        for (path, mode) in [("conf/a/b.env", 0o644), ("c.yaml", 0o644), ("bin/run", 0o755)] {
            assert_eq!(fs::metadata(files.join(path)).unwrap().permissions().mode() & 0o7777, mode, "{path}");
        }
        assert_eq!(artifact_files.definition(&FileName::new("c.yaml").unwrap()).unwrap(), "x");
    }

    #[test]
    fn links_devices_duplicates_and_paths_that_lead_out_are_refused() {
        for (entries, expected) in [
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
            assert!(error.contains(expected), "{error}");
        }
    }
}
