//! apt's marks: whether somebody has asked for a package, or another one needs it.

use std::path::Path;

use anyhow::Result;
use mender_update_module::{FileName, durable};

use crate::control::Key;
use crate::dpkg;
use crate::staged::names;

/// The packages that are there only because others need them.
///
/// # Errors
/// When apt does not say.
pub fn automatic() -> Result<Vec<Key>> {
    let said = dpkg::text_of(dpkg::look("apt-mark").arg("showauto").output()?)?;
    Ok(said.lines().map(Key::of_apt).collect())
}

/// Removes what an apt that was cut has left of a new list of marks, beside the list: apt never comes back to it.
///
/// # Errors
/// When it cannot be removed.
pub fn sweep() -> Result<()> {
    let folder = Path::new("/var/lib/apt");
    let is_left = |name: &FileName| name.as_ref().to_string_lossy().starts_with("extended_states.");
    for name in names(folder)?.iter().filter(|name| is_left(name)) {
        durable::remove_file(&folder.join(name))?;
    }
    Ok(())
}

/// Marks each of the installed packages `wanted`: true for automatic. Those that have their mark are left alone.
///
/// # Errors
/// When apt cannot.
pub fn set<'a>(wanted: impl IntoIterator<Item = (&'a Key, bool)>) -> Result<()> {
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
            dpkg::change("apt-mark").arg(verb).args(packages).run()?;
        }
    }
    Ok(())
}
