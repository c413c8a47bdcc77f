//! Temporary files and programs of a run: whatever ends it, none stays.

use std::fs::{self, File};
use std::panic;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::TERM_SIGNALS;
use signal_hook::iterator::Signals;

/// What a signal has to clean up.
static OPEN: Mutex<Open> = Mutex::new(Open { paths: Vec::new(), groups: Vec::new() });

struct Open {
    paths: Vec<PathBuf>,
    /// The process groups of running programs.
    groups: Vec<Pid>,
}

impl Open {
    fn clean_up(&self) {
        for group in &self.groups {
            // It may have ended.
            let _ = kill_process_group(*group, Signal::KILL);
        }
        self.paths.iter().for_each(|path| remove(path));
    }
}

fn open() -> MutexGuard<'static, Open> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A temporary file or directory, which is removed when this is dropped, or by a signal.
pub struct Temporary(PathBuf);

impl Temporary {
    /// A new empty directory in the directory for temporary files.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn directory() -> Result<Self> {
        let parent = std::env::temp_dir();
        // The lock is held, so that a signal finds the directory in the list.
        let mut open = open();
        let directory = tempfile::Builder::new()
            .prefix("artifact-gen-")
            .tempdir_in(&parent)
            .with_context(|| format!("creating a directory in {} failed: set TMPDIR to another", parent.display()))?;
        let path = directory.keep();
        open.paths.push(path.clone());
        Ok(Self(path))
    }

    /// A file beside `path` that does not exist yet.
    pub fn beside(path: &Path) -> Self {
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}.tmp", process::id()));
        let path = path.with_file_name(name);
        open().paths.push(path.clone());
        Self(path)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Renames it to `path`, where it stays. It is synced before, so that a power loss leaves no empty file there.
    ///
    /// # Errors
    /// When it cannot be synced or renamed.
    pub fn persist(self, path: &Path) -> Result<()> {
        let sync = File::open(&self.0).and_then(|file| file.sync_all());
        sync.and_then(|()| fs::rename(&self.0, path)).with_context(|| format!("writing {} failed", path.display()))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let mut open = open();
        remove(&self.0);
        open.paths.retain(|path| *path != self.0);
    }
}

fn remove(path: &Path) {
    // It may not exist yet, or not any more.
    let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
}

/// A running program in a process group of its own, which a signal kills.
pub struct Running(Pid);

impl Running {
    /// Starts a program with `start`, which returns the group.
    ///
    /// # Errors
    /// When `start` fails.
    pub fn start<T>(start: impl FnOnce() -> Result<(T, Pid)>) -> Result<(T, Self)> {
        let mut open = open();
        let (program, group) = start()?;
        open.groups.push(group);
        Ok((program, Self(group)))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        open().groups.retain(|group| *group != self.0);
    }
}

/// Removes temporary files and ends programs when a signal or a panic ends this process.
///
/// # Errors
/// When no signal handler can be installed.
pub fn clean_up_at_the_end() -> Result<()> {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        // A panic that holds the lock has no one else to clean up.
        if let Ok(open) = OPEN.try_lock() {
            open.clean_up();
        }
        report(info);
    }));
    let mut signals = Signals::new(TERM_SIGNALS.iter().chain(&[signal_hook::consts::SIGHUP]))
        .context("installing a signal handler failed")?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            // The lock is held to the end, so that nothing new begins.
            let open = open();
            open.clean_up();
            process::exit(128 + signal);
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_files_are_removed_unless_they_are_persisted() {
        let directory = Temporary::directory().unwrap();
        let top = directory.path().to_owned();
        let target = top.join("artifact");
        let temporary = Temporary::beside(&target);
        fs::write(temporary.path(), "partial").unwrap();
        let path = temporary.path().to_owned();
        drop(temporary);
        assert!(!path.exists() && !target.exists());
        let temporary = Temporary::beside(&target);
        fs::write(temporary.path(), "whole").unwrap();
        temporary.persist(&target).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"whole");
        drop(directory);
        assert!(!top.exists());
        let open = open();
        assert!(!open.paths.iter().any(|path| path.starts_with(&top)));
    }
}
