//! What the device was before the update, as far as the update changes it: kept whole before anything is touched.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use mender_update_module::durable::{self, Dir};
use mender_update_module::{FileName, log};
use serde::{Deserialize, Serialize};

use crate::control::{Key, Stanza};
use crate::database::{Database, Diversions};
use crate::extras::Extras;
use crate::marks;
use crate::original;
use crate::places::Places;
use crate::rebuild;
use crate::record::Record;
use crate::settings::Wishes;
use crate::staged::Staged;
use crate::tables::Tables;
use crate::touched::Touched;
use crate::was;

/// The files by which a package asks for a reboot.
const REBOOT: [&str; 2] = ["/run/reboot-required", "/var/run/reboot-required"];

/// Everything that a rollback needs.
#[derive(Serialize, Deserialize)]
pub struct Former {
    pub packages: Vec<Package>,
    /// The packages of the payload; `None` in journals of versions that did not record them.
    #[serde(default)]
    pub new: Option<Vec<New>>,
    pub places: Places,
    /// Symlinks in the places of directories, in journals of versions without a [`Record`].
    #[serde(default)]
    pub moved: Places,
    /// Extended attributes and times, in journals of versions without a [`Record`].
    #[serde(default)]
    pub extras: Extras,
    /// The file that asks for a reboot, if somebody had asked before.
    reboot: Option<Request>,
}

/// One package that the update changes.
#[derive(Serialize, Deserialize)]
pub struct Package {
    pub key: Key,
    /// What dpkg knew of it; nothing, if it did not know it.
    pub stanza: Option<Stanza>,
    /// Its `.deb`, if its files were there.
    pub deb: Option<FileName>,
    /// The checksum of that; `None` in journals of versions that did not take it.
    #[serde(default)]
    pub sha256: Option<String>,
    pub automatic: bool,
}

/// One package of the payload, or one that apt has downloaded for it.
#[derive(Serialize, Deserialize)]
pub struct New {
    pub key: Key,
    pub version: String,
    #[serde(default)]
    pub downloaded: bool,
}

impl New {
    /// What there is to know of `package` without its file.
    ///
    /// # Errors
    /// When it has no version.
    pub fn of(package: &Staged) -> Result<Self> {
        let version = package.control.required("Version")?.to_owned();
        Ok(Self { key: package.key.clone(), version, downloaded: package.downloaded })
    }
}

/// Which file asks for a reboot, and since when.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Request(u64, (i64, i64));

/// Where in the module's directory the previous version is kept, and where the packages that it installed before.
pub struct Folders {
    pub old: PathBuf,
    pub store: PathBuf,
}

impl Folders {
    /// Copies of [`Former::places`].
    pub fn places(&self) -> PathBuf {
        self.old.join("places")
    }

    /// Copies of [`Former::moved`].
    pub fn moved(&self) -> PathBuf {
        self.old.join("moved")
    }

    /// The description of every path that the update touches; `None` where an earlier version has begun the update.
    ///
    /// # Errors
    /// When it cannot be looked for.
    pub fn record(&self) -> Result<Option<Record>> {
        let path = self.record_path();
        Ok(durable::exists(&path)?.then(|| Record::at(path)))
    }

    fn record_path(&self) -> PathBuf {
        self.old.join("record")
    }

    /// dpkg's tables before the update.
    pub fn tables_before(&self) -> PathBuf {
        self.old.join("tables.before")
    }

    /// dpkg's tables at the end of the install.
    pub fn tables_after(&self) -> PathBuf {
        self.old.join("tables.after")
    }

    /// dpkg's tables at the beginning of the rollback.
    pub fn tables_at_rollback(&self) -> PathBuf {
        self.old.join("tables.rollback")
    }
}

impl Former {
    /// Keeps what is `touched` in `folders.old`, durably.
    ///
    /// # Errors
    /// When something cannot be read or kept.
    pub fn keep(
        touched: &Touched,
        staged: &[Staged],
        database: &Database,
        folders: &Folders,
        wishes: &Wishes,
    ) -> Result<Self> {
        durable::remove_tree(&folders.old)?;
        durable::make_dirs(&folders.old)?;
        let old = Dir::make(&folders.old, 0o700)?;
        let with_files =
            touched.keys.iter().filter_map(|key| database.find(key)).filter(|found| found.has_files());
        let size = with_files.fold(0_u64, |size, package| size.saturating_add(package.installed_size()));
        old.check_space(size, wishes.reserve).context("keeping the previous packages for a rollback")?;
        let (diversions, automatic) = (Diversions::read()?, marks::automatic()?);
        let mut packages = Vec::new();
        for key in touched.keys.iter().cloned() {
            let stanza = database.find(&key).filter(|package| package.state() != "not-installed").cloned();
            let deb = match stanza.as_ref().filter(|package| package.has_files()) {
                Some(package) => {
                    ensure!(
                        package.is_installed() || package.is_unpacked(),
                        "package {key} is {} ({}), which a rollback could not restore: repair it (apt-get --fix-broken install), \
                         then install again",
                        package.state(),
                        package.field("Status").unwrap_or_default()
                    );
                    Some(keep_deb(package, &diversions, &folders.store, &old)?)
                }
                None => None,
            };
            let sha256 = deb.as_ref().map(|name| was::sha256(&folders.old.join(name))).transpose()?;
            packages.push(Package { automatic: automatic.contains(&key), key, stanza, deb, sha256 });
        }
        let places = Places::keep(&touched.copied, &folders.places(), wishes.backup)?;
        Record::at(folders.record_path()).write(&touched.paths, &touched.exclusive)?;
        Tables::read()?.write(&folders.tables_before())?;
        let new = Some(staged.iter().map(New::of).collect::<Result<_>>()?);
        old.sync_filesystem()?;
        let (moved, extras) = (Places::default(), Extras::default());
        Ok(Self { packages, new, places, moved, extras, reboot: request() })
    }

    /// Whether a package has asked for a reboot since.
    pub fn wants_reboot(&self) -> bool {
        let now = request();
        now.is_some() && now != self.reboot
    }

    /// What dpkg's database has to say again.
    pub fn stanzas(&self) -> BTreeMap<Key, Option<Stanza>> {
        self.packages.iter().map(|package| (package.key.clone(), package.stanza.clone())).collect()
    }

    /// The marks of those that were installed.
    pub fn marks(&self) -> impl Iterator<Item = (&Key, bool)> {
        let installed = self.packages.iter().filter(|package| package.deb.is_some());
        installed.map(|package| (&package.key, package.automatic))
    }
}

/// Puts the `.deb` of an installed package into `old`: the one it came from, or else one made of what is there.
fn keep_deb(package: &Stanza, diversions: &Diversions, store: &Path, old: &Dir) -> Result<FileName> {
    let name = FileName::new(package.file_name()?)?;
    if original::find(package, store, old, &name)? {
        log!("keeping {name} as it was installed");
    } else {
        log!("keeping {name}, rebuilt from the installed files");
        rebuild::rebuild(package, diversions, old, &name)?;
    }
    Ok(name)
}

fn request() -> Option<Request> {
    let meta = REBOOT.iter().find_map(|path| fs::metadata(path).ok())?;
    Some(Request(meta.ino(), (meta.mtime(), meta.mtime_nsec())))
}
