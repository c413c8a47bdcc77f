//! The rollback: restores the backup from any point that the install or an earlier rollback has reached.
//!
//! [`steps`] has the order of the steps. A step takes the [`source`] and calls no other step:
//!
//! | step | what it restores |
//! |---|---|
//! | [`configuration`] | the configuration of dpkg and apt, before any program runs |
//! | [`packages`] | packages, with dpkg |
//! | [`structure`] | directories and symlinks to directories, before dpkg installs packages |
//! | [`tables`] | diversions and stat overrides before that; alternatives, units, marks and selections after
//! it |
//! | [`files`] | everything that dpkg does not restore |
//! | [`verification`] | nothing: it compares the device with the backup |

pub mod comparison;
pub mod configuration;
pub mod files;
pub mod leftovers;
pub mod packages;
pub mod path_restore;
pub mod source;
pub mod steps;
pub mod structure;
pub mod table_changes;
pub mod tables;
pub mod verification;
