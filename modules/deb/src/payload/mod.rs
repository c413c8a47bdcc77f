//! The payload: packages, while they stream in and when they are staged.

pub mod deb;
pub mod package;
pub mod staging;
pub mod tar_reader;
