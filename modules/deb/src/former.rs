//! What the device was before the switch, as far as the switch changes it: kept whole before anything is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use update_module::durable::{self, Dir};
use update_module::{FileName, say};

use crate::control::{Key, Stanza};
use crate::database::{self, Database, Diversions};
use crate::extras::Extras;
use crate::marks;
use crate::original;
use crate::places::{self, Places};
use crate::plan::Plan;
use crate::rebuild;
use crate::staged::Staged;

/// The files by which a package asks for a reboot.
const REBOOT: [&str; 2] = ["/run/reboot-required", "/var/run/reboot-required"];

/// Everything that the way back needs.
#[derive(Serialize, Deserialize)]
pub struct Former {
    pub packages: Vec<Package>,
    pub places: Places,
    /// Folders of packages that the administrator has put elsewhere: the symlinks in their places.
    pub moved: Places,
    pub extras: Extras,
    /// The file that asks for a reboot, if somebody had asked before.
    reboot: Option<Request>,
}

/// One package that the switch changes.
#[derive(Serialize, Deserialize)]
pub struct Package {
    pub key: Key,
    /// What dpkg knew of it; nothing, if it did not know it.
    pub stanza: Option<Stanza>,
    /// Its `.deb`, if it was installed.
    pub deb: Option<FileName>,
    pub automatic: bool,
}

/// Which file asks for a reboot, and since when.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Request(u64, (i64, i64));

/// Where in the module's folder the old is kept, and where the packages that it installed before.
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
}

impl Former {
    /// Keeps what `plan` changes in `folders.old`, durably.
    ///
    /// # Errors
    /// When something cannot be read or kept, or a package has a file of another that it does not replace.
    pub fn keep(
        plan: &Plan,
        staged: &[Staged],
        database: &Database,
        folders: &Folders,
        reserve: u64,
    ) -> Result<Self> {
        durable::remove_tree(&folders.old)?;
        durable::make_dirs(&folders.old)?;
        let old = Dir::make(&folders.old, 0o700)?;
        let (keys, unowned) = affected(plan, staged, database)?;
        let installed =
            keys.iter().filter_map(|key| database.find(key)).filter(|package| package.is_installed());
        old.check_space(installed.map(Stanza::installed_size).sum(), reserve)
            .context("keeping the old packages for a rollback")?;
        let (diversions, automatic) = (Diversions::read()?, marks::automatic()?);
        let mut packages = Vec::new();
        for key in keys {
            let stanza = database.find(&key).filter(|package| package.state() != "not-installed").cloned();
            let deb = match stanza.as_ref().filter(|package| package.is_installed()) {
                Some(package) => Some(keep_deb(package, &diversions, &folders.store, &old)?),
                None => None,
            };
            packages.push(Package { automatic: automatic.contains(&key), key, stanza, deb });
        }
        let paths = unowned.into_iter().chain(delicate(&packages, staged)?).collect();
        let places = Places::keep(paths, &folders.places())?;
        let moved = Places::keep(moved(&packages)?, &folders.moved())?;
        let installed = packages.iter().filter(|package| package.deb.is_some());
        let installed: Vec<_> = installed.filter_map(|package| package.stanza.as_ref()).collect();
        let extras = Extras::keep(&installed, database, &diversions)?;
        old.sync_filesystem()?;
        Ok(Self { packages, places, moved, extras, reboot: request() })
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
        say(format_args!("keeping {name} as it was installed"));
    } else {
        say(format_args!("keeping {name}, rebuilt from the installed files"));
        rebuild::rebuild(package, diversions, old, &name)?;
    }
    Ok(name)
}

/// The packages that change: those of `plan`, and those that lose a file to a package that replaces it. And what the
/// new packages bring that is there already without being a package's.
fn affected(
    plan: &Plan,
    staged: &[Staged],
    database: &Database,
) -> Result<(BTreeSet<Key>, BTreeSet<PathBuf>)> {
    let mut keys: BTreeSet<Key> = plan.keys().cloned().collect();
    let mut unowned = BTreeSet::new();
    let files = staged.iter().map(Staged::files).collect::<Result<Vec<_>>>()?;
    let (owners, diversions) = (database.owners(files.iter().flatten())?, Diversions::read()?);
    for (package, files) in staged.iter().zip(files) {
        for path in files {
            let place = diversions.place(&path, &package.key.name);
            let Some(meta) = durable::look_at(place)? else { continue };
            let owners = owners.of(&path);
            if owners.is_empty() {
                unowned.insert(place.to_owned());
            }
            // Folders are shared, and so are the same files of one package for two architectures.
            let is_folder = meta.is_dir() || place.is_dir();
            for owner in
                owners.iter().filter(|owner| owner.name != package.key.name && !is_folder && place == path)
            {
                ensure!(
                    plan.remove.contains(owner)
                        || plan.install.contains(owner)
                        || package.control.replaces(&owner.name),
                    "package {} has the file {}, which package {owner} has too, and does not replace it",
                    package.key,
                    path.display()
                );
                keys.insert(owner.clone());
            }
        }
    }
    Ok((keys, unowned))
}

/// Configuration files of the old and the new with what may come to lie beside them, and dpkg's own files.
fn delicate(packages: &[Package], staged: &[Staged]) -> Result<BTreeSet<PathBuf>> {
    let mut paths = BTreeSet::new();
    for package in packages.iter().filter_map(|package| package.stanza.as_ref()) {
        paths.extend(package.conffiles().flat_map(|(path, _)| places::around_conffile(Path::new(path))));
        paths.extend(database::info_files(package)?);
    }
    for package in staged {
        paths.extend(package.conffiles()?.iter().flat_map(|path| places::around_conffile(path)));
    }
    Ok(paths)
}

/// Symlinks where the packages have folders.
fn moved(packages: &[Package]) -> Result<BTreeSet<PathBuf>> {
    let mut paths = BTreeSet::new();
    for package in packages.iter().filter_map(|package| package.stanza.as_ref()) {
        let is_moved = |path: &PathBuf| path.is_symlink() && path.is_dir();
        paths.extend(database::files_of(package)?.into_iter().filter(is_moved));
    }
    Ok(paths)
}

fn request() -> Option<Request> {
    let meta = REBOOT.iter().find_map(|path| fs::metadata(path).ok())?;
    Some(Request(meta.ino(), (meta.mtime(), meta.mtime_nsec())))
}
