//! The generator for `deb`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, ValueEnum};
use deb::artifact::check;
use mender_update_module::ArtifactContent;
use serde_json::{Map, Value};

use super::{Checked, Draft, Generator, Item, is_named, payload_file, renamed};
use crate::options::Options;
use crate::payload_name::{distinct, is_accepted, mapped};

/// Makes an artifact for the module deb: Debian packages
///
/// mender-artifact refuses some characters in names of files, such as + and ~. Such a package is packed under another
/// name; the device reads its real name from the package.
///
/// Example: deb-artifact-gen -n release-2 -t raspberrypi3 app_2.0_arm64.deb --remove old-app
#[derive(Args, Debug)]
pub struct Deb {
    /// Packages, and tar archives of packages
    #[arg(value_name = "FILE", required_unless_present = "remove")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    options: Options,
    /// Removes this package from the device; may be repeated
    #[arg(long, value_name = "PACKAGE")]
    remove: Vec<String>,
    /// Allows a version that is older than the installed one
    #[arg(long)]
    allow_downgrade: bool,
    /// What happens to configuration files that were changed on the device [default: keep]
    #[arg(long, value_name = "ACTION")]
    conffiles: Option<Conffiles>,
    /// Marks the update as one that needs a reboot: in managed mode the client then reboots the device
    #[arg(long)]
    reboot: bool,
}

/// What happens to changed configuration files.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Conffiles {
    Keep,
    Replace,
    Default,
}

impl Generator for Deb {
    const MODULE: &'static str = "deb";
    const META_DATA_KEYS: &'static [&'static str] = &["remove", "allow_downgrade", "conffiles", "reboot"];

    fn options(&self) -> &Options {
        &self.options
    }

    fn draft(&self, tmp: &Path) -> Result<Draft> {
        let (mut files, mut notes) = (Vec::new(), Vec::new());
        for path in &self.files {
            let file = payload_file(path)?;
            let name = file.name.as_ref().to_string_lossy().into_owned();
            let other = distinct(mapped(&name), |name| is_named(&files, name));
            if other == name {
                files.push(file);
            } else {
                let why =
                    if is_accepted(&name) { "another file has its name" } else { "mender-artifact refuses its name" };
                notes.push(format!("{name} is packed as {other}: {why}"));
                files.push(renamed(path, &other, tmp)?);
            }
        }
        let mut own = Map::new();
        let mut insert = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                own.insert(key.to_owned(), value);
            }
        };
        insert("remove", (!self.remove.is_empty()).then(|| self.remove.clone().into()));
        insert("allow_downgrade", self.allow_downgrade.then_some(true.into()));
        let action = self.conffiles.and_then(|action| action.to_possible_value());
        insert("conffiles", action.map(|action| action.get_name().into()));
        insert("reboot", self.reboot.then_some("automatic".into()));
        let meta_data = self.options.meta_data(own)?;
        Ok(Draft { content: ArtifactContent { meta_data, files }, notes, ..Draft::default() })
    }

    fn check(&self, draft: &Draft, scratch: &Path) -> Result<Checked> {
        let checked = check(&draft.content, scratch)?;
        let package = |package: &deb::artifact::Package| {
            Item::Package(format!("{} {}", package.name, package.version), package.architecture.clone())
        };
        let shown =
            |package: &deb::artifact::Package| format!("{} {} {}", package.name, package.version, package.architecture);
        let mut facts = vec![("packages", checked.packages.iter().map(shown).collect())];
        if !checked.removed.is_empty() {
            facts.push(("removed packages", checked.removed));
        }
        // The device has to have them, or apt refuses the update there.
        facts.push(("needed packages", checked.needs));
        Ok(Checked { architectures: checked.packages.iter().map(package).collect(), facts, ..Checked::default() })
    }
}
