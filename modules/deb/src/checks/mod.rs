//! What is refused before anything is changed.

pub mod affected;
pub mod policy;
pub mod restorable;
