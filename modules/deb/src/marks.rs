//! apt's marks: whether somebody has asked for a package, or another one needs it.

use anyhow::Result;

use crate::control::Key;
use crate::dpkg;

/// The packages that are there only because others need them.
///
/// # Errors
/// When apt does not say.
pub fn automatic() -> Result<Vec<Key>> {
    let said = dpkg::text_of(dpkg::look("apt-mark").arg("showauto").output()?)?;
    Ok(said.lines().map(Key::of_apt).collect())
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
