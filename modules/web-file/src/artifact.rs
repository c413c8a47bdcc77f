//! The check of an artifact before it is packed.

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};
use mender_update_module::ArtifactContent;

/// Checks `content` as Download does, as far as that does not depend on the device.
///
/// # Errors
/// What every device would refuse, and the remedy.
pub fn check(content: &ArtifactContent) -> Result<()> {
    content.check_common()?;
    require_files(content.files.len())?;
    let mut seen = BTreeSet::new();
    if let Some(twice) = content.files.iter().find(|file| !seen.insert(&file.name)) {
        bail!("invalid artifact: file {} twice: remove one", twice.name);
    }
    Ok(())
}

/// Refuses an artifact without files.
pub(crate) fn require_files(number: usize) -> Result<()> {
    ensure!(number > 0, "invalid artifact: no files: add at least one");
    Ok(())
}
