//! Artifacts, made by the real mender-artifact.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

/// An artifact with one payload.
pub struct Artifact<'a> {
    /// The payload type: the module's name.
    pub module: &'a str,
    /// The artifact's name.
    pub name: &'a str,
    /// The device type that it is for.
    pub device_type: &'a str,
    /// Names and contents of the payload's files.
    pub files: &'a [(&'a str, &'a str)],
}

impl Artifact<'_> {
    /// Writes it to `folder` and returns its path.
    ///
    /// # Errors
    /// When mender-artifact fails.
    pub fn write(&self, sh: &Shell, folder: &Path) -> Result<PathBuf> {
        let Self { module, name, device_type, files } = self;
        let payload = folder.join(format!("{name}.payload"));
        fs::create_dir_all(&payload).with_context(|| format!("making {}", payload.display()))?;
        let mut arguments = Vec::new();
        for (name, content) in *files {
            let path = payload.join(name);
            fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
            arguments.extend(["--file".into(), path.into_os_string()]);
        }
        let artifact = folder.join(format!("{name}.mender"));
        cmd!(sh, "mender-artifact write module-image --type {module} --artifact-name {name} --device-type {device_type}")
            .args(["--software-filesystem", "data-partition"])
            .arg("--output-path")
            .arg(&artifact)
            .args(arguments)
            .quiet()
            .ignore_stdout()
            .run()
            .with_context(|| format!("making the artifact {}", artifact.display()))?;
        Ok(artifact)
    }
}
