//! Helpers for the host on which the project's commands run: Debian packages, the cache directory, directories,
//! commands, scripts, parallel work, and the progress display.

pub mod apt;
pub mod cache;
pub mod cargo;
pub mod command;
pub mod directory;
pub mod packages;
pub mod pool;
pub mod script;
pub mod status;
