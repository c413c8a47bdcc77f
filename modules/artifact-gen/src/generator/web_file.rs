//! The generator for `web-file`.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use clap::Args;
use mender_update_module::ArtifactContent;
use serde_json::Map;

use super::{Checked, Draft, Generator, payload_file};
use crate::options::Options;

/// Makes an artifact for the module web-file: the files of a web root
///
/// The artifact is the whole set: with the module's default settings, top-level files of the web root that are not in
/// it are removed. The web root is dest_dir in the device's settings.
///
/// Example: web-file-artifact-gen -n release-2 -t raspberrypi3 index.html style.css
#[derive(Args, Debug)]
pub struct WebFile {
    /// Files of the web root
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    options: Options,
    /// Refused: the web root is dest_dir in the device's settings
    #[arg(short = 'd', long, value_name = "DIR", hide = true)]
    dest_dir: Option<PathBuf>,
}

impl Generator for WebFile {
    const MODULE: &'static str = "web-file";
    const META_DATA_KEYS: &'static [&'static str] = &[];

    fn options(&self) -> &Options {
        &self.options
    }

    fn draft(&self, _tmp: &Path) -> Result<Draft> {
        if let Some(destination) = &self.dest_dir {
            bail!(
                "option --dest-dir refused: {}: the web root is dest_dir in /etc/mender-modules/web-file.toml of the \
                 device: remove the option, or use the module directory",
                destination.display()
            );
        }
        let mut files = Vec::new();
        for path in &self.files {
            ensure!(
                !path.is_dir(),
                "{} refused: it is a directory: name the files in it, or use directory-artifact-gen",
                path.display()
            );
            files.push(payload_file(path)?);
        }
        let meta_data = self.options.meta_data(Map::new())?;
        Ok(Draft { content: ArtifactContent { meta_data, files }, ..Draft::default() })
    }

    fn check(&self, draft: &Draft, _scratch: &Path) -> Result<Checked> {
        web_file::artifact::check(&draft.content)?;
        Ok(Checked::default())
    }
}
