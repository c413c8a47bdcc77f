//! apt-mark: which packages are marked as installed automatically, and which manually.

use std::path::Path;

use anyhow::Result;
use mender_update_module::{FileName, durable};

use crate::dpkg::program;
use crate::dpkg::stanza::PackageKey;
use crate::paths::names;

/// apt's directory, with the list of marks.
const APT_DIRECTORY: &str = "/var/lib/apt";

/// The packages that are marked as installed automatically.
pub fn automatic() -> Result<Vec<PackageKey>> {
    let output = program::text(program::query("apt-mark").arg("showauto").output()?)?;
    Ok(output.lines().map(PackageKey::from_apt).collect())
}

/// Removes unfinished lists of marks. An interrupted apt leaves them beside the list, and never removes them.
pub fn remove_unfinished_lists() -> Result<()> {
    let directory = Path::new(APT_DIRECTORY);
    let is_unfinished = |name: &FileName| name.as_ref().to_string_lossy().starts_with("extended_states.");
    for name in names(directory)?.iter().filter(|name| is_unfinished(name)) {
        durable::remove_file(&directory.join(name))?;
    }
    Ok(())
}

/// Sets the mark of each installed package in `wanted` that has another one: true for automatic.
pub fn set<'a>(wanted: impl IntoIterator<Item = (&'a PackageKey, bool)>) -> Result<()> {
    let now = automatic()?;
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
            program::change("apt-mark").arg(verb).args(packages).run()?;
        }
    }
    Ok(())
}
