//! Who is measured, on a device of its own: a module that the played client calls, or the program that is the floor.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use mock_client::{Generation, MockClient, PayloadFile};

use crate::content::{self, Size};

/// Somebody who installs a payload.
pub struct Contestant {
    /// The name of the row.
    pub title: String,
    /// How it is done.
    pub means: Means,
}

/// How a payload is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Means {
    /// Our module for files, by its executable.
    WebFile(PathBuf),
    /// A module that takes Mender's own payload for one file.
    SingleFile(PathBuf),
    /// A module that takes Mender's own payload for a directory.
    Directory(PathBuf),
    /// `cp`.
    Copy,
    /// `tar --extract`.
    Unpack,
}

impl Means {
    /// Whether the payload is one archive.
    pub fn is_archive(&self) -> bool {
        matches!(self, Self::Directory(_) | Self::Unpack)
    }

    /// The module's executable.
    pub fn module(&self) -> Option<&Path> {
        match self {
            Self::WebFile(path) | Self::SingleFile(path) | Self::Directory(path) => Some(path),
            Self::Copy | Self::Unpack => None,
        }
    }
}

/// The new version: as a tree on the storage, and as the bytes that the client streams.
pub struct New {
    /// The tree.
    pub tree: PathBuf,
    /// Its size.
    pub size: Size,
    /// The files of the artifact that are the same for every device.
    files: Vec<(OsString, Vec<u8>)>,
    flat: bool,
}

impl New {
    /// Makes the tree in `directory` and, with `archive`, packs it.
    pub fn make(directory: &Path, size: Size, archive: bool) -> Result<Self> {
        let tree = directory.join(format!("new-{}-{}", size.files, size.bytes));
        content::write(&tree, size, !archive, content::NEW)?;
        let files = if archive {
            let mut tar = Command::new("tar");
            tar.args(["--create", "--sort=name", "--directory"]).arg(&tree).arg(".");
            vec![("update.tar".into(), stdout(&mut tar)?)]
        } else {
            let read = |number| {
                let path = content::path(number, true);
                let file =
                    fs::read(tree.join(&path)).with_context(|| format!("reading {}", path.display()))?;
                Ok((path.into_os_string(), file))
            };
            (0..size.files).map(read).collect::<Result<_>>()?
        };
        Ok(Self { tree, size, files, flat: !archive })
    }
}

/// A contestant on its device.
pub struct Entry<'a> {
    /// Who it is.
    pub contestant: &'a Contestant,
    /// The device, with the old on it. The floor has one too, for its directory.
    pub device: MockClient,
    new: &'a New,
    /// The files of the artifact that tell the destination.
    told: Vec<(OsString, Vec<u8>)>,
}

impl<'a> Entry<'a> {
    /// Puts the old on a fresh device in `directory`.
    pub fn new(directory: &Path, contestant: &'a Contestant, new: &'a New) -> Result<Self> {
        let module = contestant.means.module().unwrap_or(Path::new("none"));
        let device = MockClient::without_spaces_in(directory, module, Generation::V5)?;
        let mut entry = Self { contestant, device, new, told: Vec::new() };
        entry.tell_destination()?;
        if contestant.means.module().is_some() {
            content::write(&entry.destination(), new.size, new.flat, content::OLD)?;
        }
        Ok(entry)
    }

    /// The directory whose content is replaced.
    pub fn destination(&self) -> PathBuf {
        self.device.device().join("srv/app")
    }

    /// Where the watcher looks.
    pub fn marks(&self) -> [(PathBuf, SeekFrom); 2] {
        content::marks(self.new.size, self.new.flat)
    }

    fn tell_destination(&mut self) -> Result<()> {
        let destination = self.destination();
        let text = |name: &str, text: &OsStr| (OsString::from(name), text.as_encoded_bytes().to_vec());
        let dest_dir = text("dest_dir", destination.as_os_str());
        match &self.contestant.means {
            Means::WebFile(_) => {
                let me = fs::metadata(self.device.device()).context("looking at the device's directory")?;
                let (owner, group) = (me.uid(), me.gid());
                let settings =
                    format!("dest_dir = {destination:?}\nowner = \"{owner}\"\ngroup = \"{group}\"\n");
                self.device.set("web-file", &settings)?;
            }
            Means::SingleFile(_) => {
                let name = content::path(0, true);
                let [filename, permissions] =
                    [text("filename", name.as_os_str()), text("permissions", OsStr::new("644"))];
                self.told = vec![dest_dir, filename, permissions];
            }
            Means::Directory(_) => self.told = vec![dest_dir],
            Means::Copy | Means::Unpack => {}
        }
        Ok(())
    }

    /// Calls the module in `state`, which has to succeed.
    pub fn call(&self, state: &str) -> Result<()> {
        let outcome = if state == "Download" {
            let files = self.told.iter().chain(&self.new.files);
            let payload: Vec<PayloadFile> = files.map(|(name, file)| (name.as_os_str(), &file[..])).collect();
            self.device.download(&payload)?
        } else {
            self.device.call(state)?
        };
        let title = &self.contestant.title;
        ensure!(
            outcome.success(),
            "{title}: {state} failed, {}: {}",
            outcome.status,
            outcome.stderr.trim_end()
        );
        Ok(())
    }

    /// What the floor does instead of an update.
    pub fn write_once(&self) -> Result<()> {
        let destination = self.destination();
        fs::create_dir_all(&destination).with_context(|| format!("making {}", destination.display()))?;
        if self.contestant.means == Means::Copy {
            let mut copy = Command::new("cp");
            // A clone writes nothing: it is no floor.
            copy.args(["--recursive", "--reflink=never"]).arg(self.new.tree.join(".")).arg(&destination);
            return stdout(&mut copy).map(drop);
        }
        let mut tar = Command::new("tar")
            .args(["--extract", "--directory"])
            .arg(&destination)
            .stdin(Stdio::piped())
            .spawn()
            .context("starting tar")?;
        let archive = self.new.files.first().context("there is no archive")?;
        tar.stdin
            .take()
            .context("tar has no standard input")?
            .write_all(&archive.1)
            .context("feeding tar")?;
        ensure!(tar.wait().context("waiting for tar")?.success(), "tar failed in {}", destination.display());
        Ok(())
    }

    /// Removes what the floor has written.
    pub fn remove_destination(&self) -> Result<()> {
        let destination = self.destination();
        fs::remove_dir_all(&destination).with_context(|| format!("removing {}", destination.display()))
    }
}

fn stdout(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    ensure!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}
