//! Journals that released versions of a module have written.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// The phases that a journal is kept of, as written, and those that its update passes through before: the same record but for the
/// phase.
const PASSED: [(&str, &str); 3] =
    [("Switched", "Switching"), ("RolledBack", "RollingBack"), ("Staged", "Staging")];

/// Has `check` read each journal in `tests/journals/VERSION/` of the crate in `manifest`, in each phase that it can be in, and
/// returns the phases that it has read, sorted.
///
/// # Errors
/// When a journal cannot be read, or is refused.
pub fn released_journals(manifest: &str, check: impl Fn(&[u8]) -> Result<String>) -> Result<Vec<String>> {
    let journals = Path::new(manifest).join("tests/journals");
    let mut phases = Vec::new();
    for version in fs::read_dir(&journals).with_context(|| format!("listing {}", journals.display()))? {
        for journal in fs::read_dir(version?.path())? {
            let path = journal?.path();
            let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            let passed = PASSED
                .map(|(written, other)| text.replace(&format!("\"{written}\""), &format!("\"{other}\"")));
            for text in passed.iter().chain([&text]) {
                phases.push(check(text.as_bytes()).with_context(|| format!("in {}", path.display()))?);
            }
        }
    }
    phases.sort();
    phases.dedup();
    Ok(phases)
}
