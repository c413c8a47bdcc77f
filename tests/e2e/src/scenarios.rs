//! The scenarios, one file for each module.

mod deb;
mod directory;
mod web_file;

use crate::Scenario;

/// Every scenario.
pub fn all() -> impl Iterator<Item = &'static Scenario> {
    web_file::SCENARIOS.iter().chain(directory::SCENARIOS).chain(deb::SCENARIOS)
}
