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

#[cfg(test)]
mod tests {
    use mender_update_module::{FileName, PayloadFile};

    use super::*;

    #[test]
    fn an_artifact_has_files_with_different_names() {
        let content = |names: &[&str], meta_data: &str| {
            let file = |name: &&str| PayloadFile { name: FileName::new(*name).unwrap(), path: (*name).into() };
            let files = names.iter().map(file).collect();
            check(&ArtifactContent { meta_data: Some(meta_data.into()), files })
        };
        content(&["a", "b"], "null").unwrap();
        let error = |names, meta_data| format!("{:#}", content(names, meta_data).unwrap_err());
        assert!(error(&[], "null").contains("no files"));
        assert!(error(&["a", "b", "a"], "null").contains("\"a\" twice"));
        assert!(error(&["a"], r#"{"units": {"stop": ["--all"]}}"#).contains("invalid meta-data"));
    }
}
