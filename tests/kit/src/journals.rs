//! Journals that released versions of a module wrote.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Each phase of a stored journal, and the phase before it, whose journal differs in nothing else.
const PHASE_BEFORE: [(&str, &str); 3] =
    [("Switched", "Switching"), ("RolledBack", "RollingBack"), ("Staged", "Staging")];

/// Passes each journal in `tests/journals/VERSION/` of the crate in the directory `manifest` to `check`, in each phase,
/// and returns the phases that `check` has read, sorted.
///
/// # Errors
/// When a journal cannot be read, or `check` refuses it.
pub fn released_journals(manifest: &str, check: impl Fn(&[u8]) -> Result<String>) -> Result<Vec<String>> {
    let journals = Path::new(manifest).join("tests/journals");
    let mut phases = Vec::new();
    for version in fs::read_dir(&journals).with_context(|| format!("listing {} failed", journals.display()))? {
        for journal in fs::read_dir(version?.path())? {
            let path = journal?.path();
            let text = fs::read_to_string(&path).with_context(|| format!("reading {} failed", path.display()))?;
            let before =
                PHASE_BEFORE.map(|(written, other)| text.replace(&format!("\"{written}\""), &format!("\"{other}\"")));
            for text in before.iter().chain([&text]) {
                phases.push(
                    check(text.as_bytes()).with_context(|| format!("reading the journal {} failed", path.display()))?,
                );
            }
        }
    }
    phases.sort();
    phases.dedup();
    Ok(phases)
}
