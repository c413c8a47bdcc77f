//! Destinations that no update may have: those that hold the module itself, the journal, or the client.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::settings_file;
use crate::tree::WorkTree;

/// Directories of the client that belong to it with all that is in them.
const OF_CLIENT: [&str; 2] = ["/etc/mender", "/usr/share/mender"];

/// Directories of programs, and the client's programs.
const PROGRAM_DIRECTORIES: [&str; 5] = ["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/sbin"];
const PROGRAMS: [&str; 4] = ["mender", "mender-update", "mender-auth", "mender-connect"];

/// What an update replaces in its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaces {
    /// Files directly in it.
    Files,
    /// All of it.
    Tree,
}

/// Refuses `destination`, a path without symlinks, where an update of it would replace the module itself, its journal or
/// settings, or the Mender client with its data.
///
/// # Errors
/// What it holds, and the remedy.
pub fn require_harmless(destination: &Path, replaces: Replaces, tree: &WorkTree) -> Result<()> {
    let real = |path: PathBuf| path.canonicalize().unwrap_or(path);
    let datastore = real(tree.datastore().to_owned());
    let whole = OF_CLIENT.iter().map(PathBuf::from).chain([
        settings_file::directory(),
        datastore.join("modules"),
        datastore.join("update-modules"),
    ]);
    let whole: Vec<PathBuf> = whole.map(real).collect();
    let programs =
        PROGRAM_DIRECTORIES.iter().flat_map(|directory| PROGRAMS.map(|name| Path::new(directory).join(name)));
    let programs = programs.chain(env::current_exe()).filter(|path| path.exists()).map(real);
    let mut held = whole.iter().cloned().chain([datastore.clone()]).chain(programs);
    let holds = |path: &Path| match replaces {
        Replaces::Files => path.parent() == Some(destination) && path.is_file(),
        Replaces::Tree => path.starts_with(destination),
    };
    let inside = whole.iter().find(|directory| destination.starts_with(directory));
    let own = (destination == datastore).then_some(&datastore).or(inside).cloned();
    if let Some(path) = own.or_else(|| held.find(|path| holds(path))) {
        let what = if path == destination { "belongs to" } else { "holds a part of" };
        bail!(
            "the destination {} {what} the Mender client's or this module's own data or programs ({}): name another directory",
            destination.display(),
            path.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_holds_the_module_or_the_client_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("data/mender/www")).unwrap();
        let tree = WorkTree::in_datastore(root.join("data/mender"));
        let check = |path: &Path, replaces| require_harmless(path, replaces, &tree);
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
            let error = check(&path, replaces).map_or_else(|error| format!("{error:#}"), |()| "taken".into());
            assert!(error.contains("name another directory"), "{}: {error}", path.display());
        }
        for (path, replaces) in [
            (root.join("data/mender/www"), Replaces::Tree),
            (root.join("data"), Replaces::Files),
            (root.join("srv"), Replaces::Tree),
            ("/etc".into(), Replaces::Files),
        ] {
            check(&path, replaces).unwrap();
        }
    }
}
