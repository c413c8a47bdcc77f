//! The cost of an update, as ratios of figures that were measured in one run: our modules, upstream modules, and a
//! lower bound, which is to write the payload once and to sync. It is not a test: nothing passes or fails by a clock.
//!
//! The file system is synced after each state, for all candidates alike. A kernel does that by itself within half a
//! minute, and a deployment takes longer. Without the sync, a backup that is made and removed within seconds would
//! cost nothing.

mod candidate;
mod content;
mod observer;
mod report;
mod rounds;
mod storage;

pub use candidate::{Candidate, Method};
pub use content::Size;
pub use observer::Observed;
pub use report::render;
pub use rounds::{Comparison, Figures, Plan, compare};
