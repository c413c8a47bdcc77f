//! What an update costs, as ratios of figures measured in one run: ours, theirs, and the floor that nothing can be
//! below, which is to write the payload once and to sync. Never a test that passes or fails by a clock.
//!
//! Every file system is synced after each state, for all alike. A kernel does it by itself within half a minute, and a
//! deployment takes longer: without it a backup that is made and removed within seconds would seem to cost nothing.

mod content;
mod contestant;
mod medium;
mod report;
mod rounds;
mod watch;

pub use content::Size;
pub use contestant::{Contestant, Means};
pub use report::render;
pub use rounds::{Comparison, Figures, Plan, compare};
pub use watch::Seen;
