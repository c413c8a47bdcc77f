//! dpkg's database as it lies on the device: one file that says which package is in which state, and for each package a
//! few files about it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use mender_update_module::durable;

use crate::control::{Key, Stanza};
use crate::dpkg;
use crate::locks;

/// Where dpkg keeps it.
const ADMIN: &str = "/var/lib/dpkg";

/// Which package is in which state.
pub struct Database {
    /// The device's own architecture.
    pub native: String,
    stanzas: Vec<Stanza>,
}

impl Database {
    /// Reads it. What an interrupted dpkg has written aside is not in it before [`settle`].
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read() -> Result<Self> {
        Ok(Self { native: dpkg::native()?, stanzas: parse(&status()?) })
    }

    /// The package `key`, in whatever state.
    pub fn find(&self, key: &Key) -> Option<&Stanza> {
        self.stanzas.iter().find(|stanza| stanza.key(&self.native).is_ok_and(|own| own == *key))
    }

    /// Every package that has a name and an architecture.
    pub fn all(&self) -> impl Iterator<Item = (Key, &Stanza)> {
        self.stanzas.iter().filter_map(|stanza| Some((stanza.key(&self.native).ok()?, stanza)))
    }

    /// The version of the package `key` that is installed, if it is.
    pub fn installed_version(&self, key: &Key) -> Option<&str> {
        self.find(key).filter(|stanza| stanza.is_installed())?.field("Version")
    }

    /// What the `.deb` files of all installed packages are called.
    pub fn file_names_of_installed(&self) -> BTreeSet<PathBuf> {
        let installed = self.stanzas.iter().filter(|stanza| stanza.is_installed());
        installed.filter_map(|stanza| stanza.file_name().ok()).map(PathBuf::from).collect()
    }

    /// Packages that dpkg has begun with and not brought to an end.
    pub fn unfinished(&self) -> impl Iterator<Item = &Stanza> {
        let ended = |stanza: &&Stanza| {
            stanza.is_installed() || matches!(stanza.state(), "config-files" | "not-installed")
        };
        self.stanzas.iter().filter(move |stanza| !ended(stanza))
    }

    /// Who has which of the files and folders `paths`.
    ///
    /// # Errors
    /// When dpkg's list of a package cannot be read.
    pub fn owners<'a, P: AsRef<Path> + 'a + ?Sized>(
        &self,
        paths: impl IntoIterator<Item = &'a P>,
    ) -> Result<Owners> {
        let mut owners: BTreeMap<_, _> =
            paths.into_iter().map(|path| (merged(path.as_ref()), Vec::new())).collect();
        for stanza in self.stanzas.iter().filter(|stanza| stanza.state() != "not-installed") {
            let key = stanza.key(&self.native)?;
            for path in files_of(stanza)? {
                owners.get_mut(&merged(&path)).into_iter().for_each(|owners| owners.push(key.clone()));
            }
        }
        Ok(Owners(owners))
    }
}

/// Files and folders with the packages that have them.
pub struct Owners(BTreeMap<PathBuf, Vec<Key>>);

impl Owners {
    /// The packages that have `path`, one of those that were asked for.
    pub fn of(&self, path: &Path) -> &[Key] {
        self.0.get(&merged(path)).map_or(&[], Vec::as_slice)
    }
}

/// `path` as it is where `/bin`, `/lib` and the like are links into `/usr`: packages name it in either way.
fn merged(path: &Path) -> PathBuf {
    let below_root = path.strip_prefix("/").unwrap_or(path);
    match below_root.iter().next() {
        Some(top) if Path::new("/").join(top).is_symlink() && Path::new("/usr").join(top).is_dir() => {
            Path::new("/usr").join(below_root)
        }
        _ => path.to_owned(),
    }
}

fn status() -> Result<String> {
    let path = Path::new(ADMIN).join("status");
    fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
}

fn parse(text: &str) -> Vec<Stanza> {
    let stanzas = text.split("\n\n").map(|stanza| stanza.trim_matches('\n'));
    stanzas.filter(|stanza| !stanza.is_empty()).map(|stanza| Stanza(stanza.to_owned())).collect()
}

/// Has dpkg put into its database what an interrupted run of it has written aside, and do nothing else.
///
/// # Errors
/// When it cannot.
pub fn settle() -> Result<()> {
    // Without anything on standard input it selects nothing: it only opens the database for writing, and closes it.
    dpkg::dpkg().arg("--set-selections").run()
}

/// Removes what an interrupted dpkg has unpacked of a package's control files: it does so itself, but not before it unpacks
/// the next package.
///
/// # Errors
/// When dpkg is at work for longer than `lock_seconds`, or it cannot be removed.
pub fn sweep(lock_seconds: u64) -> Result<()> {
    let _lock = locks::take(locks::DATABASE, lock_seconds)?;
    durable::remove_tree(&Path::new(ADMIN).join("tmp.ci"))
}

/// Whether dpkg was interrupted and has not run since.
///
/// # Errors
/// When its folder cannot be read.
pub fn is_interrupted() -> Result<bool> {
    let folder = Path::new(ADMIN).join("updates");
    let mut entries = fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))?;
    Ok(entries.next().is_some())
}

/// The paths of dpkg's files about `package`, whether or not it has any; those of its sister for another architecture
/// are not among them.
///
/// # Errors
/// When the folder cannot be listed.
pub fn info_files(package: &Stanza) -> Result<Vec<PathBuf>> {
    let folder = Path::new(ADMIN).join("info");
    let begins = info_name(package)? + ".";
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))? {
        let path = entry.with_context(|| format!("listing {}", folder.display()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // A package `a` must not be given the files of `a.b`: what follows the name has no further dot.
        if name.strip_prefix(&begins).is_some_and(|kind| !kind.contains('.')) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The path of dpkg's file `kind` about `package`.
///
/// # Errors
/// When the package has no name.
pub fn info_file(package: &Stanza, kind: &str) -> Result<PathBuf> {
    Ok(Path::new(ADMIN).join("info").join(format!("{}.{kind}", info_name(package)?)))
}

fn info_name(package: &Stanza) -> Result<String> {
    match package.field("Multi-Arch") {
        Some("same") => package.dpkg_name(),
        _ => package.required("Package").map(str::to_owned),
    }
}

/// The files and folders of `package` in dpkg's order; none where it has no list.
///
/// # Errors
/// When its list cannot be read.
pub fn files_of(package: &Stanza) -> Result<Vec<PathBuf>> {
    let path = info_file(package, "list")?;
    match fs::read(&path) {
        Ok(list) => Ok(list
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| if line == b"/." { "/".into() } else { PathBuf::from(OsStr::from_bytes(line)) })
            .collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// Files of one package that lie elsewhere, because another package or the administrator wants their names.
pub struct Diversions(Vec<(PathBuf, PathBuf, String)>);

impl Diversions {
    /// Reads dpkg's table of them.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read() -> Result<Self> {
        let path = Path::new(ADMIN).join("diversions");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self(Vec::new())),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// Three lines each: where it would lie, where it lies, and for whom.
    fn parse(text: &str) -> Self {
        let lines: Vec<_> = text.lines().collect();
        Self(lines.chunks_exact(3).map(|part| (part[0].into(), part[1].into(), part[2].to_owned())).collect())
    }

    /// Every diversion: from where, to where, and for which package; `:` for the administrator.
    pub fn all(&self) -> impl Iterator<Item = (&Path, &Path, &str)> {
        self.0.iter().map(|(from, to, owner)| (from.as_path(), to.as_path(), owner.as_str()))
    }

    /// Where the file `path` of package `name` lies.
    pub fn place<'a>(&'a self, path: &'a Path, name: &str) -> &'a Path {
        let diverted = self.0.iter().find(|(from, _, owner)| from == path && owner != name);
        diverted.map_or(path, |(_, to, _)| to)
    }
}

/// Makes dpkg's database say of each package what the stanza beside it says, or nothing where there is none. The packages
/// themselves have to be in that state already.
///
/// # Errors
/// When the database is locked, has gone from under this, or cannot be written.
pub fn put_back(stanzas: &BTreeMap<Key, Option<Stanza>>, lock_seconds: u64) -> Result<()> {
    let _lock = locks::take(locks::DATABASE, lock_seconds)?;
    ensure!(!is_interrupted()?, "dpkg was interrupted: run dpkg --configure -a");
    let text = status()?;
    let new = replaced(&text, stanzas, &dpkg::native()?);
    if new == text { Ok(()) } else { durable::rewrite_file(&Path::new(ADMIN).join("status"), new.as_bytes()) }
}

/// The database `text` with `stanzas` in the places of those that it has of the same packages.
fn replaced(text: &str, stanzas: &BTreeMap<Key, Option<Stanza>>, native: &str) -> String {
    let mut new = String::new();
    for stanza in parse(text) {
        // A package that was never installed, but that somebody wants or holds, has no architecture.
        match stanza.key(native).ok().and_then(|key| stanzas.get(&key)) {
            None => push(&mut new, &stanza),
            Some(former) => former.iter().for_each(|former| push(&mut new, former)),
        }
    }
    new
}

fn push(text: &mut String, stanza: &Stanza) {
    text.push_str(&stanza.0);
    text.push_str("\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_file_is_taken_apart_and_put_together() {
        let text =
            "Package: a\nArchitecture: all\nDescription: x\n .\n y\n\nPackage: b\nArchitecture: amd64\n\n";
        let stanzas = parse(text);
        assert_eq!(stanzas.len(), 2);
        let mut again = String::new();
        stanzas.iter().for_each(|stanza| push(&mut again, stanza));
        assert_eq!(again, text);
        assert!(parse("\n\n\n").is_empty());
    }

    #[test]
    fn stanzas_are_replaced_and_whatever_else_is_there_stays() {
        let wanted = "Package: wanted\nStatus: hold ok not-installed\n\n";
        let text =
            format!("Package: a\nArchitecture: all\nVersion: 2\n\n{wanted}Package: b\nArchitecture: all\n\n");
        let former = Stanza("Package: a\nArchitecture: arm64\nVersion: 1".into());
        let stanzas = BTreeMap::from([(Key::of_apt("a"), Some(former)), (Key::of_apt("b"), None)]);
        let expected = format!("Package: a\nArchitecture: arm64\nVersion: 1\n\n{wanted}");
        assert_eq!(replaced(&text, &stanzas, "arm64"), expected);
    }

    #[test]
    fn a_diverted_file_lies_elsewhere_but_for_who_has_diverted_it() {
        let diversions =
            Diversions::parse("/bin/sh\n/bin/sh.distrib\ndash\n/etc/x\n/etc/x.local\n:\n/half\n");
        let place = |path, name| diversions.place(Path::new(path), name).to_owned();
        assert_eq!(place("/bin/sh", "bash"), Path::new("/bin/sh.distrib"));
        assert_eq!(place("/bin/sh", "dash"), Path::new("/bin/sh"));
        assert_eq!(place("/etc/x", "any"), Path::new("/etc/x.local"));
        assert_eq!(place("/half", "any"), Path::new("/half"));
    }

    #[test]
    fn files_about_a_package_are_named_as_dpkg_does() {
        let same = Stanza("Package: libc6\nArchitecture: amd64\nMulti-Arch: same".into());
        assert_eq!(info_file(&same, "list").unwrap(), Path::new("/var/lib/dpkg/info/libc6:amd64.list"));
        let foreign = Stanza("Package: a\nArchitecture: amd64\nMulti-Arch: foreign".into());
        assert_eq!(info_file(&foreign, "prerm").unwrap(), Path::new("/var/lib/dpkg/info/a.prerm"));
    }
}
