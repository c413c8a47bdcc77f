//! dpkg: its programs, its database, its locks and the commands that run around it.

pub mod conffile_policy;
pub mod database;
pub mod diversions;
pub mod hooks;
pub mod lock;
pub mod program;
pub mod related_files;
pub mod repair;
pub mod stanza;
