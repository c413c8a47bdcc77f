//! What the layer's tests need and no registry has: where it is on this machine, remembered from one run to the next.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

/// Places on this machine; each is remembered in the user's configuration.
#[derive(Args, Clone, Debug, Default)]
pub struct Places {
    /// Tests with the checkouts openembedded-core and bitbake in DIR, or in directories of DIR, one for each release; remembered
    #[arg(long, value_name = "DIR", requires = "test")]
    pub oe_core: Option<PathBuf>,
    /// Tests with the checkout of meta-mender in DIR, or in directories of DIR, one for each release; remembered
    #[arg(long, value_name = "DIR", requires = "test")]
    pub meta_mender: Option<PathBuf>,
    /// Takes the source of the Mender client from DIR, BitBake's DL_DIR of another build [default: the network]; remembered
    #[arg(long, value_name = "DIR", requires = "test")]
    pub downloads: Option<PathBuf>,
    /// Assembles .ipk packages with the program FILE, as opkg-native builds it [default: opkg in PATH]; remembered
    #[arg(long, value_name = "FILE", requires = "test")]
    pub opkg: Option<PathBuf>,
}

impl Places {
    /// No place at all.
    pub const NONE: Self = Self { oe_core: None, meta_mender: None, downloads: None, opkg: None };

    /// These places, each of which is remembered, and where one is missing what was remembered of it.
    ///
    /// # Errors
    /// When a given place does not exist, or cannot be remembered.
    pub fn remembered(&self) -> Result<Self> {
        let directory = configuration()?;
        let remembered =
            |name: &str, given: &Option<PathBuf>| remembered(&directory.join(name), given.as_deref());
        Ok(Self {
            oe_core: remembered("oe-core", &self.oe_core)?,
            meta_mender: remembered("meta-mender", &self.meta_mender)?,
            downloads: remembered("downloads", &self.downloads)?,
            opkg: remembered("opkg", &self.opkg)?.or_else(|| in_path("opkg")),
        })
    }
}

/// Our directory in the user's configuration.
fn configuration() -> Result<PathBuf> {
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".config"));
    let directory = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home);
    let directory = directory.context("finding the configuration directory: set HOME or XDG_CONFIG_HOME")?;
    Ok(directory.join("mender-rust-modules"))
}

/// `given`, which is written to `file`, or else what `file` has of an earlier run and still exists.
fn remembered(file: &Path, given: Option<&Path>) -> Result<Option<PathBuf>> {
    let Some(place) = given else {
        let place = fs::read_to_string(file).ok().map(|text| PathBuf::from(text.trim_end()));
        return Ok(place.filter(|place| place.exists()));
    };
    let place = place.canonicalize().with_context(|| format!("looking for {}", place.display()))?;
    host::directory::write(file, format!("{}\n", place.display()))?;
    Ok(Some(place))
}

/// The program `name` in one of PATH's directories.
fn in_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(name)).find(|program| program.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_remembered_while_it_exists() {
        let directory = tempfile::tempdir().unwrap();
        let (file, place) = (directory.path().join("config/place"), directory.path().join("place"));
        assert_eq!(remembered(&file, None).unwrap(), None);
        assert!(remembered(&file, Some(&place)).unwrap_err().to_string().contains("looking for"));
        fs::create_dir(&place).unwrap();
        let found = remembered(&file, Some(&place)).unwrap();
        assert_eq!(found, Some(place.canonicalize().unwrap()));
        assert_eq!(remembered(&file, None).unwrap(), found);
        fs::remove_dir(&place).unwrap();
        assert_eq!(remembered(&file, None).unwrap(), None);
    }
}
