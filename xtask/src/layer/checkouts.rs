//! The checkouts and files on this machine that the layer's tests need, and that no package registry has. Their paths
//! are stored in the user's configuration for the next run.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

/// Paths on this machine; each is stored in the user's configuration.
#[derive(Args, Clone, Debug, Default)]
pub struct Checkouts {
    /// Tests with the checkouts openembedded-core and bitbake in DIR, or in one directory of DIR for each release;
    /// stored for later runs
    #[arg(long, value_name = "DIR", requires = "test")]
    pub oe_core: Option<PathBuf>,
    /// Tests with the checkout of meta-mender in DIR, or in one directory of DIR for each release; stored for later
    /// runs
    #[arg(long, value_name = "DIR", requires = "test")]
    pub meta_mender: Option<PathBuf>,
    /// Reads the source of the Mender client from DIR, BitBake's DL_DIR of another build; stored for later runs
    /// [default: the network]
    #[arg(long, value_name = "DIR", requires = "test")]
    pub downloads: Option<PathBuf>,
    /// Assembles .ipk packages with the program FILE, as opkg-native builds it; stored for later runs [default: opkg
    /// in PATH]
    #[arg(long, value_name = "FILE", requires = "test")]
    pub opkg: Option<PathBuf>,
}

impl Checkouts {
    /// No paths.
    pub const NONE: Self = Self { oe_core: None, meta_mender: None, downloads: None, opkg: None };

    /// Stores the given paths, and returns them together with the paths of earlier runs.
    ///
    /// # Errors
    /// A given path does not exist, or cannot be stored.
    pub fn stored(&self) -> Result<Self> {
        let directory = configuration()?;
        let stored = |name: &str, given: &Option<PathBuf>| stored(&directory.join(name), given.as_deref());
        Ok(Self {
            oe_core: stored("oe-core", &self.oe_core)?,
            meta_mender: stored("meta-mender", &self.meta_mender)?,
            downloads: stored("downloads", &self.downloads)?,
            opkg: stored("opkg", &self.opkg)?.or_else(|| in_path("opkg")),
        })
    }
}

/// The project's directory in the user's configuration.
fn configuration() -> Result<PathBuf> {
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
    let directory = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home);
    let directory = directory.context("no configuration directory: set HOME or XDG_CONFIG_HOME")?;
    Ok(directory.join("mender-rust-modules"))
}

/// Stores `given` in `file` and returns it. Without `given`, returns the path that `file` has of an earlier run, if
/// that path still exists.
fn stored(file: &Path, given: Option<&Path>) -> Result<Option<PathBuf>> {
    let Some(given) = given else {
        let path = fs::read_to_string(file).ok().map(|text| PathBuf::from(text.trim_end()));
        return Ok(path.filter(|path| path.exists()));
    };
    let path = given.canonicalize().with_context(|| format!("resolving {} failed", given.display()))?;
    host::directory::write(file, format!("{}\n", path.display()))?;
    Ok(Some(path))
}

/// The program `name` in a directory of PATH.
fn in_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(name)).find(|program| program.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_stored_while_it_exists() {
        let directory = tempfile::tempdir().unwrap();
        let (file, path) = (directory.path().join("config/path"), directory.path().join("path"));
        assert_eq!(stored(&file, None).unwrap(), None);
        assert!(stored(&file, Some(&path)).unwrap_err().to_string().contains("resolving"));
        fs::create_dir(&path).unwrap();
        let found = stored(&file, Some(&path)).unwrap();
        assert_eq!(found, Some(path.canonicalize().unwrap()));
        assert_eq!(stored(&file, None).unwrap(), found);
        fs::remove_dir(&path).unwrap();
        assert_eq!(stored(&file, None).unwrap(), None);
    }
}
