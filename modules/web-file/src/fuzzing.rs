//! Entry points for fuzzing. Each returns an error for input that the module refuses.

use mender_update_module::anyhow::Result;
use mender_update_module::{check_journal, fuzzing};

use crate::file_set::FileSet;
use crate::settings::Settings;

/// Parses a journal.
pub fn journal(text: &[u8]) -> Result<()> {
    check_journal::<FileSet>(text).map(drop)
}

/// Parses the settings. Their values are not checked, because that depends on the device.
pub fn settings(text: &[u8]) -> Result<()> {
    fuzzing::settings::<Settings>(text).map(drop)
}

/// Parses the meta-data.
pub fn meta_data(text: &[u8]) -> Result<()> {
    fuzzing::artifact(text).map(drop)
}
