//! The candidates of a measurement, each on its own mock device: modules that the mock client calls, and the programs
//! that give the lower bound.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use mender_update_module_test::{Generation, MockClient, PayloadFile};
use rustix::fs::{Advice, fadvise};

use crate::content::{self, Size};

/// The size of the buffer that files are read into, in bytes.
const BUFFER: usize = 128 << 10;

/// A candidate: one row of the table.
pub struct Candidate {
    /// The name of the row.
    pub title: String,
    /// The method by which it installs a payload.
    pub method: Method,
}

/// A method to install a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// Our module `web-file`, by its executable.
    WebFile(PathBuf),
    /// A module that accepts the payload of Mender's module `single-file`.
    SingleFile(PathBuf),
    /// A module that accepts the payload of Mender's module `directory`.
    Directory(PathBuf),
    /// `cp`.
    Copy,
    /// `cp`, and the files are read back from the storage: what `web-file` does to find storage that returns other data
    /// than was written.
    CopyAndReadBack,
    /// `tar --extract`.
    Unpack,
}

impl Method {
    /// Whether the payload is one archive.
    pub fn is_archive(&self) -> bool {
        matches!(self, Self::Directory(_) | Self::Unpack)
    }

    /// The module's executable; `None` for the programs of the lower bound.
    pub fn module(&self) -> Option<&Path> {
        match self {
            Self::WebFile(path) | Self::SingleFile(path) | Self::Directory(path) => Some(path),
            Self::Copy | Self::CopyAndReadBack | Self::Unpack => None,
        }
    }
}

/// The new version: as a tree on the storage, and as the bytes that the client streams.
pub struct NewVersion {
    /// The tree.
    pub tree: PathBuf,
    /// Its size.
    pub size: Size,
    /// The files of the artifact that are the same for every candidate.
    files: Vec<(OsString, Vec<u8>)>,
    flat: bool,
}

impl NewVersion {
    /// Creates the tree in `directory` and, with `archive`, packs it.
    pub fn create(directory: &Path, size: Size, archive: bool) -> Result<Self> {
        let tree = directory.join(format!("new-{}-{}", size.files, size.bytes));
        content::write(&tree, size, !archive, content::NEW)?;
        let files = if archive {
            let mut tar = Command::new("tar");
            tar.args(["--create", "--sort=name", "--directory"]).arg(&tree).arg(".");
            vec![("update.tar".into(), stdout(&mut tar)?)]
        } else {
            let read = |number| {
                let path = content::path(number, true);
                let file = fs::read(tree.join(&path)).with_context(|| format!("reading {} failed", path.display()))?;
                Ok((path.into_os_string(), file))
            };
            (0..size.files).map(read).collect::<Result<_>>()?
        };
        Ok(Self { tree, size, files, flat: !archive })
    }
}

/// A candidate with its mock device.
pub struct Entry<'a> {
    /// The candidate.
    pub candidate: &'a Candidate,
    /// The device, with the previous version on it. The lower bound uses the directory of its device only.
    pub device: MockClient,
    new: &'a NewVersion,
    /// The files of the artifact that name the destination.
    destination_files: Vec<(OsString, Vec<u8>)>,
}

impl<'a> Entry<'a> {
    /// Creates a device in `directory` and writes the previous version to it.
    pub fn new(directory: &Path, candidate: &'a Candidate, new: &'a NewVersion) -> Result<Self> {
        let module = candidate.method.module().unwrap_or(Path::new("none"));
        let device = MockClient::without_spaces_in(directory, module, Generation::V5)?;
        let mut entry = Self { candidate, device, new, destination_files: Vec::new() };
        entry.set_destination()?;
        if candidate.method.module().is_some() {
            content::write(&entry.destination(), new.size, new.flat, content::PREVIOUS)?;
        }
        Ok(entry)
    }

    /// The directory that the update replaces.
    pub fn destination(&self) -> PathBuf {
        self.device.device().join("srv/app")
    }

    /// The marks that the observer polls.
    pub fn marks(&self) -> [(PathBuf, SeekFrom); 2] {
        content::marks(self.new.size, self.new.flat)
    }

    fn set_destination(&mut self) -> Result<()> {
        let destination = self.destination();
        let text = |name: &str, text: &OsStr| (OsString::from(name), text.as_encoded_bytes().to_vec());
        let dest_dir = text("dest_dir", destination.as_os_str());
        match &self.candidate.method {
            Method::WebFile(_) => {
                let metadata = fs::metadata(self.device.device())
                    .context("reading the metadata of the device's directory failed")?;
                let (owner, group) = (metadata.uid(), metadata.gid());
                let settings = format!("dest_dir = {destination:?}\nowner = \"{owner}\"\ngroup = \"{group}\"\n");
                self.device.set("web-file", &settings)?;
            }
            Method::SingleFile(_) => {
                let name = content::path(0, true);
                let [filename, permissions] =
                    [text("filename", name.as_os_str()), text("permissions", OsStr::new("644"))];
                self.destination_files = vec![dest_dir, filename, permissions];
            }
            Method::Directory(_) => self.destination_files = vec![dest_dir],
            Method::Copy | Method::CopyAndReadBack | Method::Unpack => {}
        }
        Ok(())
    }

    /// Calls the module in `state`, and fails if the module fails.
    pub fn call(&self, state: &str) -> Result<()> {
        let outcome = if state == "Download" {
            let files = self.destination_files.iter().chain(&self.new.files);
            let payload: Vec<PayloadFile> = files.map(|(name, file)| (name.as_os_str(), &file[..])).collect();
            self.device.download(&payload)?
        } else {
            self.device.call(state)?
        };
        let title = &self.candidate.title;
        ensure!(outcome.success(), "{title}: {state} failed: {}: {}", outcome.status, outcome.stderr.trim_end());
        Ok(())
    }

    /// Writes the new version once: the lower bound.
    pub fn write_once(&self) -> Result<()> {
        let destination = self.destination();
        fs::create_dir_all(&destination).with_context(|| format!("creating {} failed", destination.display()))?;
        if !self.candidate.method.is_archive() {
            let mut copy = Command::new("cp");
            // A clone (reflink) writes no data: it would be no lower bound.
            copy.args(["--recursive", "--reflink=never"]).arg(self.new.tree.join(".")).arg(&destination);
            return stdout(&mut copy).map(drop);
        }
        let mut tar = Command::new("tar")
            .args(["--extract", "--directory"])
            .arg(&destination)
            .stdin(Stdio::piped())
            .spawn()
            .context("starting tar failed")?;
        let archive = self.new.files.first().context("the payload has no archive")?;
        tar.stdin
            .take()
            .context("tar has no standard input")?
            .write_all(&archive.1)
            .context("writing the archive to tar failed")?;
        let status = tar.wait().context("waiting for tar failed")?;
        ensure!(status.success(), "unpacking in {} failed: tar: {status}", destination.display());
        Ok(())
    }

    /// Reads the files that [`Entry::write_once`] wrote, from the storage and not from the page cache.
    pub fn read_back(&self) -> Result<()> {
        let mut buffer = vec![0; BUFFER];
        for number in 0..self.new.size.files {
            let path = self.destination().join(content::path(number, self.new.flat));
            let reading = || format!("reading back {} failed", path.display());
            let mut file = File::open(&path).with_context(reading)?;
            fadvise(&file, 0, None, Advice::DontNeed).with_context(reading)?;
            while file.read(&mut buffer).with_context(reading)? > 0 {}
        }
        Ok(())
    }

    /// Removes the tree that [`Entry::write_once`] wrote.
    pub fn remove_destination(&self) -> Result<()> {
        let destination = self.destination();
        fs::remove_dir_all(&destination).with_context(|| format!("removing {} failed", destination.display()))
    }
}

fn stdout(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("starting {command:?} failed"))?;
    ensure!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}
