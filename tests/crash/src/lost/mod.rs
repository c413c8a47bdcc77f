//! Lost writes: what may be durable when the power goes, of what a module has done and not synced.
//!
//! POSIX promises little, and so does this: content and attributes are durable once their file or directory has been
//! synced, names once the directory that gets the name has been, everything after `sync` or `syncfs`. Until then any of it
//! may be missing, and in any order. ext4 with its defaults is kinder; a module that relied on that would fail
//! elsewhere. Not modelled: writes torn within one call, and what is written through memory maps.

mod effect;
mod states;

pub use states::{State, complete, states};
