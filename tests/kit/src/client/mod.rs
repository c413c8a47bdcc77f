//! A mock of the Mender client: makes work trees, feeds payload streams and calls a module state by state.
//!
//! It is a mock because fault injection needs thousands of calls. What it does was measured with the real clients 3.4.0
//! and 5.1.0.

mod by_hand;
mod download;
mod failing_call;
mod feed;
mod outcome;

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::debian::System;
pub use outcome::Outcome;

/// Runs its arguments in the background with their output in a pipe, of which this shell has the only reader.
const BELOW_A_CLIENT: &str = r#"
    pipe=$(mktemp --dry-run) && mkfifo "$pipe" && exec 3<> "$pipe" && rm "$pipe"
    (exec "$@" > /proc/self/fd/3 2>&1 3<&-) &
    wait
"#;

/// The generation of the client: both write the same work tree, with small differences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// The Go client 3.4: no newline after texts, no sizes in advance.
    V3,
    /// The C++ client 5.1: newlines, `DownloadWithFileSizes`, FIFOs left behind after the download.
    V5,
}

/// One file of a payload: its name and its content.
pub type PayloadFile<'a> = (&'a OsStr, &'a [u8]);

/// A device with one module, in a temporary directory that is removed with this value.
///
/// ```no_run
/// use std::ffi::OsStr;
/// use mender_update_module_test::{Generation, MockClient};
///
/// # fn main() -> anyhow::Result<()> {
/// let client = MockClient::new("target/debug/my-module", Generation::V5)?;
/// client.set("my-module", "file = \"/etc/app.conf\"\n")?;
/// assert!(client.download(&[(OsStr::new("app.conf"), b"new")])?.success());
/// assert!(client.call("ArtifactInstall")?.success());
/// # Ok(())
/// # }
/// ```
pub struct MockClient {
    /// The Debian system of the device, if it has one. Declared first: it is unmounted before its directory is removed.
    system: Option<System>,
    _directory: TempDir,
    device: PathBuf,
    module: PathBuf,
    generation: Generation,
    meta_data: String,
    wrapper: Vec<OsString>,
}

impl MockClient {
    /// A device with the executable `module`. Every path on the device contains spaces.
    ///
    /// # Errors
    /// When the temporary directory cannot be made.
    pub fn new(module: impl Into<PathBuf>, generation: Generation) -> Result<Self> {
        Self::new_in(&env::temp_dir(), module, generation)
    }

    /// As [`new`](Self::new), in `parent` instead of the directory for temporary files.
    ///
    /// # Errors
    /// When no directory can be made in `parent`.
    pub fn new_in(parent: &Path, module: impl Into<PathBuf>, generation: Generation) -> Result<Self> {
        Self::in_directory(parent, "with spaces", module, generation)
    }

    /// As [`new`](Self::new), without spaces in the paths, for modules that cannot handle them.
    ///
    /// # Errors
    /// When the path of the directory for temporary files contains spaces.
    pub fn without_spaces(module: impl Into<PathBuf>, generation: Generation) -> Result<Self> {
        Self::without_spaces_in(&env::temp_dir(), module, generation)
    }

    /// As [`without_spaces`](Self::without_spaces), in `parent` instead of the directory for temporary files.
    ///
    /// # Errors
    /// When the path of `parent` contains spaces.
    pub fn without_spaces_in(parent: &Path, module: impl Into<PathBuf>, generation: Generation) -> Result<Self> {
        ensure!(
            !parent.to_string_lossy().contains(char::is_whitespace),
            "the path {} contains spaces, which not every module can handle: choose a directory without spaces (TMPDIR)",
            parent.display()
        );
        Self::in_directory(parent, "device", module, generation)
    }

    /// The device is a directory inside a temporary directory without spaces: a shell module that splits a path at a
    /// space, and then removes what the first half names, must not remove anything else.
    fn in_directory(parent: &Path, name: &str, module: impl Into<PathBuf>, generation: Generation) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("mender-").tempdir_in(parent);
        let directory = directory.context("making the device's directory failed")?;
        let device = directory.path().join(name);
        fs::create_dir_all(device.join("settings")).context("making the settings directory failed")?;
        let meta_data = "null".to_owned(); // what the client writes for an artifact without meta-data
        let module = module.into();
        Ok(Self { system: None, _directory: directory, device, module, generation, meta_data, wrapper: Vec::new() })
    }

    /// A device that is a Debian system: a copy-on-write mount of the directory `base`, in which the module runs by
    /// chroot. The paths of its data contain spaces if `spaces`.
    ///
    /// # Errors
    /// When the system cannot be mounted, which needs root.
    pub fn debian(base: &Path, module: &Path, generation: Generation, spaces: bool) -> Result<Self> {
        Self::debian_in(&env::temp_dir(), base, module, generation, spaces)
    }

    /// As [`debian`](Self::debian), with the changes in `parent` instead of the directory for temporary files.
    ///
    /// # Errors
    /// When the system cannot be mounted, which needs root.
    pub fn debian_in(parent: &Path, base: &Path, module: &Path, generation: Generation, spaces: bool) -> Result<Self> {
        let mut client = Self::in_directory(parent, if spaces { "with spaces" } else { "device" }, module, generation)?;
        let system = System::mount(base, client._directory.path(), &client.device)?;
        client.module = system.install(module)?;
        client.system = Some(system);
        for directory in [client.datastore(), client.settings()] {
            fs::create_dir_all(&directory).with_context(|| format!("making {} failed", directory.display()))?;
        }
        Ok(client)
    }

    /// The Debian system of the device, if it has one.
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

    /// The client's data directory. Modules of the library keep their journals below it.
    pub fn datastore(&self) -> PathBuf {
        match (&self.system, self.device().file_name()) {
            // The module sees paths from the root of its chroot: the spaces have to be inside.
            (Some(_), Some(name)) => self.device().join("data").join(name),
            _ => self.device().join("mender"),
        }
    }

    /// The work tree of the current update.
    pub fn tree(&self) -> PathBuf {
        self.datastore().join("modules/v3/payloads/0000/tree")
    }

    /// Writes the settings file of the module `name`, as TOML.
    pub fn set(&self, name: &str, settings: &str) -> Result<()> {
        fs::write(self.settings().join(name).with_extension("toml"), settings).context("writing the settings failed")
    }

    /// Sets the meta-data of the artifacts of later downloads, as JSON.
    pub fn set_meta_data(&mut self, json: impl Into<String>) {
        self.meta_data = json.into();
    }

    /// Makes the work trees of later downloads as a client of `generation` does.
    pub fn set_generation(&mut self, generation: Generation) {
        self.generation = generation;
    }

    /// Puts `command` before every later call, for example a tracer. An empty command ends that.
    pub fn wrap<S: Into<OsString>>(&mut self, command: impl IntoIterator<Item = S>) {
        self.wrapper = command.into_iter().map(Into::into).collect();
    }

    /// Calls the module in `state`. A state that fails is an [`Outcome`].
    ///
    /// # Errors
    /// When the module cannot be started; or when a process that it has started keeps standard output or standard error
    /// open 5 s after the module has exited. Its process group is killed then.
    pub fn call(&self, state: &str) -> Result<Outcome> {
        self.wait(self.spawn(state, Stdio::piped)?, state)
    }

    fn wait(&self, module: Child, state: &str) -> Result<Outcome> {
        outcome::wait(module).with_context(|| {
            let module = self.module.file_name().unwrap_or_default().to_string_lossy();
            format!("{state} of {module} failed")
        })
    }

    /// Starts a call of the module as the child of another process, which a test kills as if the client were killed.
    /// As with the client, the module's output is a pipe whose only reader is that process: the module notices the end
    /// of a client that was killed before the module began. Nobody reads the output.
    pub fn start_below_a_client(&self, state: &str) -> Result<Child> {
        let command = self.command(state);
        let mut client = Command::new("sh");
        client.args(["-c", BELOW_A_CLIENT, "client"]).arg(command.get_program()).args(command.get_args());
        client.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        client.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        client.spawn().context("starting the module below a client failed")
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
            .with_context(|| format!("starting {} failed", program.to_string_lossy()))
    }

    fn command(&self, state: &str) -> Command {
        let chroot = self.system.iter().flat_map(System::chroot);
        let mut words = self.wrapper.iter().cloned().chain(chroot).chain([self.module.clone().into()]);
        let program = words.next().unwrap_or_default();
        let mut command = Command::new(&program);
        command.args(words).arg(state).arg(self.seen_by_module(&self.tree()));
        // The client starts a module with an almost empty environment.
        command.env_clear().env("PATH", "/usr/bin:/bin");
        if self.system.is_none() {
            command.env("MENDER_MODULES_SETTINGS", self.settings());
            if self.tree().is_dir() {
                command.current_dir(self.tree());
            }
        }
        command
    }

    /// A path on the device as the module sees it.
    fn seen_by_module(&self, path: &Path) -> PathBuf {
        match (&self.system, path.strip_prefix(&self.device)) {
            (Some(_), Ok(inside)) => Path::new("/").join(inside),
            _ => path.to_owned(),
        }
    }
}

/// Kills `child` and all its descendants, in whichever process group, as a power loss does. A process that has ended
/// already is not an error.
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
    child.wait().map(drop).context("waiting for the killed module failed")
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
