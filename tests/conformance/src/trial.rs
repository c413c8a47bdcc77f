//! One device with the module under test on it, and the comparisons that every case makes.

use std::ffi::OsString;
use std::path::Path;

use anyhow::{Result, ensure};
use mock_client::{Generation, MockClient, Outcome, PayloadFile, Snapshot};

use crate::{Subject, files};

/// The exit status of `timeout` for a command that it has ended.
const TIMED_OUT: i32 = 124;

/// A device that one case tries a module on.
pub struct Trial<'a> {
    subject: &'a Subject,
    /// The device; calls on it have the subject's limit.
    pub device: MockClient,
    files: Vec<(OsString, Vec<u8>)>,
}

impl<'a> Trial<'a> {
    /// A device without blanks in its paths, that modules which do not bear them fail in one case only.
    pub fn new(subject: &'a Subject, generation: Generation) -> Result<Self> {
        Self::on(subject, device(subject, generation, false)?, true)
    }

    /// The same, with nothing on it that an update replaces.
    pub fn without_old(subject: &'a Subject, generation: Generation) -> Result<Self> {
        Self::on(subject, device(subject, generation, false)?, false)
    }

    /// A device on which every path has blanks.
    pub fn with_blanks(subject: &'a Subject, generation: Generation) -> Result<Self> {
        Self::on(subject, device(subject, generation, true)?, true)
    }

    fn on(subject: &'a Subject, mut device: MockClient, old: bool) -> Result<Self> {
        let name = subject.module.file_name().unwrap_or_default().to_string_lossy();
        let beside = subject.module.parent().unwrap_or(Path::new(""));
        subject.payload.set_up(&mut device, &name, beside)?;
        if old {
            subject.payload.put_old(&device)?;
        }
        let files = subject.payload.files(&device)?;
        let mut trial = Self { subject, device, files };
        trial.wrap(&[]);
        Ok(trial)
    }

    /// Puts `command` before every call from now on, inside the limit.
    pub fn wrap(&mut self, command: &[&str]) {
        let limit = self.subject.limit.as_secs().to_string();
        self.device.wrap(["timeout", "--kill-after=5", &limit].iter().chain(command).copied());
    }

    /// Goes through `states`, which have to succeed.
    pub fn succeed(&self, states: &[&str]) -> Result<()> {
        for state in states {
            let outcome = self.step(state)?;
            let limit = self.subject.limit.as_secs();
            ensure!(outcome.status.code() != Some(TIMED_OUT), "{state} did not end within {limit} s");
            let Outcome { status, stdout, stderr } = &outcome;
            ensure!(
                outcome.success(),
                "{state} failed, {status}: {}",
                format!("{stdout}{stderr}").trim_end()
            );
        }
        Ok(())
    }

    fn step(&self, state: &str) -> Result<Outcome> {
        if state == "Download" { self.device.download(&self.payload()) } else { self.device.call(state) }
    }

    /// Begins a download and cuts it in the middle.
    pub fn cut_download(&self) -> Result<()> {
        self.device.cut_download(&self.payload())
    }

    fn payload(&self) -> Vec<PayloadFile<'_>> {
        self.files.iter().map(|(name, content)| (name.as_os_str(), content.as_slice())).collect()
    }

    /// What the module is there to change, and what it must not leave traces in: the device but for the client's own
    /// data and the settings. Directories' times are left out; [`peculiar`](Self::peculiar) is about those.
    pub fn live(&self) -> Result<Snapshot> {
        if let Some(system) = self.device.system() {
            return system.state();
        }
        Ok(self.snapshot(Path::new(""))?.without_directory_times())
    }

    /// Gives the old all that a careless copy loses, and returns it.
    pub fn make_peculiar(&self) -> Result<Snapshot> {
        let destination = self.device.device().join(self.subject.payload.destination()?);
        if destination.exists() {
            files::make_peculiar(&destination)?;
        }
        self.peculiar()
    }

    /// The destination to the last detail.
    pub fn peculiar(&self) -> Result<Snapshot> {
        let destination = self.subject.payload.destination()?;
        // The client leaves traces in the top directory, which is the destination where new files lie directly in it.
        if destination == Path::new("") { self.live() } else { self.snapshot(&destination) }
    }

    fn snapshot(&self, directory: &Path) -> Result<Snapshot> {
        let device = self.device.device();
        let all = Snapshot::of(&device.join(directory))?;
        Ok(all.except(&self.device.datastore()).except(&self.device.settings()).below(device))
    }

    /// Fails unless the device has what the payload says, no more and no less.
    pub fn is_new(&self) -> Result<()> {
        let Some(mut new) = self.subject.payload.new_contents()? else { return Ok(()) };
        let live = if self.device.system().is_some() {
            // There is a whole system beside it.
            let destination = self.subject.payload.destination()?;
            new = new.within(&destination);
            self.snapshot(&destination)?.contents()
        } else {
            self.live()?.contents()
        };
        let different = live.differences(&new);
        ensure!(
            different.is_empty(),
            "after the update the device is not what new/ says: {different:?} are missing, too many or different"
        );
        Ok(())
    }

    /// Fails unless the device is as it was when `old` was taken of it.
    pub fn is_again(&self, old: &Snapshot) -> Result<()> {
        same(&self.live()?, old)
    }
}

fn device(subject: &Subject, generation: Generation, blanks: bool) -> Result<MockClient> {
    let module = &subject.module;
    match (&subject.debian, blanks) {
        (Some(base), _) => MockClient::debian(base, module, generation, blanks),
        (None, true) => MockClient::new(module, generation),
        (None, false) => MockClient::without_blanks(module, generation),
    }
}

/// Fails unless `now` is exactly `old`.
pub fn same(now: &Snapshot, old: &Snapshot) -> Result<()> {
    let different = now.differences(old);
    ensure!(different.is_empty(), "the device is not what it was before: {different:?} differ");
    Ok(())
}

/// Whether the module says that it can go back.
pub fn supports_rollback(subject: &Subject) -> Result<bool> {
    let trial = Trial::new(subject, Generation::V5)?;
    Ok(trial.device.call("SupportsRollback")?.stdout.trim_end() == "Yes")
}
