//! Destinations that no update may have: directories with the module, its journal, or the client.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::client::DATASTORE;
use crate::settings_file;
use crate::tree::WorkTree;

/// The directories of the client.
const OF_CLIENT: [&str; 2] = ["/etc/mender", "/usr/share/mender"];

/// The directories of programs, and the programs of the client.
const PROGRAM_DIRECTORIES: [&str; 5] = ["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/sbin"];
const PROGRAMS: [&str; 4] = ["mender", "mender-update", "mender-auth", "mender-connect"];

/// The part of its destination that an update replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Replaces {
    /// Files directly in the directory.
    Files,
    /// The whole tree.
    Tree,
}

/// Refuses `destination`, a path without symlinks, if an update of it would replace the module, its journal or
/// settings, or the Mender client or its data.
///
/// # Errors
/// When it would, with the protected path.
pub fn require_harmless(destination: &Path, replaces: Replaces, tree: &WorkTree) -> Result<()> {
    let real = |path: PathBuf| path.canonicalize().unwrap_or(path);
    let programs = programs().chain(env::current_exe()).filter(|path| path.exists()).map(real);
    let protected = Protected {
        whole: whole(tree.datastore()).map(real).collect(),
        datastore: real(tree.datastore().to_owned()),
        programs: programs.collect(),
    };
    protected.refuse(destination, replaces, Path::is_file)
}

/// As [`require_harmless`], of a path on a device that is not this machine: with the default directories of the client,
/// and without symlinks.
///
/// # Errors
/// As [`require_harmless`].
pub fn require_harmless_path(destination: &Path, replaces: Replaces) -> Result<()> {
    let datastore = PathBuf::from(DATASTORE);
    let protected = Protected { whole: whole(&datastore).collect(), datastore, programs: programs().collect() };
    protected.refuse(destination, replaces, |_| true)
}

/// The directories in which no update may change anything.
fn whole(datastore: &Path) -> impl Iterator<Item = PathBuf> {
    let below = [datastore.join("modules"), datastore.join("update-modules")];
    OF_CLIENT.iter().map(PathBuf::from).chain([settings_file::directory()]).chain(below)
}

fn programs() -> impl Iterator<Item = PathBuf> {
    PROGRAM_DIRECTORIES.iter().flat_map(|directory| PROGRAMS.map(|name| Path::new(directory).join(name)))
}

/// The paths that no update may replace.
struct Protected {
    whole: Vec<PathBuf>,
    datastore: PathBuf,
    programs: Vec<PathBuf>,
}

impl Protected {
    fn refuse(&self, destination: &Path, replaces: Replaces, is_file: impl Fn(&Path) -> bool) -> Result<()> {
        let Self { whole, datastore, programs } = self;
        let holds = |path: &&PathBuf| match replaces {
            Replaces::Files => path.parent() == Some(destination) && is_file(path),
            Replaces::Tree => path.starts_with(destination),
        };
        let inside = whole.iter().find(|directory| destination.starts_with(directory));
        let own = (destination == datastore).then_some(datastore).or(inside);
        let mut protected = whole.iter().chain([datastore]).chain(programs);
        if let Some(path) = own.or_else(|| protected.find(holds)) {
            bail!(
                "destination {} refused: {} belongs to the Mender client or to this module: name another directory",
                destination.display(),
                path.display()
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn destinations_with_the_module_or_the_client_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        for name in ["www", "modules/v3", "update-modules/x"] {
            fs::create_dir_all(root.join("data/mender").join(name)).unwrap();
        }
        // With Yocto, the default data directory is a symlink.
        symlink("data/mender", root.join("link")).unwrap();
        let datastores = ["data/mender", "link"].map(|name| WorkTree::in_datastore(root.join(name)));
        let check = |path: &Path, replaces| -> Vec<_> {
            datastores.iter().map(|tree| require_harmless(path, replaces, tree)).collect()
        };
        let own = env::current_exe().unwrap();
        for (path, replaces) in [
            (root.join("data"), Replaces::Tree),
            (root.join("data/mender"), Replaces::Tree),
            (root.join("data/mender"), Replaces::Files),
            (root.join("data/mender/update-modules/x"), Replaces::Files),
            (root.join("data/mender/modules/v3"), Replaces::Tree),
            ("/etc".into(), Replaces::Tree),
            ("/etc/mender".into(), Replaces::Files),
            ("/etc/mender-modules".into(), Replaces::Files),
            ("/usr/share/mender/modules/v3".into(), Replaces::Files),
            (own.parent().unwrap().into(), Replaces::Files),
            (own.parent().unwrap().parent().unwrap().into(), Replaces::Tree),
        ] {
            for checked in check(&path, replaces) {
                let error = checked.map_or_else(|error| format!("{error:#}"), |()| "accepted".into());
                assert!(error.contains("name another directory"), "{}: {error}", path.display());
            }
        }
        for (path, replaces) in [
            (root.join("data/mender/www"), Replaces::Tree),
            (root.join("data"), Replaces::Files),
            (root.join("srv"), Replaces::Tree),
            ("/etc".into(), Replaces::Files),
        ] {
            check(&path, replaces).into_iter().for_each(Result::unwrap);
        }
    }

    #[test]
    fn paths_on_another_machine_are_checked_by_name() {
        for (path, replaces) in [
            ("/var/lib/mender", Replaces::Tree),
            ("/var/lib/mender/modules/x", Replaces::Tree),
            ("/var", Replaces::Tree),
            ("/usr/bin", Replaces::Files),
            ("/etc/mender", Replaces::Tree),
        ] {
            let error = require_harmless_path(Path::new(path), replaces).unwrap_err().to_string();
            assert!(error.contains("name another directory"), "{path}: {error}");
        }
        for path in ["/srv/app", "/usr/share/app", "/var/lib/mender-app"] {
            require_harmless_path(Path::new(path), Replaces::Tree).unwrap();
        }
    }
}
