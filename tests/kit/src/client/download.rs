//! Downloads: the work tree and the payload.

use std::ffi::OsStr;
use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::feed::Feed;
use super::{Generation, MockClient, Outcome, PayloadFile, kill_group};

/// How long a download that is to be interrupted is waited for. It takes milliseconds; a busy machine may be many times
/// slower.
const READY_WITHIN: Duration = Duration::from_secs(300);

/// What the outcome of a module adds that had to be killed.
const KILLED: &str = "mock client: it closed a stream before its end, did not exit, and was killed\n";

impl MockClient {
    /// Makes a new work tree and streams `payload` to the module: in the state `Download`, or `DownloadWithFileSizes`
    /// for [`Generation::V5`] and a module that asks for sizes.
    ///
    /// # Errors
    /// When the tree cannot be made or the module cannot be started. A download that fails is an [`Outcome`].
    pub fn download(&self, payload: &[PayloadFile]) -> Result<Outcome> {
        self.observed_download(payload).map(|(outcome, _)| outcome)
    }

    /// As [`download`](Self::download), and whether the module has asked for the payload.
    ///
    /// # Errors
    /// As [`download`](Self::download).
    pub fn observed_download(&self, payload: &[PayloadFile]) -> Result<(Outcome, bool)> {
        self.download_with(payload, &|_| ())
    }

    /// As [`observed_download`](Self::observed_download), and calls `before` with the name of each file when the
    /// module has opened its stream, and so has read all files before it.
    ///
    /// # Errors
    /// As [`download`](Self::download).
    pub fn download_with(&self, payload: &[PayloadFile], before: &(dyn Fn(&OsStr) + Sync)) -> Result<(Outcome, bool)> {
        let sizes = self.begin_download()?;
        let state = download_state(sizes);
        let feed = Feed::whole(&self.tree(), payload, sizes)?.with(before);
        let module = self.spawn(state, Stdio::piped)?;
        let (outcome, progress) = feed.to(&module).run(|_| self.wait(module, state));
        let asked = progress.asked();
        if !asked {
            self.fill_files(payload)?;
        }
        if self.generation == Generation::V3 {
            fs::remove_file(self.tree().join("stream-next")).context("removing stream-next failed")?;
            fs::remove_dir_all(self.tree().join("streams")).context("removing streams/ failed")?;
        }
        let mut outcome = outcome?;
        if progress.killed() {
            outcome.stderr += KILLED;
        }
        Ok((outcome, asked))
    }

    /// Begins a download and kills the module, with all processes that it has started, after half of the payload's
    /// first file. For a module that does not ask for the payload, the client is interrupted while it fills `files/`.
    pub fn interrupt_download(&self, payload: &[PayloadFile]) -> Result<()> {
        let read = || {
            thread::sleep(Duration::from_millis(20)); // so that the module has read what was written
            true
        };
        self.interrupt_download_when(payload, read)
    }

    /// As [`interrupt_download`](Self::interrupt_download), but waits until `ready`, for up to five minutes, before it
    /// kills.
    pub fn interrupt_download_when(&self, payload: &[PayloadFile], ready: impl Fn() -> bool) -> Result<()> {
        let sizes = self.begin_download()?;
        let feed = Feed::half(&self.tree(), payload, sizes)?;
        let mut child = self.spawn(download_state(sizes), Stdio::null)?;
        let begun = Instant::now();
        let (killed, progress) = feed.run(|progress| {
            let may_wait = || begun.elapsed() < READY_WITHIN;
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
        killed
    }

    /// Makes the tree for a download, and returns whether the module asks for sizes.
    fn begin_download(&self) -> Result<bool> {
        self.make_tree()?;
        Ok(self.generation == Generation::V5 && self.call("ProvidePayloadFileSizes")?.stdout == "Yes\n")
    }

    /// Deletes the work tree, as the client does after `Cleanup` and before a download.
    pub fn delete_tree(&self) -> Result<()> {
        match fs::remove_dir_all(self.tree()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("deleting the work tree failed")
            }
            _ => Ok(()),
        }
    }

    fn make_tree(&self) -> Result<()> {
        self.delete_tree()?;
        let tree = self.tree();
        for directory in ["header", "tmp", "files", "streams"] {
            fs::create_dir_all(tree.join(directory))
                .with_context(|| format!("making {directory}/ in the work tree failed"))?;
        }
        let newline = if self.generation == Generation::V5 { "\n" } else { "" };
        let texts = [
            ("version", format!("3{newline}")),
            ("current_artifact_name", format!("release-1{newline}")),
            ("current_artifact_group", newline.to_owned()),
            ("current_device_type", format!("raspberrypi3{newline}")),
            ("header/artifact_name", "release-2".to_owned()),
            ("header/artifact_group", String::new()),
            ("header/payload_type", self.module.file_name().unwrap_or_default().to_string_lossy().into_owned()),
            ("header/meta-data", self.meta_data.clone()),
        ];
        for (name, text) in texts {
            fs::write(tree.join(name), text).with_context(|| format!("writing {name} in the work tree failed"))?;
        }
        Ok(())
    }

    /// Fills `files/`, as the client does when the module has not asked for the streams.
    fn fill_files(&self, payload: &[PayloadFile]) -> Result<()> {
        for (name, content) in payload {
            fs::write(self.tree().join("files").join(name), content)
                .context("writing files/ in the work tree failed")?;
        }
        Ok(())
    }
}

fn download_state(sizes: bool) -> &'static str {
    if sizes { "DownloadWithFileSizes" } else { "Download" }
}
