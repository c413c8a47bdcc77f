//! The payload in its staging directory: packages, whatever the artifact called them.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use mender_update_module::durable::{self, Dir};
use mender_update_module::{FileName, Payload};
use rustix::fs::statvfs;
use tar::EntryType;

use crate::archive::{self, Of};
use crate::contents::{self, Control, Item};
use crate::control::{Key, Stanza};
use crate::database::Database;

/// What a Debian package begins with: it is an `ar` archive.
const DEB: &[u8; 8] = b"!<arch>\n";

/// The size of a tar archive's header, and where in it is said that it is one.
const TAR_HEADER: usize = 512;
const TAR: (usize, &[u8]) = (257, b"ustar");

/// Bytes of the payload read at a time: as many as a FIFO holds.
const BUFFER: usize = 64 << 10;

/// The staging directory while the payload streams in.
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
        let announced = payload.size;
        let content = head.as_slice().chain(payload);
        if is_deb {
            let read = self.package(content).with_context(reading)?;
            ensure!(
                announced.is_none_or(|size| size == read),
                "the payload file {name} has {read} bytes, but {} were announced",
                announced.unwrap_or_default()
            );
            Ok(())
        } else if is_tar {
            self.archive(content).with_context(reading)
        } else {
            bail!("the payload file {name} is neither a Debian package nor a tar archive of some");
        }
    }

    /// Takes every package in a tar archive, in whatever directories; nothing but packages may be in it.
    fn archive(&mut self, content: impl Read) -> Result<()> {
        archive::read(content, Of::Payload, |entry| {
            if entry.kind == EntryType::Directory {
                return Ok(());
            }
            let path = Path::new(OsStr::from_bytes(&entry.name));
            let shown = path.display();
            ensure!(entry.kind == EntryType::Regular, "{shown} in the archive is no regular file");
            ensure!(
                path.extension().is_some_and(|name| name == "deb"),
                "{shown} in the archive is no .deb file"
            );
            self.folder.check_space(entry.size, self.reserve)?;
            let read =
                self.package(entry.content).with_context(|| format!("reading {shown} in the archive"))?;
            ensure!(read == entry.size, "{shown} in the archive is truncated");
            Ok(())
        })
    }

    /// Writes one package under a number: what it is called, nobody asks it before the client has checked the payload.
    fn package(&mut self, mut content: impl Read) -> Result<u64> {
        self.packages += 1;
        let name = FileName::new(format!("{}.deb", self.packages))?;
        let mut file = self.folder.create_file(&name)?;
        let mut buffer = vec![0; BUFFER];
        let mut total = 0_u64;
        loop {
            let read = content.read(&mut buffer)?;
            if read == 0 {
                return Ok(total);
            }
            total = total.saturating_add(read as u64);
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
    /// Its configuration files.
    pub conffiles: Vec<PathBuf>,
    /// Whether its `preinst` diverts files of other packages.
    pub diverts: bool,
    /// Whether it is none of the payload, but was downloaded by apt.
    pub downloaded: bool,
    /// Its paths, once they have been [read](Self::read_items).
    pub items: Vec<Item>,
    /// The size of its files, as `items`.
    pub bytes: u64,
}

impl Staged {
    /// Reads which paths it has, at most `files`, and how much that is when it is unpacked.
    ///
    /// # Errors
    /// When it is damaged, has more paths, or unpacks to more than any file system of this device has free.
    pub fn read_items(&mut self, files: usize) -> Result<()> {
        (self.items, self.bytes) = contents::items(&self.path, files, largest_free_space()?)
            .with_context(|| format!("package {}", self.key))?;
        Ok(())
    }
}

/// The free bytes of the file system that has most of them.
fn largest_free_space() -> Result<u64> {
    let mounts = durable::mounts_at_or_below(Path::new("/"))?;
    let free = |mount: &PathBuf| Some(statvfs(mount).ok()?).map(|it| it.f_bavail.saturating_mul(it.f_frsize));
    Ok(mounts.iter().filter_map(free).max().unwrap_or(u64::MAX))
}

/// The most bytes that all the packages' descriptions and lists of configuration files may have together.
const TEXTS_LIMIT: usize = 4 << 20;

/// Reads which paths the packages `staged` have, at most `files` together.
///
/// # Errors
/// As [`Staged::read_items`].
pub fn read_items(staged: &mut [Staged], mut files: usize) -> Result<()> {
    for package in staged {
        package.read_items(files)?;
        files -= package.items.len();
    }
    Ok(())
}

/// The packages in the staging directory `folder`, each under its real name from now on.
///
/// # Errors
/// When one is damaged, two are the same package, or their descriptions exceed a limit.
pub fn identify(folder: &Path, database: &Database) -> Result<Vec<Staged>> {
    let dir = Dir::open(folder)?;
    let mut staged: Vec<Staged> = Vec::new();
    let mut texts = 0;
    for name in dir.names()? {
        let Control { description, conffiles, diverts } = contents::control(&folder.join(&name))?;
        texts += description.0.len() + conffiles.iter().map(|path| path.as_os_str().len()).sum::<usize>();
        ensure!(
            texts <= TEXTS_LIMIT,
            "the descriptions of the artifact's packages have more than {TEXTS_LIMIT} bytes together: split the artifact"
        );
        let (key, real_name) = (description.key(&database.native)?, FileName::new(description.file_name()?)?);
        ensure!(staged.iter().all(|other| other.key != key), "the payload has package {key} twice");
        if real_name != name {
            dir.rename_to_free(&name, &dir, &real_name)?;
        }
        let path = folder.join(&real_name);
        staged.push(Staged {
            path,
            key,
            control: description,
            conffiles,
            diverts,
            downloaded: false,
            items: Vec::new(),
            bytes: 0,
        });
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
