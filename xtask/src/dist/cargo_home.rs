//! The directory of cargo in the user's home directory.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// Cargo's directory. Its crates are named in the panic messages of executables.
pub fn cargo_home() -> Result<PathBuf> {
    Ok(match env::var_os("CARGO_HOME") {
        Some(directory) => PathBuf::from(directory),
        None => env::home_dir().context("no directory of cargo: set HOME or CARGO_HOME")?.join(".cargo"),
    })
}
