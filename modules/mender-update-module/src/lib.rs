//! The library that every Update Module is written on.
//!
//! Mender runs an Update Module once for every state of an update: `MODULE STATE TREE`. Implement
//! [`UpdateModule`], or [`Transactional`] for a module that stages, switches and can go back, and end with
//!
//! ```no_run
//! # struct MyModule;
//! # impl mender_update_module::UpdateModule for MyModule { const NAME: &'static str = "my-module"; }
//! fn main() -> std::process::ExitCode {
//!     mender_update_module::run(MyModule)
//! }
//! ```
//!
//! The protocol's source is `Documentation/update-modules-v3-file-api.md` of mendersoftware/mender.
//!
//! # States
//!
//! | state | called | a failure leads to |
//! |---|---|---|
//! | `ProvidePayloadFileSizes` | before the download (client 4+) | a failed download |
//! | `Download`, `DownloadWithFileSizes` | while the payload streams in | `Cleanup` |
//! | `ArtifactInstall` | to make the new live | the rollback chain |
//! | `NeedsArtifactReboot` | after install, and again after rollback | the rollback chain |
//! | `ArtifactReboot`, `ArtifactVerifyReboot` | around a reboot | the rollback chain |
//! | `ArtifactCommit` | to make the new permanent | the rollback chain |
//! | `SupportsRollback` | when a rollback is considered | an inconsistent device |
//! | `ArtifactRollback` | to bring the old back; after a power cut, repeatedly | an inconsistent device |
//! | `ArtifactRollbackReboot`, `ArtifactVerifyRollbackReboot` | around the reboot into the old | a repetition |
//! | `ArtifactFailure` | after every failed update | nothing |
//! | `Cleanup` | last, always; after a power cut in Download on a half-built tree | a failed deployment |
//!
//! # Files
//!
//! | file or folder | read by | what it is |
//! |---|---|---|
//! | `TREE/stream-next`, `TREE/streams/*` | [`Payloads`] | FIFOs with the payload, in Download only |
//! | `TREE/files/` | [`WorkTree::files`] | the payload, for a module that left the download to the client |
//! | `TREE/header/meta-data` | [`WorkTree::meta_data`] | the artifact's own JSON, `null` where it has none |
//! | `TREE/header/artifact_name`, `TREE/current_*` | [`WorkTree`] | one line each: names, group, device type |
//! | `TREE/tmp/` | [`WorkTree::tmp`] | a place of the module's own, until Cleanup |
//! | `/etc/mender-modules/NAME.toml` | [`settings::load`], [`Guard`] | the device's settings; its tables `units` and `health` go around the switch |
//! | `DATASTORE/update-modules/NAME/journal.json` | [`Journal`] | how far a change has come |
//! | `DATASTORE/update-modules/NAME/discard.json` | [`Transaction`] | a change that has ended, while what it has kept is removed |
//! | `DATASTORE/update-modules/NAME/left-N.json` | [`Transaction`] | one of which something could not be removed |
//! | `DATASTORE/update-modules/NAME/unrestored-N.json` | [`Transaction`] | one whose previous version could not be restored |
//!
//! # One call at a time
//!
//! A call that is no query holds a lock on the journal's directory, and ends with the process that has called it: as by a power
//! loss, with all the programs that it has started. What is on disk between two calls is identified in the journal by device and
//! inode ([`durable::Destination`], [`durable::Staging`]), and refused where somebody has replaced it.
//!
//! # Units and forms
//!
//! Sizes are bytes; file modes are octal strings in settings; every query is answered with one line in one write.

mod accounts;
mod change;
mod client;
pub mod durable;
mod guard;
mod journal;
mod log;
mod module;
mod name;
mod output;
mod payloads;
mod processes;
mod program;
mod protected;
mod run;
pub mod settings;
mod state;
mod supervision;
mod transaction;
mod transactional;
mod tree;

pub use accounts::Accounts;
pub use change::Change;
pub use client::client_command;
pub use guard::Guard;
pub use journal::Journal;
pub use log::say;
pub use module::UpdateModule;
pub use name::FileName;
pub use payloads::{Payload, Payloads};
pub use program::Program;
pub use protected::{Replaces, require_harmless};
pub use run::run;
pub use state::{NeedsReboot, State};
pub use transaction::{Transaction, Unrestored};
pub use transactional::Transactional;
pub use tree::WorkTree;
