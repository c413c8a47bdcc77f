//! The marks of packages: installed automatically, or manually.

use std::collections::BTreeSet;
use std::path::Path;
use std::{fs, io};

use anyhow::{Context, Result};
use mender_update_module::{FileName, durable};

use crate::apt::{WITHOUT_SOURCES, arguments};
use crate::dpkg::database::Database;
use crate::dpkg::program;
use crate::dpkg::stanza::{PackageKey, Stanza};
use crate::paths::names;

/// apt's directory, with the list of marks.
const APT_DIRECTORY: &str = "/var/lib/apt";

/// The name of the list in it.
const LIST: &str = "extended_states";

/// The options without which apt-mark fails while a preference is malformed.
const WITHOUT_PREFERENCES: [&str; 2] = ["Dir::Etc::Preferences=/dev/null", "Dir::Etc::PreferencesParts=/dev/null"];

/// The packages in `database` that are marked as installed automatically. Reads apt's list, because apt-mark fails
/// while a source or a preference is malformed.
pub fn automatic(database: &Database) -> Result<BTreeSet<PackageKey>> {
    let path = Path::new(APT_DIRECTORY).join(LIST);
    let text = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        text => text.with_context(|| format!("reading {} failed", path.display()))?,
    };
    let mut marked = marked(&text, &database.native);
    marked.retain(|key| database.find(key).is_some_and(Stanza::has_files));
    Ok(marked)
}

/// The packages that are marked in apt's list `text`, on a device of architecture `native`.
fn marked(text: &[u8], native: &str) -> BTreeSet<PackageKey> {
    let marked = Stanza::all(text).into_iter().filter(|stanza| stanza.field("Auto-Installed") == Some("1"));
    let key = |stanza: Stanza| {
        // Lists of old versions have no architectures.
        let foreign = stanza.field("Architecture").map(str::to_owned);
        Some(PackageKey { name: stanza.field("Package")?.to_owned(), foreign }.on_device(native))
    };
    marked.filter_map(key).collect()
}

/// Removes unfinished lists of marks. An interrupted apt leaves them beside the list, and never removes them.
pub fn remove_unfinished_lists() -> Result<()> {
    let directory = Path::new(APT_DIRECTORY);
    let is_unfinished = |name: &FileName| name.as_ref().to_string_lossy().starts_with(&format!("{LIST}."));
    for name in names(directory)?.iter().filter(|name| is_unfinished(name)) {
        durable::remove_file(&directory.join(name))?;
    }
    Ok(())
}

/// Sets the mark of each installed package in `wanted` that has another one: true for automatic.
pub fn set<'a>(wanted: impl IntoIterator<Item = (&'a PackageKey, bool)>) -> Result<()> {
    let now = automatic(&Database::read()?)?;
    let (mut auto, mut manual) = (Vec::new(), Vec::new());
    for (key, automatic) in wanted {
        match (automatic, now.contains(key)) {
            (true, false) => auto.push(key.to_string()),
            (false, true) => manual.push(key.to_string()),
            _ => {}
        }
    }
    for (verb, packages) in [("auto", auto), ("manual", manual)] {
        if !packages.is_empty() {
            let options = arguments(WITHOUT_SOURCES).chain(arguments(WITHOUT_PREFERENCES));
            program::change("apt-mark").args(options).arg(verb).args(packages).run()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::test_device::{installed, on_device, write, write_status};

    #[test]
    fn the_marked_packages_of_apts_list_are_found() {
        let text = b"Package: a\nArchitecture: arm64\nAuto-Installed: 1\n\nPackage: manual\nArchitecture: arm64\n\
                     Auto-Installed: 0\n\nPackage: b\nArchitecture: armhf\nAuto-Installed: 1\n\n\
                     Package: old\nAuto-Installed: 1\n\n";
        let names = |native| marked(text, native).iter().map(PackageKey::to_string).collect::<Vec<_>>();
        assert_eq!(names("arm64"), ["a", "b:armhf", "old"]);
        assert_eq!(names("armhf"), ["a:arm64", "b", "old"]);
        assert!(marked(b"", "arm64").is_empty());
    }

    #[test]
    fn only_packages_with_files_are_marked() {
        on_device(|| {
            let config = installed("config", "1").replace("ok installed", "ok config-files");
            write_status(&[&installed("a", "1"), &installed("b", "1"), &config]);
            let marked = || {
                let database = Database::read().unwrap();
                automatic(&database).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>()
            };
            assert_eq!(marked(), [""; 0], "no list");
            let mark = |name| format!("Package: {name}\nArchitecture: all\nAuto-Installed: 1\n\n");
            write("/var/lib/apt/extended_states", ["b", "config", "unknown"].map(mark).concat());
            assert_eq!(marked(), ["b"]);
            set([(&PackageKey::from_apt("a"), true), (&PackageKey::from_apt("b"), false)]).unwrap();
            assert_eq!(marked(), ["a"]);
            let time = || fs::metadata("/var/lib/apt/extended_states").unwrap().ino();
            let before = time();
            set([(&PackageKey::from_apt("a"), true), (&PackageKey::from_apt("b"), false)]).unwrap();
            assert_eq!(time(), before, "written again");
            fs::remove_file("/var/lib/apt/extended_states").unwrap();
            fs::create_dir("/var/lib/apt/extended_states").unwrap();
            assert!(automatic(&Database::read().unwrap()).unwrap_err().to_string().contains("extended_states"));
        });
    }

    #[test]
    fn unfinished_lists_are_removed() {
        on_device(|| {
            let names = ["extended_states", "extended_states.x", "extended", "other.x"];
            names.iter().for_each(|name| write(Path::new(APT_DIRECTORY).join(name), ""));
            remove_unfinished_lists().unwrap();
            assert_eq!(names.map(|name| Path::new(APT_DIRECTORY).join(name).exists()), [true, false, true, true]);
        });
    }
}
