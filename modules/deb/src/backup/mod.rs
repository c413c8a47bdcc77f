//! The backup that a rollback restores, made before anything is changed.

pub mod contents;
pub mod deb_cache;
pub mod directory;
pub mod file_attributes;
pub mod file_backup;
pub mod path_record;
pub mod path_state;
pub mod rebuild;
pub mod state_files;
pub mod table_text;
pub mod tables;
