//! The machine the toolkit runs on: which packages it has, where caches and directories live, how a command is
//! run, and how a person sees that something is going on.

pub mod apt;
pub mod cache;
pub mod command;
pub mod directory;
pub mod packages;
pub mod pool;
pub mod status;
