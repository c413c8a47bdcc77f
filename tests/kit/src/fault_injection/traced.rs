//! Calls of a module under the tracer, recorded or with a fault.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::fault_injection::Subject;
use crate::fault_injection::drive::{call, succeed};
use crate::fault_injection::operation::Recording;
use crate::suite::TRACER;
use crate::{MockClient, Outcome};

/// The tracer: an executable whose `main` is [`Suite::main`](crate::Suite::main), called with a hidden first argument.
#[derive(Clone, Debug)]
pub struct Tracer(PathBuf);

/// A fault at a system call. Calls are counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Kills all processes before call N.
    KillBefore(usize),
    /// Kills all processes after call N.
    KillAfter(usize),
    /// Lets call N fail with this error.
    Error(usize, &'static str),
    /// Lets call N fail with this error, and later ones too: with ENOSPC all that need space, with EIO all others with
    /// EROFS, as on a file system that the kernel has made read-only.
    Persistent(usize, &'static str),
    /// Lets call N of those with which the module itself reads fail with EIO.
    Read(usize),
}

impl Fault {
    /// The number of the call.
    pub fn call(self) -> usize {
        match self {
            Self::KillBefore(call)
            | Self::KillAfter(call)
            | Self::Error(call, _)
            | Self::Persistent(call, _)
            | Self::Read(call) => call,
        }
    }

    /// Whether the fault is an interruption.
    pub fn is_interruption(self) -> bool {
        matches!(self, Self::KillBefore(_) | Self::KillAfter(_))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillBefore(call) => write!(formatter, "killed before call {call}"),
            Self::KillAfter(call) => write!(formatter, "killed after call {call}"),
            Self::Error(call, error) => write!(formatter, "{error} from call {call}"),
            Self::Persistent(call, error) => write!(formatter, "{error} from call {call} on"),
            Self::Read(call) => write!(formatter, "EIO from read {call}"),
        }
    }
}

impl Tracer {
    /// The tracer in the executable `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Calls `state` on `device` and records what it does there.
    ///
    /// # Errors
    /// When the state fails, or a call cannot be recorded.
    pub fn record(&self, subject: &dyn Subject, device: &mut MockClient, state: &str) -> Result<Recording> {
        self.log("record", subject.recorded(), subject, device, state)
    }

    /// As [`record`](Self::record), without the content of the device and the effects of the calls.
    pub fn list(&self, subject: &dyn Subject, device: &mut MockClient, state: &str) -> Result<Recording> {
        self.log("list", &[], subject, device, state)
    }

    /// As [`list`](Self::list), of the calls with which the module itself reads the device.
    pub fn list_reads(&self, subject: &dyn Subject, device: &mut MockClient, state: &str) -> Result<Recording> {
        self.log("list-reads", &[], subject, device, state)
    }

    /// Calls `state` on `device`, kills all processes before call `point`, and records what they have done.
    ///
    /// # Errors
    /// When a call cannot be recorded, or the state has fewer calls.
    pub fn record_killed(
        &self,
        subject: &dyn Subject,
        device: &mut MockClient,
        state: &str,
        point: usize,
    ) -> Result<Recording> {
        let directory = tempfile::tempdir()?;
        let log = directory.path().join("calls.log");
        let words = ["record-killed".into(), point.to_string().into(), log.clone().into()].into_iter();
        let parts = subject.recorded().iter().map(OsString::from);
        let outcome = self.call(words.chain(parts), subject, device, state)?;
        ensure!(
            outcome.status.code().is_none(),
            "{state}: recording failed: not killed before call {point}: {outcome}"
        );
        Recording::read(&log)
    }

    fn log(
        &self,
        mode: &str,
        parts: &[&str],
        subject: &dyn Subject,
        device: &mut MockClient,
        state: &str,
    ) -> Result<Recording> {
        let directory = tempfile::tempdir()?; // outside the device, so that the log is not one of its files
        let log = directory.path().join("calls.log");
        let words = [mode.into(), log.clone().into()].into_iter().chain(parts.iter().map(OsString::from));
        device.wrap(self.command(device.device(), words));
        succeed(subject, device, state)?;
        device.wrap([""; 0]);
        Recording::read(&log)
    }

    /// Calls `state` on `device`, lets the sync that is call number `failing` fail with EIO, and records what the
    /// module does; returns whether it reported success. `data` is the path of the client's data in `device`, a file
    /// system of its own.
    ///
    /// # Errors
    /// When a call cannot be recorded.
    pub fn record_failing(
        &self,
        subject: &dyn Subject,
        device: &mut MockClient,
        state: &str,
        failing: usize,
        data: &Path,
    ) -> Result<(Recording, bool)> {
        let directory = tempfile::tempdir()?;
        let log = directory.path().join("calls.log");
        let words = ["record-failing".into(), failing.to_string().into(), data.into(), log.clone().into()].into_iter();
        let parts = subject.recorded().iter().map(OsString::from);
        let outcome = self.call(words.chain(parts), subject, device, state)?;
        ensure!(outcome.status.code() != Some(125), "{state}: recording failed: {outcome}");
        Ok((Recording::read(&log)?, outcome.success()))
    }

    /// Calls `state` on `device` with `fault`; returns whether it succeeded.
    ///
    /// # Errors
    /// When the fault has another effect than to kill or to return an error.
    pub fn inject(&self, subject: &dyn Subject, device: &mut MockClient, state: &str, fault: Fault) -> Result<bool> {
        let words = match fault {
            Fault::KillBefore(call) => vec!["kill-before".to_owned(), call.to_string()],
            Fault::KillAfter(call) => vec!["kill-after".to_owned(), call.to_string()],
            Fault::Error(call, error) => vec!["fail".to_owned(), call.to_string(), error.to_owned()],
            Fault::Persistent(call, error) => vec!["fail-from".to_owned(), call.to_string(), error.to_owned()],
            Fault::Read(call) => vec!["fail-read".to_owned(), call.to_string()],
        };
        let outcome = self.call(words.into_iter().map(OsString::from), subject, device, state)?;
        let killed = outcome.status.code().is_none();
        ensure!(
            killed == fault.is_interruption() && outcome.status.code() != Some(125),
            "{state}: {fault}: unexpected effect: {outcome}"
        );
        Ok(outcome.success())
    }

    /// Calls `state` on `device` under the tracer in the mode of these words.
    fn call(
        &self,
        mode: impl IntoIterator<Item = OsString>,
        subject: &dyn Subject,
        device: &mut MockClient,
        state: &str,
    ) -> Result<Outcome> {
        device.wrap(self.command(device.device(), mode));
        let outcome = call(subject, device, state)?;
        device.wrap([""; 0]);
        Ok(outcome)
    }

    fn command(&self, device: &Path, mode: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
        let mut command = vec![self.0.clone().into(), TRACER.into(), device.into()];
        command.extend(mode);
        command.push("--".into());
        command
    }
}
