//! A device with the module under test, and the comparisons that the cases make.

use std::ffi::OsString;
use std::path::Path;

use crate::{Generation, MockClient, Outcome, PayloadFile, Snapshot};
use anyhow::{Result, ensure};

use crate::conformance::{Subject, files};

/// The exit status of `timeout` after it has ended a command.
const TIMED_OUT: i32 = 124;

/// A device on which one case tests a module.
pub struct Trial<'a> {
    subject: &'a Subject,
    /// The device; calls on it have the subject's limit.
    pub device: MockClient,
    files: Vec<(OsString, Vec<u8>)>,
}

impl<'a> Trial<'a> {
    /// A device without spaces in its paths, so that modules that cannot handle them fail in one case only.
    pub fn new(subject: &'a Subject, generation: Generation) -> Result<Self> {
        Self::on(subject, device(subject, generation, false)?, true)
    }

    /// As [`new`](Self::new), without a previous version.
    pub fn without_previous(subject: &'a Subject, generation: Generation) -> Result<Self> {
        Self::on(subject, device(subject, generation, false)?, false)
    }

    /// A device on which every path contains spaces.
    pub fn with_spaces(subject: &'a Subject, generation: Generation) -> Result<Self> {
        Self::on(subject, device(subject, generation, true)?, true)
    }

    fn on(subject: &'a Subject, mut device: MockClient, previous: bool) -> Result<Self> {
        let name = subject.module.file_name().unwrap_or_default().to_string_lossy();
        let beside = subject.module.parent().unwrap_or(Path::new(""));
        subject.payload.set_up(&mut device, &name, beside)?;
        if previous {
            subject.payload.put_previous(&device)?;
        }
        let files = subject.payload.files(&device)?;
        let mut trial = Self { subject, device, files };
        trial.wrap(&[]);
        Ok(trial)
    }

    /// Puts `command` before every later call, within the time limit.
    pub fn wrap(&mut self, command: &[&str]) {
        let limit = self.subject.limit.as_secs().to_string();
        self.device.wrap(["timeout", "--kill-after=5", &limit].iter().chain(command).copied());
    }

    /// Calls `states`, which have to succeed.
    pub fn succeed(&self, states: &[&str]) -> Result<()> {
        for state in states {
            let outcome = self.call(state)?;
            let limit = self.subject.limit.as_secs();
            ensure!(outcome.status.code() != Some(TIMED_OUT), "{state} failed: it did not end within {limit} s");
            ensure!(outcome.success(), "{state} failed: {outcome}");
        }
        Ok(())
    }

    fn call(&self, state: &str) -> Result<Outcome> {
        if state == "Download" { self.device.download(&self.payload()) } else { self.device.call(state) }
    }

    /// The outcome of a download, and whether the module has asked for the payload.
    pub fn observed_download(&self) -> Result<(Outcome, bool)> {
        self.device.observed_download(&self.payload())
    }

    /// Begins a download and interrupts it half-way.
    pub fn interrupt_download(&self) -> Result<()> {
        self.device.interrupt_download(&self.payload())
    }

    fn payload(&self) -> Vec<PayloadFile<'_>> {
        self.files.iter().map(|(name, content)| (name.as_os_str(), content.as_slice())).collect()
    }

    /// The device without the client's data and the settings: what the module changes, and where it must not leave
    /// anything. Without the times of directories, which [`destination`](Self::destination) includes.
    pub fn active(&self) -> Result<Snapshot> {
        if let Some(system) = self.device.system() {
            return system.state();
        }
        Ok(self.snapshot(Path::new(""))?.without_directory_times())
    }

    /// Gives the previous version attributes that a careless copy loses, and returns it.
    pub fn set_unusual_attributes(&self) -> Result<Snapshot> {
        let destination = self.device.device().join(self.subject.payload.destination()?);
        if destination.exists() {
            files::set_unusual_attributes(&destination)?;
        }
        self.destination()
    }

    /// The destination with every attribute.
    pub fn destination(&self) -> Result<Snapshot> {
        let destination = self.subject.payload.destination()?;
        // The client changes the time of the top directory, which is the destination if new files are directly in it.
        if destination == Path::new("") { self.active() } else { self.snapshot(&destination) }
    }

    fn snapshot(&self, directory: &Path) -> Result<Snapshot> {
        let device = self.device.device();
        let all = Snapshot::of(&device.join(directory))?;
        Ok(all.except(&self.device.datastore()).except(&self.device.settings()).below(device))
    }

    /// Checks that the device has exactly the content that the payload gives for the new version.
    pub fn is_new(&self) -> Result<()> {
        let Some(mut new) = self.subject.payload.new_contents()? else { return Ok(()) };
        let active = if self.device.system().is_some() {
            // The rest of the device is a whole system.
            let destination = self.subject.payload.destination()?;
            new = new.within(&destination);
            self.snapshot(&destination)?.contents()
        } else {
            self.active()?.contents()
        };
        let different = active.shown_differences(&new);
        ensure!(
            different.is_empty(),
            "the device is not as new/ in the payload directory: missing, additional or different: {different}"
        );
        Ok(())
    }

    /// Checks that the device is exactly as `previous`, a snapshot of it.
    pub fn is_again(&self, previous: &Snapshot) -> Result<()> {
        same(&self.active()?, previous)
    }
}

fn device(subject: &Subject, generation: Generation, spaces: bool) -> Result<MockClient> {
    let module = &subject.module;
    match (&subject.debian, spaces) {
        (Some(base), _) => MockClient::debian(base, module, generation, spaces),
        (None, true) => MockClient::new(module, generation),
        (None, false) => MockClient::without_spaces(module, generation),
    }
}

/// Checks that `now` is exactly `previous`.
pub fn same(now: &Snapshot, previous: &Snapshot) -> Result<()> {
    let different = now.shown_differences(previous);
    ensure!(different.is_empty(), "the device is not as before: different: {different}");
    Ok(())
}

/// Whether the module supports rollback.
///
/// # Errors
/// When the query fails, which is not an answer.
pub fn supports_rollback(subject: &Subject) -> Result<bool> {
    let trial = Trial::new(subject, Generation::V5)?;
    let outcome = trial.device.call("SupportsRollback")?;
    ensure!(outcome.success(), "SupportsRollback failed: {outcome}");
    Ok(outcome.stdout.trim_end() == "Yes")
}
