//! A mock of podman and of systemctl, as far as the module `container` uses them: images, tags and running containers are
//! files, so that a test can compare them and a tracer can cut what changes them.
//!
//! It is not what podman does. That is shown by the module's end-to-end scenarios, which use the real one.
//!
//! | file in the state directory | content |
//! |---|---|
//! | `images/ID` | how the image's server behaves |
//! | `tags/REFERENCE`, with `+` for `/` | the image's ID |
//! | `running/CONTAINER` | the image's ID |
//!
//! A load that is killed leaves a temporary copy of its archive, as podman's does: in `TMPDIR`, else beside the state directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use mender_update_module::durable::{self, Dir};

/// The state directory.
pub struct State(PathBuf);

/// A running container: its name and its image's ID.
pub type Container = (String, String);

impl State {
    /// The one in `directory`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self(directory.into())
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.0
    }

    fn list(&self, kind: &str) -> Result<Vec<(String, String)>> {
        let directory = self.0.join(kind);
        if !directory.exists() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // What a cut has left of a file that was being written.
            if !name.ends_with(".new") {
                found.push((name.replace('+', "/"), fs::read_to_string(entry.path())?));
            }
        }
        found.sort();
        Ok(found)
    }

    fn file(&self, kind: &str, name: &str) -> PathBuf {
        self.0.join(kind).join(name.replace('/', "+"))
    }

    /// Every image's ID, with what is known of its server.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn images(&self) -> Result<Vec<(String, String)>> {
        self.list("images")
    }

    /// Every tag, with its image's ID.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn tags(&self) -> Result<Vec<(String, String)>> {
        self.list("tags")
    }

    /// Every running container.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn running(&self) -> Result<Vec<Container>> {
        self.list("running")
    }

    /// Changes files of `kind`, and leaves no trace of that but the files: whoever compares directories is to see containers,
    /// and neither when the mock has looked after them nor where it once had one.
    fn change(&self, kind: &str, change: impl FnOnce() -> Result<()>) -> Result<()> {
        let directories = [self.0.join(kind), self.0.clone()];
        let times = directories
            .each_ref()
            .map(|directory| Dir::open(directory).and_then(|directory| directory.times()).ok());
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
        let path = self.file(kind, name);
        self.change(kind, || durable::write_file(&path, content.as_bytes()))?;
        Ok(fs::File::open(&path)?.set_modified(SystemTime::UNIX_EPOCH)?)
    }

    fn erase(&self, kind: &str, name: &str) -> Result<()> {
        self.change(kind, || durable::remove_file(&self.file(kind, name)))
    }

    /// Makes the image `id` known.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add_image(&self, id: &str, mode: &str) -> Result<()> {
        self.write("images", id, mode)
    }

    /// Makes `reference` mean the image `id`.
    ///
    /// # Errors
    /// When there is none.
    pub fn tag(&self, id: &str, reference: &str) -> Result<()> {
        if !self.file("images", id).exists() {
            bail!("{id}: image not known");
        }
        self.write("tags", reference, id)
    }

    /// Removes the tag, or image without one, `name`; with its last tag an image goes, unless a container has it.
    ///
    /// # Errors
    /// When there is none, or it is in use.
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
        self.write("running", name, id)
    }

    /// Ends the container `name`.
    ///
    /// # Errors
    /// When its file cannot be removed.
    pub fn stop(&self, name: &str) -> Result<()> {
        self.erase("running", name)
    }

    /// How the server of the image `id` behaves.
    ///
    /// # Errors
    /// When there is no such image.
    pub fn mode(&self, id: &str) -> Result<String> {
        fs::read_to_string(self.file("images", id)).with_context(|| format!("{id}: image not known"))
    }

    /// What a power loss does to containers, and to the units in `units_dir`: they are gone.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn lose_power(&self, units_dir: &Path) -> Result<()> {
        durable::remove_tree(&self.0.join("running"))?;
        durable::remove_tree(units_dir)
    }
}

/// The whole of one of the mock's executables, `program`: says what `answer` makes of its arguments, or exits with `failure`.
pub fn play(program: &str, failure: u8, answer: fn(&[&str]) -> Result<String>) -> ExitCode {
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

/// Builds the mock's executables with cargo, and returns the directory that they are in: cargo builds those of other packages
/// for no test.
///
/// # Errors
/// When cargo fails, or this is not run by it.
pub fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").context("CARGO is not set: run the tests with cargo")?;
    let status = std::process::Command::new(cargo)
        .args(["build", "--quiet", "--locked", "--package", "fake-engine"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .context("starting cargo")?;
    anyhow::ensure!(status.success(), "building the fake engine failed");
    let test = std::env::current_exe().context("where this test is")?;
    let directory = test.ancestors().nth(2).context("tests are in target/debug/deps")?;
    Ok(directory.to_owned())
}
