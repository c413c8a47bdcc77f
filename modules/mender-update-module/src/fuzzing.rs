//! Entry points for fuzzing: parsers of input that the modules did not write, on memory alone. They are not part of the
//! interface of this crate, and may change in any version.
//!
//! Each returns an error for input that a module refuses.

use std::path::Path;

use anyhow::Result;
use serde::de::DeserializeOwned;

use crate::artifact::ArtifactContent;
use crate::payloads;
use crate::settings::check_table;
use crate::settings_file::parse;

/// Parses an announcement in `stream-next`, in the form without sizes and in the one with them.
///
/// # Errors
/// When neither form accepts it.
pub fn announcement(line: &[u8]) -> Result<()> {
    let with_sizes = payloads::parse(line, true).map(drop);
    payloads::parse(line, false).map(drop).or(with_sizes)
}

/// Parses a settings file, with the keys of `T` and those of every module.
///
/// # Errors
/// When it has a mistake.
pub fn settings<T: DeserializeOwned>(text: &[u8]) -> Result<T> {
    let file = Path::new("settings.toml");
    check_table(parse(std::str::from_utf8(text)?, file)?, file)
}

/// The artifact whose meta-data are `text`, without payload files.
///
/// # Errors
/// When the text is not UTF-8, or has a mistake in the tables of every module.
pub fn artifact(text: &[u8]) -> Result<ArtifactContent> {
    let content = ArtifactContent { meta_data: Some(std::str::from_utf8(text)?.to_owned()), files: Vec::new() };
    content.check_common()?;
    Ok(content)
}
