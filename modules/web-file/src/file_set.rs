//! The change of `web-file`: one set of top-level files for another.
//!
//! The staging place holds `new/`, what was downloaded, and `old/`, a hard link to every file that the switch
//! replaces or removes. `old/` is complete and on the medium before the first name in the destination changes;
//! from then on a name that is in `old/` can always be put back, by one rename and without copying. So the
//! folders themselves say how far a switch or its way back has come, name by name, at any cut.

use std::io::{self, Read, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use update_module::durable::{self, Dir, Kind, Times};
use update_module::{Change, FileName, Payload, say};

use crate::settings::{Mode, Settings};

/// Space that staging leaves free on the destination's filesystem, in bytes.
const RESERVE: u64 = 4 << 20;

/// Bytes copied at a time: the peak of what a payload of any size takes in memory.
const BUFFER: usize = 128 << 10;

/// The record of one update, complete enough to go on with in another process after a power cut.
#[derive(Serialize, Deserialize)]
pub struct FileSet {
    destination: PathBuf,
    staging: PathBuf,
    mode: Mode,
    owner: u32,
    group: u32,
    file_mode: u32,
    new: Vec<Staged>,
    /// Set by `prepare`.
    switch: Option<Switch>,
}

/// A file in the staging place. Of ten thousand, the journal needs the names only.
#[derive(Serialize, Deserialize)]
struct Staged {
    name: FileName,
    #[serde(skip)]
    bytes: u64,
    #[serde(skip)]
    sha256: String,
}

/// What the switch does to the destination as `prepare` found it.
#[derive(Serialize, Deserialize)]
struct Switch {
    /// Folders that the destination needs and that were not there, outermost first.
    make: Vec<PathBuf>,
    /// The destination's own times, where it was there.
    times: Option<Times>,
    /// Files that are replaced or removed: they get their second name in `old/`.
    keep: Vec<FileName>,
}

impl FileSet {
    /// An update of the web root that `settings` name.
    ///
    /// # Errors
    /// When the destination is not a folder or cannot be one, or an account is unknown.
    pub fn plan(settings: &Settings) -> Result<Self> {
        let destination =
            durable::resolve(&settings.dest_dir).context("dest_dir in the module's settings")?;
        if destination.exists() {
            ensure!(
                destination.is_dir(),
                "{} is not a folder: change dest_dir or move it away",
                destination.display()
            );
        }
        let (owner, group) = settings.ids()?;
        Ok(Self {
            staging: durable::beside(&destination, "web-file")?,
            destination,
            mode: settings.mode,
            owner,
            group,
            file_mode: settings.file_mode.0,
            new: Vec::new(),
            switch: None,
        })
    }

    /// Whether no file has been staged.
    pub fn is_empty(&self) -> bool {
        self.new.is_empty()
    }

    /// Makes the staging place, empty: closed to everybody else, for what is in there is not published yet.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make_staging(&self) -> Result<()> {
        self.unnoticed(|| {
            durable::remove_tree(&self.staging)?;
            Dir::make(&self.staging, 0o700)?;
            Dir::make(&self.new_folder(), 0o700).map(drop)
        })
    }

    /// Writes one file of the payload to the staging place, as it will be in the destination.
    ///
    /// # Errors
    /// When its name is taken by a folder or comes twice, space is short, or it cannot be written.
    pub fn stage(&mut self, mut payload: Payload) -> Result<()> {
        let name = payload.name.clone();
        if self.destination.is_dir() {
            self.refuse_folder(&Dir::open(&self.destination)?, &name)?;
        }
        let new = Dir::open(&self.new_folder())?;
        if let Some(size) = payload.size {
            new.check_space(size, RESERVE).with_context(|| format!("the payload file {name}"))?;
        }
        let mut file = new.create_file(&name).context("does the artifact have this name twice?")?;
        let (bytes, sha256) = copy(&mut payload, &mut file).with_context(|| {
            format!(
                "writing the payload file {name} to {} (on a full disk: free some space there and install again)",
                new.path().display()
            )
        })?;
        new.give(&name, &file, self.owner, self.group, self.file_mode)?;
        self.new.push(Staged { name, bytes, sha256 });
        Ok(())
    }

    /// Brings everything staged to the medium, reads it back, and compares.
    ///
    /// # Errors
    /// When the medium fails or returns something else than was written.
    pub fn verify(&self) -> Result<()> {
        let new = Dir::open(&self.new_folder())?;
        new.sync_filesystem()?;
        for staged in &self.new {
            let mut file = new.open_from_medium(&staged.name)?;
            let (bytes, sha256) = copy(&mut file, &mut io::sink())
                .with_context(|| format!("reading back {} from {}", staged.name, new.path().display()))?;
            ensure!(
                (bytes, &sha256) == (staged.bytes, &staged.sha256),
                "{} in {} is not what was written: {} bytes, sha256 {}, read {bytes} bytes, sha256 {sha256}: \
                 the storage is failing",
                staged.name,
                new.path().display(),
                staged.bytes,
                staged.sha256
            );
        }
        let bytes: u64 = self.new.iter().map(|staged| staged.bytes).sum();
        say(format_args!(
            "{} files, {bytes} bytes staged and verified in {}",
            self.new.len(),
            new.path().display()
        ));
        Ok(())
    }

    /// Runs `work`, which makes or removes the staging place; a destination that has it inside keeps its own times.
    fn unnoticed(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        if !self.staging.starts_with(&self.destination) {
            return work();
        }
        let destination = Dir::open(&self.destination)?;
        let times = destination.times()?;
        work()?;
        destination.set_times(times)
    }

    fn new_folder(&self) -> PathBuf {
        self.staging.join("new")
    }

    fn old_folder(&self) -> PathBuf {
        self.staging.join("old")
    }

    fn is_new(&self, name: &FileName) -> bool {
        self.new.binary_search_by(|staged| staged.name.cmp(name)).is_ok()
    }

    fn refuse_folder(&self, destination: &Dir, name: &FileName) -> Result<()> {
        if destination.kind(name)? == Some(Kind::Folder) {
            bail!(
                "the artifact has a file {name}, which is a folder in {}: nothing was changed; rename one of them",
                self.destination.display()
            );
        }
        Ok(())
    }

    /// The names in the destination that the switch replaces or removes.
    fn names_to_keep(&self, destination: &Dir) -> Result<Vec<FileName>> {
        let mut keep = Vec::new();
        for name in destination.names()? {
            let replaced = self.is_new(&name);
            if replaced {
                self.refuse_folder(destination, &name)?;
            }
            if replaced || (self.mode == Mode::Replace && destination.kind(&name)? == Some(Kind::File)) {
                keep.push(name);
            }
        }
        Ok(keep)
    }

    fn prepared(&self) -> Result<&Switch> {
        self.switch.as_ref().context("the journal says nothing of the switch")
    }
}

impl Change for FileSet {
    fn prepare(&mut self) -> Result<()> {
        self.new.sort_by(|one, other| one.name.cmp(&other.name));
        let new = Dir::open(&self.new_folder())?;
        for staged in &self.new {
            ensure!(
                new.kind(&staged.name)? == Some(Kind::File),
                "{} is no longer in {}: somebody else removed it; download again",
                staged.name,
                new.path().display()
            );
        }
        let make = durable::absent_parents(&self.destination)?;
        let (times, keep) = if make.is_empty() {
            let destination = Dir::open(&self.destination)?;
            (Some(destination.times()?), self.names_to_keep(&destination)?)
        } else {
            (None, Vec::new())
        };
        self.switch = Some(Switch { make, times, keep });
        Ok(())
    }

    fn switch(&self) -> Result<()> {
        let Switch { keep, .. } = self.prepared()?;
        let destination = durable::make_dirs(&self.destination)?;
        let new = Dir::open(&self.new_folder())?;
        let old = Dir::make(&self.old_folder(), 0o700)?;
        for name in keep {
            destination.link(name, &old)?;
        }
        old.sync()?;
        Dir::open(&self.staging)?.sync()?;
        for Staged { name, .. } in &self.new {
            if keep.binary_search(name).is_ok() {
                new.rename(name, &destination, name)?;
            } else {
                new.rename_to_free(name, &destination, name)?;
            }
        }
        for name in keep.iter().filter(|name| !self.is_new(name)) {
            destination.remove(name)?;
        }
        new.sync()?;
        destination.sync()?;
        say(format_args!("{} files are live in {}", self.new.len(), self.destination.display()));
        Ok(())
    }

    fn switch_back(&self) -> Result<()> {
        let Switch { make, times, keep } = self.prepared()?;
        if !make.is_empty() && !durable::exists(&self.destination)? {
            return durable::remove_made(make); // the switch was cut before it had made the destination
        }
        let destination = Dir::open(&self.destination)?;
        self.take_back_new(&destination, keep)?;
        self.put_back_old(&destination, keep)?;
        if let Some(times) = times {
            destination.set_times(*times)?;
        }
        destination.sync()?;
        durable::remove_made(make)?;
        say(format_args!("{} files are back in {}", keep.len(), self.destination.display()));
        Ok(())
    }

    fn forget(&self) -> Result<()> {
        self.unnoticed(|| durable::remove_tree(&self.staging))
    }
}

impl FileSet {
    /// Takes from the destination what was not there before. A file still staged never came there: one of that
    /// name in the destination is somebody else's. It goes back to where it was staged, because to free the space of a
    /// large file takes a while, and belongs to Cleanup.
    fn take_back_new(&self, destination: &Dir, keep: &[FileName]) -> Result<()> {
        let new = Dir::open(&self.new_folder())?;
        for Staged { name, .. } in &self.new {
            let staged = new.kind(name)?.is_some();
            if keep.binary_search(name).is_ok() {
                if !staged {
                    // Its name is the old one's again in a moment; without a second one it would be freed then.
                    let _ = destination.link(name, &new);
                }
            } else if !staged && destination.rename_to_free(name, &new, name).is_err() {
                destination.remove(name)?;
            }
        }
        new.sync()
    }

    /// Puts back what has its second name in `old/`. One that has none was not touched yet, or is back already.
    fn put_back_old(&self, destination: &Dir, keep: &[FileName]) -> Result<()> {
        if !durable::exists(&self.old_folder())? {
            return Ok(());
        }
        let old = Dir::open(&self.old_folder())?;
        for name in keep {
            if old.kind(name)?.is_some() {
                old.rename(name, destination, name)?;
            }
        }
        Ok(())
    }
}

/// Copies to the end: bytes, and their sha256 in hexadecimal.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<(u64, String)> {
    let mut buffer = vec![0; BUFFER];
    let (mut bytes, mut hash) = (0, Sha256::new());
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok((bytes, format!("{:x}", hash.finalize()))),
            Ok(read) => {
                to.write_all(&buffer[..read])?;
                hash.update(&buffer[..read]);
                bytes += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
