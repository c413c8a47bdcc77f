//! The Mender client, played: it makes work trees, feeds payload streams and calls a module state by state.
//!
//! A mock, because thousands of calls with interruptions between any two instructions cannot be driven through the
//! real client; the end-to-end tests use that. What it does was measured at clients 3.4.0 and 5.1.0.

pub mod debian;
mod feed;
mod journals;
mod snapshot;

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use debian::System;
use feed::Course;
pub use journals::released_journals;
pub use snapshot::Snapshot;

/// Which client is played: they write the same tree with small differences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// The Go client 3.4: no newline after texts, no sizes in advance.
    V3,
    /// The C++ client 5.1: newlines, `DownloadWithFileSizes`, FIFOs left behind after the download.
    V5,
}

/// One file of a payload: its name and content.
pub type PayloadFile<'a> = (&'a OsStr, &'a [u8]);

/// How a call ended.
#[derive(Debug)]
pub struct Outcome {
    /// The exit status, or the signal.
    pub status: ExitStatus,
    /// What the module answered.
    pub stdout: String,
    /// What it wrote to the deployment log.
    pub stderr: String,
}

impl Outcome {
    /// Whether the module exited with 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }
}

/// A device with one module on it, in a temporary directory that goes with this value.
pub struct MockClient {
    /// The Debian system that the device is, if it is one. It has to be unmounted before its directory goes.
    system: Option<System>,
    /// Removes the device at the end.
    _directory: TempDir,
    device: PathBuf,
    module: PathBuf,
    generation: Generation,
    meta_data: String,
    wrapper: Vec<OsString>,
}

impl MockClient {
    /// A device on which the executable `module` is installed. Every path on it has blanks.
    ///
    /// # Errors
    /// When the temporary directory cannot be made.
    pub fn new(module: impl Into<PathBuf>, generation: Generation) -> Result<Self> {
        Self::in_directory(&env::temp_dir(), "with blanks", module, generation)
    }

    /// As [`new`](Self::new), without blanks in its paths: for modules that are known not to bear them.
    ///
    /// # Errors
    /// When the temporary directory cannot be made, or has blanks in its own path.
    pub fn without_blanks(module: impl Into<PathBuf>, generation: Generation) -> Result<Self> {
        Self::without_blanks_in(&env::temp_dir(), module, generation)
    }

    /// As [`without_blanks`](Self::without_blanks), in `parent` instead of the directory for temporary files.
    ///
    /// # Errors
    /// As there.
    pub fn without_blanks_in(
        parent: &Path,
        module: impl Into<PathBuf>,
        generation: Generation,
    ) -> Result<Self> {
        ensure!(
            !parent.to_string_lossy().contains(char::is_whitespace),
            "{} has blanks in its path, which not every module bears: choose a directory without (for temporary files, with TMPDIR)",
            parent.display()
        );
        Self::in_directory(parent, "device", module, generation)
    }

    /// The device is a directory in a temporary one without blanks: a shell that splits its path at a blank, and then
    /// removes what the first half names, is to remove something of ours.
    fn in_directory(
        parent: &Path,
        name: &str,
        module: impl Into<PathBuf>,
        generation: Generation,
    ) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("mender-").tempdir_in(parent);
        let directory = directory.context("making a device's directory")?;
        let device = directory.path().join(name);
        fs::create_dir_all(device.join("settings")).context("making the settings directory")?;
        let meta_data = "null".to_owned(); // what the client writes for an artifact without
        let module = module.into();
        Ok(Self {
            system: None,
            _directory: directory,
            device,
            module,
            generation,
            meta_data,
            wrapper: Vec::new(),
        })
    }

    /// A device that is a Debian system: a copy of the directory `base` that costs nothing, in which the module runs by
    /// chroot. Its own paths have blanks if `blanks`.
    ///
    /// # Errors
    /// When it cannot be made, which takes root.
    pub fn debian(base: &Path, module: &Path, generation: Generation, blanks: bool) -> Result<Self> {
        let mut client = Self::in_directory(
            &env::temp_dir(),
            if blanks { "with blanks" } else { "device" },
            module,
            generation,
        )?;
        let system = System::mount(base, client._directory.path(), &client.device)?;
        client.module = system.install(module)?;
        client.system = Some(system);
        for directory in [client.datastore(), client.settings()] {
            fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
        }
        Ok(client)
    }

    /// The Debian system that the device is, if it is one.
    pub fn system(&self) -> Option<&System> {
        self.system.as_ref()
    }

    /// The device's directory.
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// The directory of the modules' settings.
    pub fn settings(&self) -> PathBuf {
        self.device().join(if self.system.is_some() { "etc/mender-modules" } else { "settings" })
    }

    /// The client's own data, where modules may keep theirs.
    pub fn datastore(&self) -> PathBuf {
        match (&self.system, self.device().file_name()) {
            // Blanks in the device's own path are none to whoever has it for a root.
            (Some(_), Some(name)) => self.device().join("data").join(name),
            _ => self.device().join("mender"),
        }
    }

    /// The work tree of the update under way.
    pub fn tree(&self) -> PathBuf {
        self.datastore().join("modules/v3/payloads/0000/tree")
    }

    /// Writes the settings file of module `name`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn set(&self, name: &str, settings: &str) -> Result<()> {
        fs::write(self.settings().join(name).with_extension("toml"), settings)
            .context("writing the module's settings")
    }

    /// Gives the artifacts from now on `json` as their meta-data.
    pub fn set_meta_data(&mut self, json: impl Into<String>) {
        self.meta_data = json.into();
    }

    /// Puts `command` before every call from now on: a tracer, say. Empty for none.
    pub fn wrap<S: Into<OsString>>(&mut self, command: impl IntoIterator<Item = S>) {
        self.wrapper = command.into_iter().map(Into::into).collect();
    }

    /// Makes a fresh work tree and streams `payload` in, as `Download` or, from generation 5 on and where the module
    /// agrees, as `DownloadWithFileSizes`.
    ///
    /// # Errors
    /// When the tree cannot be made or the module not be started; a download that fails is an [`Outcome`].
    pub fn download(&self, payload: &[PayloadFile]) -> Result<Outcome> {
        let sizes = self.begin_download()?;
        let course = Course::whole(&self.tree(), payload, sizes)?;
        let (outcome, progress) = course.feed(|_| self.call(download_state(sizes)));
        if !progress.asked() {
            self.fill_files(payload)?;
        }
        if self.generation == Generation::V3 {
            fs::remove_file(self.tree().join("stream-next")).context("removing stream-next")?;
            fs::remove_dir_all(self.tree().join("streams")).context("removing streams/")?;
        }
        outcome
    }

    /// Begins a download and kills the module, with all it has started, when it has been fed half of the payload's
    /// first file. A module that does not ask for the payload has ended by then: the client is cut while it fills
    /// `files/`.
    ///
    /// # Errors
    /// When the tree cannot be made, or the module not be started or killed.
    pub fn cut_download(&self, payload: &[PayloadFile]) -> Result<()> {
        let read = || {
            thread::sleep(Duration::from_millis(20)); // what has been written is to be read, too
            true
        };
        self.cut_download_when(payload, read)
    }

    /// The same, but waits for `ready`, for a minute at most, before it kills.
    ///
    /// # Errors
    /// As [`cut_download`](Self::cut_download).
    pub fn cut_download_when(&self, payload: &[PayloadFile], ready: impl Fn() -> bool) -> Result<()> {
        let sizes = self.begin_download()?;
        let course = Course::half(&self.tree(), payload, sizes)?;
        let mut child = self.spawn(download_state(sizes), Stdio::null)?;
        let begun = Instant::now();
        let (cut, progress) = course.feed(|progress| {
            let may_wait = || begun.elapsed() < Duration::from_secs(60);
            while !(progress.stalled() && ready()) && child.try_wait()?.is_none() && may_wait() {
                thread::sleep(Duration::from_millis(1));
            }
            kill_group(&mut child)
        });
        match payload.first() {
            Some((name, content)) if !progress.asked() => {
                self.fill_files(&[(name, &content[..content.len() / 2])])?;
            }
            _ => {}
        }
        cut
    }

    /// Makes the tree for a download, and tells whether the module wants to know sizes.
    fn begin_download(&self) -> Result<bool> {
        self.make_tree()?;
        Ok(self.generation == Generation::V5 && self.call("ProvidePayloadFileSizes")?.stdout == "Yes\n")
    }

    /// Calls the module in `state`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn call(&self, state: &str) -> Result<Outcome> {
        let output = self.spawn(state, Stdio::piped)?.wait_with_output().context("waiting for the module")?;
        Ok(Outcome {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Starts a call of the module below a process of its own, which stands for the client: to be killed, so that the module
    /// loses it. Its output goes nowhere.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_below_a_client(&self, state: &str) -> Result<Child> {
        let mut command = self.command(state);
        let mut client = Command::new("sh");
        client.args(["-c", "\"$@\" & wait", "client"]).arg(command.get_program()).args(command.get_args());
        client.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        client.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command = client;
        command.spawn().context("starting the module below a client")
    }

    fn spawn(&self, state: &str, output: fn() -> Stdio) -> Result<Child> {
        let mut command = self.command(state);
        let program = command.get_program().to_owned();
        command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output())
            .stderr(output())
            .spawn()
            .with_context(|| format!("starting {}", program.to_string_lossy()))
    }

    fn command(&self, state: &str) -> Command {
        let chroot = self.system.iter().flat_map(System::chroot);
        let mut words = self.wrapper.iter().cloned().chain(chroot).chain([self.module.clone().into()]);
        let program = words.next().unwrap_or_default();
        let mut command = Command::new(&program);
        command.args(words).arg(state).arg(self.seen_by_module(&self.tree()));
        // The client starts a module with next to nothing around it.
        command.env_clear().env("PATH", "/usr/bin:/bin");
        if self.system.is_none() {
            command.env("MENDER_MODULES_SETTINGS", self.settings());
            if self.tree().is_dir() {
                command.current_dir(self.tree());
            }
        }
        command
    }

    /// What a path on the device is to the module.
    fn seen_by_module(&self, path: &Path) -> PathBuf {
        match (&self.system, path.strip_prefix(&self.device)) {
            (Some(_), Ok(inside)) => Path::new("/").join(inside),
            _ => path.to_owned(),
        }
    }

    /// Deletes the work tree, as the client does after `Cleanup` and before a download.
    ///
    /// # Errors
    /// When it cannot be deleted.
    pub fn delete_tree(&self) -> Result<()> {
        match fs::remove_dir_all(self.tree()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("deleting the work tree")
            }
            _ => Ok(()),
        }
    }

    fn make_tree(&self) -> Result<()> {
        self.delete_tree()?;
        let tree = self.tree();
        for directory in ["header", "tmp", "files", "streams"] {
            fs::create_dir_all(tree.join(directory))
                .with_context(|| format!("making {directory}/ of the work tree"))?;
        }
        let newline = if self.generation == Generation::V5 { "\n" } else { "" };
        let texts = [
            ("version", format!("3{newline}")),
            ("current_artifact_name", format!("release-1{newline}")),
            ("current_artifact_group", newline.to_owned()),
            ("current_device_type", format!("raspberrypi3{newline}")),
            ("header/artifact_name", "release-2".to_owned()),
            ("header/artifact_group", String::new()),
            (
                "header/payload_type",
                self.module.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            ),
            ("header/meta-data", self.meta_data.clone()),
        ];
        for (name, text) in texts {
            fs::write(tree.join(name), text).with_context(|| format!("writing {name} of the work tree"))?;
        }
        Ok(())
    }

    /// What the client does when the module has not asked for the streams.
    fn fill_files(&self, payload: &[PayloadFile]) -> Result<()> {
        for (name, content) in payload {
            fs::write(self.tree().join("files").join(name), content)
                .context("writing files/ of the work tree")?;
        }
        Ok(())
    }
}

fn download_state(sizes: bool) -> &'static str {
    if sizes { "DownloadWithFileSizes" } else { "Download" }
}

/// Kills `child` and all that it has started, in whichever process groups: what a power loss ends. One that has ended
/// already is no error.
fn kill_group(child: &mut Child) -> Result<()> {
    if child.try_wait()?.is_none() {
        let mut all = vec![child.id()];
        let table = parents();
        let mut at = 0;
        while let Some(&parent) = all.get(at) {
            all.extend(table.iter().filter(|(_, of)| *of == parent).map(|(process, _)| *process));
            at += 1;
        }
        for process in all.into_iter().filter_map(|process| Pid::from_raw(process as i32)) {
            let _ = kill_process(process, Signal::KILL);
        }
    }
    child.wait().map(drop).context("waiting for the module that was killed")
}

/// Every process that runs, and its parent: the fourth field of `/proc/PID/stat`, whose second is in parentheses.
fn parents() -> Vec<(u32, u32)> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let parent = |entry: fs::DirEntry| {
        let process = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let parent = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()?;
        Some((process, parent))
    };
    processes.filter_map(parent).collect()
}
