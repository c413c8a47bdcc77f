//! The command lines of `crash-tracer`, and what it records.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use mock_client::MockClient;

use crate::Subject;
use crate::drive::{step, succeed};
use crate::operation::Recording;

/// The tracer's executable.
#[derive(Clone, Debug)]
pub struct Tracer(PathBuf);

/// What happens at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Everything is killed instead of making call N.
    KillBefore(usize),
    /// Everything is killed when call N has ended.
    KillAfter(usize),
    /// Call N fails with this error.
    Error(usize, &'static str),
}

impl Fault {
    /// Whether it is a cut, and no error.
    pub fn is_cut(self) -> bool {
        !matches!(self, Self::Error(..))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillBefore(call) => write!(formatter, "killed before call {call}"),
            Self::KillAfter(call) => write!(formatter, "killed after call {call}"),
            Self::Error(call, error) => write!(formatter, "{error} from call {call}"),
        }
    }
}

impl Tracer {
    /// The tracer whose executable is `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Calls `state` on `device` and records what it does there.
    ///
    /// # Errors
    /// When the module or the tracer fails.
    pub fn record(&self, subject: &dyn Subject, device: &mut MockClient, state: &str) -> Result<Recording> {
        self.log("record", subject, device, state)
    }

    /// As [`record`](Self::record), without the directory before it and without what the calls do.
    ///
    /// # Errors
    /// As there.
    pub fn list(&self, subject: &dyn Subject, device: &mut MockClient, state: &str) -> Result<Recording> {
        self.log("list", subject, device, state)
    }

    fn log(
        &self,
        mode: &str,
        subject: &dyn Subject,
        device: &mut MockClient,
        state: &str,
    ) -> Result<Recording> {
        let directory = tempfile::tempdir()?; // outside of the device: the log is none of its files
        let log = directory.path().join("calls.log");
        device.wrap(self.command(device.device(), [mode.into(), log.clone().into()]));
        succeed(subject, device, state)?;
        device.wrap([""; 0]);
        Recording::read(&log)
    }

    /// Calls `state` on `device`, with `fault`; whether it succeeded.
    ///
    /// # Errors
    /// When the fault has another effect than to kill or to return an error.
    pub fn inject(
        &self,
        subject: &dyn Subject,
        device: &mut MockClient,
        state: &str,
        fault: Fault,
    ) -> Result<bool> {
        let words = match fault {
            Fault::KillBefore(call) => vec!["kill-before".to_owned(), call.to_string()],
            Fault::KillAfter(call) => vec!["kill-after".to_owned(), call.to_string()],
            Fault::Error(call, error) => vec!["fail".to_owned(), call.to_string(), error.to_owned()],
        };
        device.wrap(self.command(device.device(), words.into_iter().map(OsString::from)));
        let outcome = step(subject, device, state)?;
        device.wrap([""; 0]);
        let cut = outcome.status.code().is_none();
        ensure!(
            cut == fault.is_cut() && outcome.status.code() != Some(125),
            "{state}, {fault}, had another effect: {outcome:?}"
        );
        Ok(outcome.success())
    }

    fn command(&self, device: &Path, mode: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
        let mut command = vec![self.0.clone().into(), device.into()];
        command.extend(mode);
        command.push("--".into());
        command
    }
}
