//! Which packages and paths an update touches, and what of that a rollback could not restore: that is refused here, before
//! anything is changed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use mender_update_module::durable::{self, Dir};
use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

use crate::contents::{Item, Kind};
use crate::control::{Key, Stanza};
use crate::database::{self, Database, Diversions, Owners};
use crate::places;
use crate::plan::Plan;
use crate::staged::Staged;

/// What an update touches.
#[derive(Default)]
pub struct Touched {
    /// The packages that change: those of the plan, and those that lose a file to a package that replaces it.
    pub keys: BTreeSet<Key>,
    /// Files that no package brings back: configuration files, what no package has, dpkg's own.
    pub copied: BTreeSet<PathBuf>,
    /// Every path, those of the former packages and of the new ones, with the directories above them.
    pub paths: BTreeSet<PathBuf>,
    /// Those directories among them that no other package has: their times are restored too.
    pub exclusive: BTreeSet<PathBuf>,
}

impl Touched {
    /// Finds out what `plan` touches.
    ///
    /// # Errors
    /// When something is in the way that a rollback could not restore: which path of which package, and what to do.
    pub fn by(plan: &Plan, staged: &[Staged], database: &Database) -> Result<Self> {
        let diversions = Diversions::read()?;
        let mut touched = Self { keys: plan.keys().cloned().collect(), ..Self::default() };
        // What the update does not bring but configures, has to be what it was, too.
        for package in database.unfinished() {
            touched.keys.insert(package.key(&database.native)?);
        }
        let paths = staged.iter().flat_map(|package| {
            let places = |path| [path, diversions.place(path, &package.key.name)];
            package.items.iter().flat_map(move |item| places(&item.path))
        });
        let owners = database.owners(paths)?;
        for package in staged {
            check_conffiles(package)?;
            check_parents(package, staged, &diversions)?;
            for item in &package.items {
                let place = diversions.place(&item.path, &package.key.name);
                touched.paths.insert(place.to_owned());
                touched.see(
                    package,
                    item.kind,
                    &item.path,
                    place,
                    &Device { plan, owners: &owners, diversions: &diversions },
                )?;
            }
        }
        let mut listed = BTreeSet::new();
        for package in touched.keys.iter().filter_map(|key| database.find(key)) {
            let name = package.required("Package")?;
            listed.extend(
                database::files_of(package)?.iter().map(|path| diversions.place(path, name).to_owned()),
            );
            touched.copied.extend(database::info_files(package)?);
            touched
                .copied
                .extend(package.conffiles().flat_map(|(path, _)| places::around_conffile(Path::new(path))));
        }
        for package in staged {
            touched.copied.extend(package.conffiles.iter().flat_map(|path| places::around_conffile(path)));
            // dpkg leaves a directory alone where a package has a symlink.
            let replaces = |item: &&Item| !matches!(item.kind, Kind::Directory | Kind::Symlink);
            for item in package.items.iter().filter(replaces) {
                let place = diversions.place(&item.path, &package.key.name);
                check_directory_in_the_way(package, place, &listed)?;
            }
        }
        touched.exclusive = exclusive(&listed, &touched.keys, database)?;
        touched.paths.extend(listed);
        touched.paths.extend(touched.copied.iter().cloned());
        for path in &touched.paths {
            for beside in places::beside_any(path).filter(|beside| !touched.paths.contains(beside)) {
                if durable::exists(&beside)? {
                    touched.copied.insert(beside);
                }
            }
        }
        touched.paths.extend(touched.copied.iter().cloned());
        let above: BTreeSet<_> =
            touched.paths.iter().filter_map(|path| path.parent()).map(Path::to_owned).collect();
        touched.paths.extend(above);
        touched.paths.iter().try_for_each(|path| check_replaceable(path))?;
        Ok(touched)
    }

    /// Notes what is at `place`, where the file `path` of `package` comes to lie.
    fn see(
        &mut self,
        package: &Staged,
        kind: Kind,
        path: &Path,
        place: &Path,
        device: &Device,
    ) -> Result<()> {
        let Some(meta) = durable::look_at(place)? else { return Ok(()) };
        let owners = device.owners_at(path, place);
        if owners.is_empty() && !meta.is_dir() {
            ensure!(
                meta.is_file() || meta.is_symlink(),
                "package {} has {}, where this device has a pipe, device or socket of no package, which a rollback could not \
                 restore: remove it, or move it away",
                package.key,
                place.display()
            );
            self.copied.insert(place.to_owned());
        }
        // Directories are shared, and so are the same files of one package for two architectures.
        let shared = meta.is_dir() || (kind == Kind::Directory && place.is_dir());
        for owner in owners.into_iter().filter(|owner| owner.name != package.key.name && !shared) {
            ensure!(
                device.plan.keys().any(|key| key == owner)
                    || package.control.replaces(&owner.name)
                    || package.diverts,
                "package {} has the file {}, which package {owner} has too, and neither replaces nor diverts it",
                package.key,
                path.display()
            );
            self.keys.insert(owner.clone());
        }
        Ok(())
    }
}

/// dpkg follows a configuration file that is a symlink, and deletes its target when it purges the package.
fn check_conffiles(package: &Staged) -> Result<()> {
    for conffile in &package.conffiles {
        let kind = package.items.iter().find(|item| item.path == *conffile).map(|item| item.kind);
        ensure!(
            kind.is_none_or(|kind| kind == Kind::File),
            "package {} has the configuration file {} that is no regular file, and a rollback would delete what it leads to",
            package.key,
            conffile.display()
        );
        let place = places::target(conffile);
        ensure!(
            !durable::look_at(&place)?.is_some_and(|found| found.is_dir()),
            "package {} has the configuration file {}, where this device has a directory: move it away",
            package.key,
            conffile.display()
        );
    }
    Ok(())
}

/// Refuses a package with something below what is no directory on this device, and becomes none by the payload: dpkg would
/// remove it, and fail.
fn check_parents(package: &Staged, staged: &[Staged], diversions: &Diversions) -> Result<()> {
    let becomes_directory = |path: &Path| {
        let of =
            |other: &Staged| other.items.iter().any(|item| item.kind == Kind::Directory && item.path == path);
        staged.iter().any(of)
    };
    let mut seen = BTreeSet::new();
    for parent in package.items.iter().flat_map(|item| item.path.ancestors().skip(1)) {
        if !seen.insert(parent) || parent.is_dir() || !durable::exists(parent)? {
            continue;
        }
        ensure!(
            becomes_directory(parent) && diversions.place(parent, &package.key.name) == parent,
            "package {} has files in {}, which is no directory on this device: move it away",
            package.key,
            parent.display()
        );
    }
    Ok(())
}

/// What is looked up for every path.
struct Device<'a> {
    plan: &'a Plan,
    owners: &'a Owners,
    diversions: &'a Diversions,
}

impl Device<'_> {
    /// The packages whose file lies at `place`, which is that of `path`, diverted or not.
    fn owners_at(&self, path: &Path, place: &Path) -> Vec<&Key> {
        let of = |path: &Path| {
            let at_place = |owner: &&Key| self.diversions.place(path, &owner.name) == place;
            self.owners.of(path).iter().filter(at_place).collect::<Vec<_>>()
        };
        let mut owners = of(path);
        if place != path {
            owners.extend(of(place));
        }
        owners
    }
}

/// The directories among `listed` that belong to none but the packages `keys`.
fn exclusive(
    listed: &BTreeSet<PathBuf>,
    keys: &BTreeSet<Key>,
    database: &Database,
) -> Result<BTreeSet<PathBuf>> {
    let is_directory = |path: &&PathBuf| path.symlink_metadata().is_ok_and(|found| found.is_dir());
    let directories: BTreeSet<_> = listed.iter().filter(is_directory).cloned().collect();
    let owners = database.owners(&directories)?;
    Ok(directories
        .into_iter()
        .filter(|path| owners.of(path).iter().all(|owner| keys.contains(owner)))
        .collect())
}

/// dpkg deletes a directory, with all that is in it, where a package has a file.
fn check_directory_in_the_way(package: &Staged, place: &Path, listed: &BTreeSet<PathBuf>) -> Result<()> {
    if !durable::look_at(place)?.is_some_and(|found| found.is_dir()) {
        return Ok(());
    }
    if let Some(foreign) = first_foreign(place, listed)? {
        bail!(
            "package {} has {}, where this device has a directory, and {} in it belongs to none of the packages that change: \
             move it away, a rollback could not restore it",
            package.key,
            place.display(),
            foreign.display()
        );
    }
    Ok(())
}

/// The first path below `directory` that is not among `listed`.
fn first_foreign(directory: &Path, listed: &BTreeSet<PathBuf>) -> Result<Option<PathBuf>> {
    // The directory is closed before the next level is opened.
    let names = Dir::open(directory)?.names()?;
    for name in names {
        let path = directory.join(&name);
        if !listed.contains(&path) {
            return Ok(Some(path));
        }
        // As deep as the packages' own paths are.
        if durable::look_at(&path)?.is_some_and(|found| found.is_dir()) {
            if let Some(foreign) = first_foreign(&path, listed)? {
                return Ok(Some(foreign));
            }
        }
    }
    Ok(None)
}

/// Refuses what dpkg can neither replace nor restore: an immutable file, and a mount point in the place of a file.
fn check_replaceable(path: &Path) -> Result<()> {
    let Some(meta) = durable::look_at(path)? else { return Ok(()) };
    let stat = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)
        .with_context(|| format!("examining {}", path.display()))?;
    let has = |attribute: StatxAttributes| stat.stx_attributes.contains(attribute);
    ensure!(
        !has(StatxAttributes::IMMUTABLE) && !has(StatxAttributes::APPEND),
        "{} is immutable, and neither the update nor a rollback could replace it: chattr -i -a {}",
        path.display(),
        path.display()
    );
    ensure!(
        meta.is_dir() || !has(StatxAttributes::MOUNT_ROOT),
        "{} is a mount point, and neither the update nor a rollback could replace it: unmount it",
        path.display()
    );
    Ok(())
}

/// Refuses new packages that dpkg would not remove again.
///
/// # Errors
/// As said.
pub fn check_removable(staged: &[Staged], database: &Database) -> Result<()> {
    let is_new = |package: &&Staged| !database.find(&package.key).is_some_and(Stanza::has_files);
    for package in staged.iter().filter(is_new) {
        ensure!(
            !package.control.is_essential(),
            "package {} is new and essential or protected, and dpkg would not remove it in a rollback: install it by hand",
            package.key
        );
    }
    Ok(())
}
