//! Entry points for fuzzing. Each returns an error for input that the module refuses.

use std::io::{self, Read};
use std::sync::LazyLock;

use anyhow::{Context, Result};
use mender_update_module::{Accounts, check_journal, fuzzing};

use crate::artifact::check_destination;
use crate::settings::{MetaData, Settings, UnknownXattrs};
use crate::swap::Swap;
use crate::tar::Archive;

pub use crate::artifact::check_archive;

/// Parses a journal.
pub fn journal(text: &[u8]) -> Result<()> {
    check_journal::<Swap>(text).map(drop)
}

/// Parses the settings.
pub fn settings(text: &[u8]) -> Result<()> {
    fuzzing::settings::<Settings>(text).map(drop)
}

/// Parses the meta-data, and checks the destination in them.
pub fn meta_data(text: &[u8]) -> Result<()> {
    let meta_data: MetaData = fuzzing::artifact(text)?.meta_data()?.unwrap_or_default();
    meta_data.dest_dir.as_deref().map_or(Ok(()), check_destination)
}

/// Reads a tar archive with the content and the attributes of its entries, as Download does.
pub fn archive(from: &mut dyn Read) -> Result<()> {
    static ACCOUNTS: LazyLock<Option<Accounts>> = LazyLock::new(|| Accounts::read().ok());
    let accounts = ACCOUNTS.as_ref().context("no accounts")?;
    let mut archive = Archive::new(from);
    while let Some(entry) = archive.next()? {
        entry.attributes(accounts, UnknownXattrs::Ignore)?;
        io::copy(&mut archive, &mut io::sink())?;
    }
    Ok(())
}
