//! dpkg's database: the status file with a stanza for each package, and the info files of each package.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use mender_update_module::durable;

use crate::dpkg::lock;
use crate::dpkg::program;
use crate::dpkg::stanza::{PackageKey, Stanza};

/// dpkg's administrative directory.
const ADMIN_DIRECTORY: &str = "/var/lib/dpkg";

/// The stanzas of all packages.
pub struct Database {
    /// The device's native architecture.
    pub native: String,
    stanzas: Vec<Stanza>,
}

impl Database {
    /// Reads the status file. It lacks the updates of an interrupted dpkg until [`merge_updates`] has run.
    pub fn read() -> Result<Self> {
        Ok(Self { native: program::native_architecture()?, stanzas: Stanza::all(&status()?) })
    }

    /// Reads the status file without dpkg, whose configuration may be broken. The native architecture is not known: the
    /// keys of all packages have their architecture.
    pub fn read_without_dpkg() -> Result<Self> {
        Ok(Self { native: String::new(), stanzas: Stanza::all(&status()?) })
    }

    /// The stanza of the package `key`, in any state.
    pub fn find(&self, key: &PackageKey) -> Option<&Stanza> {
        self.stanzas.iter().find(|stanza| stanza.key(&self.native).is_ok_and(|own| own == *key))
    }

    /// The stanza of the package `key`, unless dpkg knows only its selection.
    pub fn find_known(&self, key: &PackageKey) -> Option<&Stanza> {
        self.find(key).filter(|stanza| stanza.is_known())
    }

    /// Every package with a name and an architecture.
    pub fn all(&self) -> impl Iterator<Item = (PackageKey, &Stanza)> {
        self.stanzas.iter().filter_map(|stanza| Some((stanza.key(&self.native).ok()?, stanza)))
    }

    /// The version of the package `key`, if it is installed.
    pub fn installed_version(&self, key: &PackageKey) -> Option<&str> {
        self.find(key).filter(|stanza| stanza.is_installed())?.field("Version")
    }

    /// The names of the `.deb` files of all installed packages.
    pub fn deb_names_of_installed(&self) -> BTreeSet<PathBuf> {
        let installed = self.stanzas.iter().filter(|stanza| stanza.is_installed());
        installed.filter_map(|stanza| stanza.file_name().ok()).map(PathBuf::from).collect()
    }

    /// The packages that dpkg has not finished installing or removing.
    pub fn unfinished(&self) -> impl Iterator<Item = &Stanza> {
        self.stanzas.iter().filter(|stanza| !stanza.is_finished())
    }

    /// The info files with a name that one of the packages `keys` gives to its own, where no package in the database
    /// has that name: a power loss may leave the files of a package that dpkg does not know.
    pub fn orphaned_info_files<'a>(&self, keys: impl Iterator<Item = &'a PackageKey>) -> Result<Vec<PathBuf>> {
        let known = self.stanzas.iter().filter(|stanza| stanza.is_known());
        let known: BTreeSet<_> = known.filter_map(|stanza| info_name(stanza).ok()).collect();
        let mut found = Vec::new();
        for PackageKey { name, foreign } in keys {
            let of_architecture = format!("{name}:{}", foreign.as_ref().unwrap_or(&self.native));
            for name in [name, &of_architecture].into_iter().filter(|name| !known.contains(*name)) {
                found.extend(info_files_of(name)?);
            }
        }
        Ok(found)
    }

    /// The packages that each of the files and directories `paths` belongs to.
    pub fn owners<'a, P: AsRef<Path> + 'a + ?Sized>(&self, paths: impl IntoIterator<Item = &'a P>) -> Result<Owners> {
        let mut owners: BTreeMap<_, _> =
            paths.into_iter().map(|path| (merged_usr(path.as_ref()), Vec::new())).collect();
        for stanza in self.stanzas.iter().filter(|stanza| stanza.is_known()) {
            let key = stanza.key(&self.native)?;
            for path in files_of(stanza)? {
                owners.get_mut(&merged_usr(&path)).into_iter().for_each(|owners| owners.push(key.clone()));
            }
        }
        Ok(Owners(owners))
    }
}

/// Files and directories with the packages that they belong to.
pub struct Owners(BTreeMap<PathBuf, Vec<PackageKey>>);

impl Owners {
    /// The packages that `path` belongs to, which must be among those that were looked up.
    pub fn of(&self, path: &Path) -> &[PackageKey] {
        self.0.get(&merged_usr(path)).map_or(&[], Vec::as_slice)
    }
}

/// `path` below `/usr` where `/bin`, `/lib` and others are symlinks into `/usr`: packages use either path.
fn merged_usr(path: &Path) -> PathBuf {
    let below_root = path.strip_prefix("/").unwrap_or(path);
    match below_root.iter().next() {
        Some(top) if Path::new("/").join(top).is_symlink() && Path::new("/usr").join(top).is_dir() => {
            Path::new("/usr").join(below_root)
        }
        _ => path.to_owned(),
    }
}

fn status() -> Result<Vec<u8>> {
    let path = Path::new(ADMIN_DIRECTORY).join("status");
    fs::read(&path).with_context(|| format!("reading {} failed", path.display()))
}

/// Makes dpkg merge the updates of an interrupted run into the status file, and change nothing else.
pub fn merge_updates() -> Result<()> {
    // With empty standard input, dpkg only opens the database for writing and closes it.
    program::change_under_lock("dpkg").arg("--set-selections").run()
}

/// Removes the control files that an interrupted dpkg has unpacked. dpkg removes them itself, but only when
/// it unpacks the next package.
pub fn remove_unpacked_control_files(lock_seconds: u64) -> Result<()> {
    let _lock = lock::take(lock::DATABASE, lock_seconds)?;
    durable::remove_tree(&Path::new(ADMIN_DIRECTORY).join("tmp.ci"))
}

/// Whether dpkg was interrupted and has not run since.
pub fn is_interrupted() -> Result<bool> {
    let directory = Path::new(ADMIN_DIRECTORY).join("updates");
    let mut entries = fs::read_dir(&directory).with_context(|| format!("listing {} failed", directory.display()))?;
    Ok(entries.next().is_some())
}

/// Refuses an update while the status file lacks the updates of an interrupted dpkg.
pub fn check_finished() -> Result<()> {
    ensure!(
        !is_interrupted()?,
        "update refused: dpkg was interrupted after the backup: run dpkg --configure -a, then install the artifact again"
    );
    Ok(())
}

/// The paths of the info files of `package`, without those of the same package for another architecture.
pub fn info_files(package: &Stanza) -> Result<Vec<PathBuf>> {
    info_files_of(&info_name(package)?)
}

/// The paths of the info files with the name `name`.
fn info_files_of(name: &str) -> Result<Vec<PathBuf>> {
    let directory = Path::new(ADMIN_DIRECTORY).join("info");
    let listing = || format!("listing {}", directory.display());
    let prefix = format!("{name}.");
    let mut found = Vec::new();
    for entry in fs::read_dir(&directory).with_context(listing)? {
        let path = entry.with_context(listing)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Not the files of a package `a.b` for the package `a`: no kind contains a dot.
        if name.strip_prefix(&prefix).is_some_and(|kind| !kind.contains('.')) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The path of the info file `kind` of `package`.
pub fn info_file(package: &Stanza, kind: &str) -> Result<PathBuf> {
    Ok(Path::new(ADMIN_DIRECTORY).join("info").join(format!("{}.{kind}", info_name(package)?)))
}

fn info_name(package: &Stanza) -> Result<String> {
    match package.field("Multi-Arch") {
        Some("same") => package.dpkg_name(),
        _ => package.required("Package").map(str::to_owned),
    }
}

/// The files and directories of `package` in dpkg's order; none where it has no list.
pub fn files_of(package: &Stanza) -> Result<Vec<PathBuf>> {
    let path = info_file(package, "list")?;
    match fs::read(&path) {
        Ok(list) => Ok(list
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| if line == b"/." { "/".into() } else { PathBuf::from(OsStr::from_bytes(line)) })
            .collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("reading {} failed", path.display())),
    }
}

/// Replaces the stanza of each package by the one beside it, or removes it if that is `None`. The packages
/// themselves must be in that state already. A stanza that dpkg has dropped is added.
pub fn restore_stanzas(stanzas: &BTreeMap<PackageKey, Option<Stanza>>, lock_seconds: u64) -> Result<()> {
    let _lock = lock::take(lock::DATABASE, lock_seconds)?;
    ensure!(!is_interrupted()?, "restoring dpkg's status file failed: dpkg was interrupted: run dpkg --configure -a");
    let text = status()?;
    let new = with_replaced(&text, stanzas, &program::native_architecture()?);
    if new == text { Ok(()) } else { durable::rewrite_file(&Path::new(ADMIN_DIRECTORY).join("status"), &new) }
}

/// The status file `text` with the stanzas of the packages in `stanzas` replaced.
fn with_replaced(text: &[u8], stanzas: &BTreeMap<PackageKey, Option<Stanza>>, native: &str) -> Vec<u8> {
    let (mut new, mut missing) = (Vec::new(), stanzas.clone());
    for stanza in Stanza::all(text) {
        // A package with a selection that was never installed has no architecture.
        match stanza.key(native).ok().and_then(|key| missing.remove(&key)) {
            None => push(&mut new, &stanza),
            Some(previous) => previous.iter().for_each(|previous| push(&mut new, previous)),
        }
    }
    missing.values().flatten().for_each(|previous| push(&mut new, previous));
    new
}

fn push(text: &mut Vec<u8>, stanza: &Stanza) {
    text.extend(&stanza.0);
    text.extend(b"\n\n");
}

#[cfg(test)]
mod tests;
