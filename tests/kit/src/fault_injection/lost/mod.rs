//! Lost writes: the states that a power loss may leave when a module has not synced its changes.
//!
//! The model promises as little as POSIX: content and attributes are durable once their file or directory has been
//! synced, a name once the directory that gets it has been, and everything after `sync` or `syncfs`. Until then any
//! change may be missing, in any order, and content may be zeros or torn. ext4 with its defaults promises more; a
//! module that relies on that fails elsewhere. The client's data are on a file system of their own: `syncfs` of one
//! file system says nothing of the other. What a failed sync had to make durable is lost. Not modelled: writes through
//! memory maps.

mod effect;
mod states;

pub use states::{Losses, State, after_failed_sync, complete};
