//! The scenarios, one file for each module.

mod web_file;

use crate::Scenario;

/// Every scenario.
pub const SCENARIOS: &[Scenario] = &web_file::SCENARIOS;
