//! A mock of podman and systemctl, as far as the module `container` uses them. Images, tags and running containers
//! are files: tests compare them, and fault injection interrupts their changes.
//!
//! The mock does not prove what podman does. The module's scenarios run the real one.
//!
//! | file in the state directory | content |
//! |---|---|
//! | `images/ID` | the behaviour of the image's server |
//! | `tags/REFERENCE`, with `+` for `/` | the image's ID |
//! | `running/CONTAINER` | the image's ID |
//! | `failed/CONTAINER` | nothing: its unit is in systemd's list of failed ones |
//!
//! A killed load leaves a temporary copy of its archive, as podman does: in `TMPDIR`, else beside the state directory.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use mender_update_module::durable::{self, Dir};
use rustix::fs::{FlockOperation, flock};

/// The directories of the state.
const KINDS: [&str; 4] = ["images", "tags", "running", "failed"];

/// Those that the engine has in its storage. As podman, it syncs neither the layers of images nor the directories of
/// its records. The others are in memory, and a power loss ends them all.
const STORED: [&str; 2] = ["images", "tags"];

/// The end of the name of a partly written file, which an interrupted command leaves.
const PARTIAL: &str = ".new";

/// The state of the mock, in a directory.
pub struct State(PathBuf);

/// A running container: its name and its image's ID.
pub type Container = (String, String);

impl State {
    /// The state in `directory`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self(directory.into())
    }

    /// The state in `directory`, for one command of the mock, without the partly written files of a killed one: podman
    /// removes these, too, when it uses its storage again. Waits for a command that still runs.
    ///
    /// # Errors
    /// When the directory cannot be changed.
    pub fn open(directory: &str) -> Result<(Self, Option<fs::File>)> {
        let state = Self::new(directory);
        let lock = loop {
            let lock = match fs::File::open(directory) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => break None, // nothing to repair
                lock => lock.with_context(|| format!("opening {directory} failed"))?,
            };
            flock(&lock, FlockOperation::LockExclusive).with_context(|| format!("locking {directory} failed"))?;
            // A command removes the directory when it is empty, also while another one waits for the lock.
            let same = |other: fs::Metadata| lock.metadata().is_ok_and(|lock| lock.ino() == other.ino());
            if fs::metadata(directory).is_ok_and(same) {
                break Some(lock);
            }
        };
        for kind in KINDS {
            for name in state.names(kind)?.into_iter().filter(|name| name.ends_with(PARTIAL)) {
                state.change(kind, || durable::remove_file(&state.0.join(kind).join(name)))?;
            }
        }
        // podman has an image and its names in one record.
        let images = state.names("images")?;
        for (tag, _) in state.tags()?.into_iter().filter(|(_, id)| !images.contains(id)) {
            state.erase("tags", &tag)?;
        }
        Ok((state, lock))
    }

    /// The directory of the state.
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// The names of the files of `kind`, sorted.
    fn names(&self, kind: &str) -> Result<Vec<String>> {
        let directory = self.0.join(kind);
        if !directory.exists() {
            return Ok(Vec::new());
        }
        let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
        let mut names = fs::read_dir(&directory)?.map(name).collect::<Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }

    fn list(&self, kind: &str) -> Result<Vec<(String, String)>> {
        let names = self.names(kind)?.into_iter().filter(|name| !name.ends_with(PARTIAL));
        names.map(|name| Ok((name.replace('+', "/"), fs::read_to_string(self.0.join(kind).join(name))?))).collect()
    }

    fn file(&self, kind: &str, name: &str) -> PathBuf {
        self.0.join(kind).join(name.replace('/', "+"))
    }

    /// The IDs of all images, with the behaviour of their servers.
    pub fn images(&self) -> Result<Vec<(String, String)>> {
        self.list("images")
    }

    /// All tags, with the IDs of their images.
    pub fn tags(&self) -> Result<Vec<(String, String)>> {
        self.list("tags")
    }

    /// All running containers.
    pub fn running(&self) -> Result<Vec<Container>> {
        self.list("running")
    }

    /// Changes files of `kind`. Times of directories and empty directories do not change, so that tests that compare
    /// directories see only the files.
    fn change(&self, kind: &str, change: impl FnOnce() -> Result<()>) -> Result<()> {
        let directories = [self.0.join(kind), self.0.clone()];
        let times =
            directories.each_ref().map(|directory| Dir::open(directory).and_then(|directory| directory.times()).ok());
        change()?;
        for (directory, times) in directories.iter().zip(times) {
            durable::remove_empty_dir(directory)?;
            if let (Ok(directory), Some(times)) = (Dir::open(directory), times) {
                directory.set_times(times)?;
            }
        }
        Ok(())
    }

    fn write(&self, kind: &str, name: &str, content: &str) -> Result<()> {
        let (path, partial) = (self.file(kind, name), self.file(kind, &format!("{name}{PARTIAL}")));
        self.change(kind, || {
            if !STORED.contains(&kind) {
                return durable::write_file(&path, content.as_bytes());
            }
            fs::create_dir_all(self.0.join(kind))?;
            fs::write(&partial, content)?;
            Ok(fs::rename(&partial, &path)?)
        })?;
        Ok(fs::File::open(&path)?.set_modified(SystemTime::UNIX_EPOCH)?)
    }

    fn erase(&self, kind: &str, name: &str) -> Result<()> {
        let path = self.file(kind, name);
        self.change(kind, || {
            if !STORED.contains(&kind) {
                return durable::remove_file(&path);
            }
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
                _ => Ok(()),
            }
        })
    }

    /// Adds the image `id`.
    pub fn add_image(&self, id: &str, mode: &str) -> Result<()> {
        self.write("images", id, mode)
    }

    /// Gives the image `id` the name `reference`.
    ///
    /// # Errors
    /// When there is no such image.
    pub fn tag(&self, id: &str, reference: &str) -> Result<()> {
        if !self.file("images", id).exists() {
            bail!("{id}: image not known");
        }
        self.write("tags", reference, id)
    }

    /// Removes the name `reference`, and keeps its image.
    pub fn untag(&self, reference: &str) -> Result<()> {
        self.erase("tags", reference)
    }

    /// Removes the tag `name`, or the image with the ID `name` if it has no tag. With its last tag an image is removed.
    ///
    /// # Errors
    /// When it does not exist, or a container uses the image.
    pub fn remove(&self, name: &str) -> Result<()> {
        let tags = self.tags()?;
        let id = tags.iter().find(|(tag, _)| tag == name).map_or(name, |(_, id)| id.as_str());
        if !self.file("images", id).exists() {
            bail!("{name}: image not known");
        }
        let others = tags.iter().filter(|(tag, of)| of == id && tag != name).count();
        let used = self.running()?.iter().any(|(_, of)| of == id);
        if others == 0 && used {
            bail!("{name}: image is in use by a container");
        }
        if name == id && others > 0 {
            bail!("{name}: image has a tag");
        }
        self.erase("tags", name)?;
        if others == 0 { self.erase("images", id) } else { Ok(()) }
    }

    /// Starts the container `name` of the image `id`.
    ///
    /// # Errors
    /// When there is no such image.
    pub fn start(&self, name: &str, id: &str) -> Result<()> {
        if !self.file("images", id).exists() {
            bail!("{id}: image not known");
        }
        self.reset_failed(name)?;
        self.write("running", name, id)
    }

    /// Stops the container `name`. One that exits by itself leaves a failed unit.
    pub fn stop(&self, name: &str) -> Result<()> {
        let running = self.running()?.into_iter().find(|(running, _)| running == name);
        if let Some((_, id)) = running {
            if self.mode(&id)? == "exit" {
                self.write("failed", name, "")?;
            }
        }
        self.erase("running", name)
    }

    /// Whether the unit of the container `name` is in systemd's list of failed ones.
    pub fn has_failed(&self, name: &str) -> bool {
        self.file("failed", name).exists()
    }

    /// Removes the unit of the container `name` from systemd's list of failed ones.
    pub fn reset_failed(&self, name: &str) -> Result<()> {
        self.erase("failed", name)
    }

    /// The behaviour of the server of the image `id`.
    ///
    /// # Errors
    /// When there is no such image.
    pub fn mode(&self, id: &str) -> Result<String> {
        fs::read_to_string(self.file("images", id)).with_context(|| format!("{id}: image not known"))
    }

    /// Simulates a power loss: removes the running containers, and the units in `units_dir`.
    pub fn lose_power(&self, units_dir: &Path) -> Result<()> {
        durable::remove_tree(&self.0.join("running"))?;
        durable::remove_tree(&self.0.join("failed"))?;
        durable::remove_tree(units_dir)
    }
}

/// The main function of the executable `program`: prints the output of `answer`, or its error, and exits then with
/// `failure`.
pub fn run_mock(program: &str, failure: u8, answer: fn(&[&str]) -> Result<String>) -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match answer(&words.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{program}: {error:#}");
            ExitCode::from(failure)
        }
    }
}

/// The directory of the mock's executables. Cargo does not build the executables of other packages for tests: they are
/// built here, unless `MENDER_TEST_EXECUTABLES` is the directory of those of the workspace. `cargo xtask test` sets it:
/// cargo-nextest runs each test in a process of its own, and a build that has nothing to do takes longer than most.
///
/// # Errors
/// When cargo fails, or the test is not run by cargo.
pub fn executables() -> Result<PathBuf> {
    if let Some(directory) = std::env::var_os("MENDER_TEST_EXECUTABLES") {
        return Ok(directory.into());
    }
    let cargo = std::env::var_os("CARGO").context("CARGO is not set: run the tests with cargo")?;
    let status = std::process::Command::new(cargo)
        .args(["build", "--quiet", "--locked", "--package", "fake-engine"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .context("starting cargo failed")?;
    anyhow::ensure!(status.success(), "building the package fake-engine failed");
    let test = std::env::current_exe().context("finding the executable of the test failed")?;
    let directory = test.ancestors().nth(2).context("the executable of the test is not in target/debug/deps")?;
    Ok(directory.to_owned())
}
