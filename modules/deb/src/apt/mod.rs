//! apt: what it would do, what it does, and its marks.

pub mod get;
pub mod mark;
