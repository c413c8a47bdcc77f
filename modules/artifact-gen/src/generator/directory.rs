//! The generator for `directory`.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use directory::artifact::{DEST_DIR, UPDATE_TAR, check, check_destination};
use mender_update_module::{ArtifactContent, FileName, PayloadFile};
use serde_json::Map;

use super::{Checked, Draft, Generator, made, place, renamed, require_outside};
use crate::options::{Options, object};
use crate::tar::Archive;

/// Makes an artifact for the module directory: the content of one directory
///
/// The artifact replaces the directory DEST_DIR on the device by the tree FILE. Mender's own module directory installs
/// it too, without what --keep names.
///
/// Example: directory-artifact-gen -n release-2 -t raspberrypi3 -d /srv/app --owner root app/
#[derive(Args, Debug)]
pub struct Directory {
    /// A directory, or a tar archive of one
    #[arg(value_name = "FILE")]
    tree: PathBuf,
    #[command(flatten)]
    options: Options,
    /// Directory on the device that is replaced, an absolute path
    #[arg(short = 'd', long, value_name = "DIR")]
    dest_dir: PathBuf,
    /// Path below DEST_DIR that the device keeps, such as 'uploads/**'; may be repeated
    #[arg(long, value_name = "PATTERN")]
    keep: Vec<String>,
    #[command(flatten)]
    archive: Archive,
}

impl Generator for Directory {
    const MODULE: &'static str = "directory";
    const META_DATA_KEYS: &'static [&'static str] = &["dest_dir", "keep"];

    fn options(&self) -> &Options {
        &self.options
    }

    fn draft(&self, tmp: &Path) -> Result<Draft> {
        check_destination(&self.dest_dir)?;
        if let Some(path) = &self.options.meta_data {
            let is_twice = object(path)?.contains_key(DEST_DIR);
            ensure!(!is_twice, "meta-data key {DEST_DIR} refused: give the directory with --dest-dir");
        }
        let found = self.tree.metadata().with_context(|| format!("reading {} failed", self.tree.display()))?;
        let mut notes = Vec::new();
        let archive = if found.is_dir() {
            require_outside(&self.options.output(), &self.tree)?;
            if self.archive.owner.is_none() && found.uid() != 0 {
                notes.push(format!(
                    "{} belongs to user {}, and so will the directory on the device: set --owner, such as --owner root",
                    self.tree.display(),
                    found.uid()
                ));
            }
            let path = place(UPDATE_TAR, tmp)?;
            self.archive.write(&self.tree, &path, tmp)?;
            PayloadFile { name: FileName::new(UPDATE_TAR)?, path }
        } else {
            self.archive.refuse(&self.tree)?;
            renamed(&self.tree, UPDATE_TAR, tmp)?
        };
        let destination = made(DEST_DIR, self.dest_dir.as_os_str().as_encoded_bytes(), tmp)?;
        let mut own = Map::new();
        if !self.keep.is_empty() {
            own.insert("keep".to_owned(), self.keep.clone().into());
        }
        let meta_data = self.options.meta_data(own)?;
        // The destination first: a device then need not store the archive until it knows the destination.
        let content = ArtifactContent { meta_data, files: vec![destination, archive] };
        Ok(Draft { content, notes, ..Draft::default() })
    }

    fn check(&self, draft: &Draft, _scratch: &Path) -> Result<Checked> {
        let checked = check(&draft.content);
        // The archive has another name in the artifact: an error has to name the user's file.
        let checked = checked.with_context(|| format!("making an artifact of {} failed", self.tree.display()))?;
        let facts = vec![
            ("destination", vec![checked.destination.display().to_string()]),
            ("entries", vec![checked.entries.to_string()]),
        ];
        Ok(Checked { facts, ..Checked::default() })
    }
}
