//! The payload in its staging place: packages, whatever the artifact called them.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use update_module::durable::{self, Dir};
use update_module::{FileName, Payload};

use crate::control::{Key, Stanza};
use crate::database::Database;
use crate::dpkg;

/// What a Debian package begins with: it is an `ar` archive.
const DEB: &[u8; 8] = b"!<arch>\n";

/// The size of a tar archive's header, and where in it is said that it is one.
const TAR_HEADER: usize = 512;
const TAR: (usize, &[u8]) = (257, b"ustar");

/// Bytes of the payload read at a time: as many as a FIFO holds.
const BUFFER: usize = 64 << 10;

/// The staging place while the payload streams in.
pub struct Staging {
    folder: Dir,
    reserve: u64,
    packages: usize,
}

impl Staging {
    /// An empty one at `path`, which is to leave `reserve` bytes free.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make(path: &Path, reserve: u64) -> Result<Self> {
        durable::remove_tree(path)?;
        durable::make_dirs(path)?;
        Ok(Self { folder: Dir::make(path, 0o700)?, reserve, packages: 0 })
    }

    /// How many packages have come.
    pub fn packages(&self) -> usize {
        self.packages
    }

    /// Takes one file of the payload: a package, or a tar archive of some. Which, it says itself.
    ///
    /// # Errors
    /// When it is neither, is cut short, or does not fit.
    pub fn take(&mut self, mut payload: Payload) -> Result<()> {
        let name = payload.name.clone();
        self.folder.check_space(payload.size.unwrap_or_default(), self.reserve)?;
        let mut head = Vec::new();
        let reading = || format!("reading the payload file {name}");
        (&mut payload).take(TAR_HEADER as u64).read_to_end(&mut head).with_context(reading)?;
        let (is_deb, is_tar) =
            (head.starts_with(DEB), head.get(TAR.0..).is_some_and(|rest| rest.starts_with(TAR.1)));
        let content = head.as_slice().chain(payload);
        if is_deb {
            self.package(content).with_context(reading)
        } else if is_tar {
            self.archive(content).with_context(reading)
        } else {
            bail!("the payload file {name} is neither a Debian package nor a tar archive of some");
        }
    }

    /// Takes every package in a tar archive, in whatever folders; nothing but packages may be in it.
    fn archive(&mut self, content: impl Read) -> Result<()> {
        let mut archive = tar::Archive::new(content);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = entry.path()?.into_owned();
            let kind = entry.header().entry_type();
            if kind.is_dir() {
                continue;
            }
            let shown = path.display();
            ensure!(kind.is_file(), "{shown} in the archive is no regular file");
            ensure!(
                path.extension().is_some_and(|name| name == "deb"),
                "{shown} in the archive is no .deb file"
            );
            self.folder.check_space(entry.size(), self.reserve)?;
            self.package(&mut entry).with_context(|| format!("reading {shown} in the archive"))?;
        }
        Ok(())
    }

    /// Writes one package under a number: what it is called, nobody asks it before the client has checked the payload.
    fn package(&mut self, mut content: impl Read) -> Result<()> {
        self.packages += 1;
        let name = FileName::new(format!("{}.deb", self.packages))?;
        let mut file = self.folder.create_file(&name)?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = content.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            file.write_all(&buffer[..read]).with_context(|| {
                format!(
                    "writing {} (on a full disk: free some space there)",
                    self.folder.path().join(&name).display()
                )
            })?;
        }
    }

    /// Brings everything to the medium.
    ///
    /// # Errors
    /// When the medium fails.
    pub fn complete(&self) -> Result<()> {
        self.folder.sync_filesystem()
    }
}

/// One package of the payload.
pub struct Staged {
    pub path: PathBuf,
    pub key: Key,
    pub control: Stanza,
}

impl Staged {
    /// The files and folders in it.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn files(&self) -> Result<Vec<PathBuf>> {
        dpkg::look("dpkg-deb").arg("--fsys-tarfile").arg(&self.path).stream(|archive| {
            let mut files = Vec::new();
            for entry in tar::Archive::new(archive).entries()? {
                // `./usr/bin/x`, and `./` for the root.
                files.push(Path::new("/").join(entry?.path()?.strip_prefix(".").unwrap_or(Path::new(""))));
            }
            Ok(files)
        })
    }

    /// The configuration files that it says it has.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn conffiles(&self) -> Result<Vec<PathBuf>> {
        let members = control_members(&self.path)?;
        let text = members.into_iter().find(|(name, _)| name == "conffiles").map(|(_, text)| text);
        let text = String::from_utf8(text.unwrap_or_default()).context("its list of configuration files")?;
        // A flag may come before the path.
        let paths =
            text.lines().filter_map(|line| line.find('/').map(|at| PathBuf::from(line[at..].trim_end())));
        Ok(paths.collect())
    }
}

/// The files in the control archive of the package `deb`, by name.
///
/// # Errors
/// When it is damaged.
pub fn control_members(deb: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let archive = dpkg::look("dpkg-deb").arg("--ctrl-tarfile").arg(deb).output()?;
    let mut members = Vec::new();
    for entry in tar::Archive::new(archive.as_slice()).entries()? {
        let mut entry = entry?;
        let name = entry.path()?.file_name().map(|name| name.to_string_lossy().into_owned());
        if let Some(name) = name.filter(|_| entry.header().entry_type().is_file()) {
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            members.push((name, content));
        }
    }
    Ok(members)
}

/// The packages in the staging place `folder`, each under its real name from now on.
///
/// # Errors
/// When one is damaged, or two are the same package.
pub fn identify(folder: &Path, database: &Database) -> Result<Vec<Staged>> {
    let dir = Dir::open(folder)?;
    let mut staged: Vec<Staged> = Vec::new();
    for name in dir.names()? {
        let control = dpkg::control_of(&folder.join(&name))?;
        let (key, real_name) = (control.key(&database.native)?, FileName::new(control.file_name()?)?);
        ensure!(staged.iter().all(|other| other.key != key), "the payload has package {key} twice");
        if real_name != name {
            dir.rename_to_free(&name, &dir, &real_name)?;
        }
        staged.push(Staged { path: folder.join(&real_name), key, control });
    }
    dir.sync()?;
    Ok(staged)
}

/// The names in `folder`, a folder that need not exist.
///
/// # Errors
/// When it cannot be listed.
pub fn names(folder: &Path) -> Result<Vec<FileName>> {
    if durable::exists(folder)? { Dir::open(folder)?.names() } else { Ok(Vec::new()) }
}
