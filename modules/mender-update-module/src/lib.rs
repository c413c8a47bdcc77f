//! A library for Mender Update Modules.
//!
//! Mender runs an Update Module once for every state of an update: `MODULE STATE TREE`. Implement [`Transactional`]
//! for a module that stages, activates and can roll back, or [`UpdateModule`] for any other, and call [`run`]:
//!
//! ```no_run
//! # struct MyModule;
//! # impl mender_update_module::UpdateModule for MyModule {
//! #     const NAME: &'static str = "my-module";
//! #     const VERSION: &'static str = "1.0.0";
//! # }
//! fn main() -> std::process::ExitCode {
//!     mender_update_module::run(MyModule)
//! }
//! ```
//!
//! The protocol's source is `Documentation/update-modules-v3-file-api.md` of mendersoftware/mender.
//!
//! # States
//!
//! | state | when, and what it does | a failure leads to |
//! |---|---|---|
//! | `ProvidePayloadFileSizes` | before the download (client 4+) | a failed download |
//! | `Download`, `DownloadWithFileSizes` | while the payload streams in | `Cleanup` |
//! | `ArtifactInstall` | activates the new version | the rollback states |
//! | `NeedsArtifactReboot` | after install, and again after rollback | the rollback states |
//! | `ArtifactReboot`, `ArtifactVerifyReboot` | around a reboot | the rollback states |
//! | `ArtifactCommit` | makes the new version permanent | the rollback states |
//! | `SupportsRollback` | when a rollback is considered | an inconsistent device |
//! | `ArtifactRollback` | activates the previous version; after a power loss, repeatedly | an inconsistent device |
//! | `ArtifactRollbackReboot`, `ArtifactVerifyRollbackReboot` | around the reboot into the previous version | a repetition |
//! | `ArtifactFailure` | after every failed update | nothing |
//! | `Cleanup` | last, always; after a power loss in Download on an incomplete tree | a failed deployment |
//!
//! # Phases
//!
//! What a [`Transactional`] module does depends on the phase in its journal:
//!
//! | phase | active version | `ArtifactInstall` | `ArtifactRollback` | next `Download`, or a boot |
//! |---|---|---|---|---|
//! | none | previous | fails: nothing is staged | nothing to do | |
//! | Staging | previous | fails | nothing to do | discards what is staged |
//! | Staged | previous | activates | nothing to do | Download discards what is staged |
//! | Activating | either, or between | rolls back and fails | rolls back | rolls back |
//! | Active | new | nothing to do | rolls back | Download rolls back; a boot leaves it |
//! | Committed | new | nothing to do | rolls back | Download discards the previous version |
//! | RollingBack | either, or between | fails | rolls back | rolls back |
//! | RolledBack | previous | fails | reports the health check again | Download discards |
//!
//! # Files
//!
//! | file or directory | read by | content |
//! |---|---|---|
//! | `TREE/stream-next`, `TREE/streams/*` | [`Payloads`] | FIFOs with the payload, in Download only |
//! | `TREE/files/` | [`WorkTree::files`] | the payload, for a module that left the download to the client |
//! | `TREE/header/meta-data` | [`WorkTree::meta_data`] | the artifact's JSON; `null` if it has none |
//! | `TREE/header/artifact_name`, `TREE/current_*` | [`WorkTree`] | one line each: names, group, device type |
//! | `TREE/tmp/` | [`WorkTree::tmp`] | temporary files of the module, until Cleanup |
//! | `/etc/mender-modules/NAME.toml` | [`settings::load`], [`Guard`] | the device's settings; the tables `units` and `health` apply around the activation |
//! | `DATASTORE/update-modules/NAME/journal.json` | [`Transactional`] | the pending update and its phase |
//! | `DATASTORE/update-modules/NAME/discard.json` | [`Transactional`] | an ended update, while its previous version is removed |
//! | `DATASTORE/update-modules/NAME/left-N.json` | [`Transactional`] | an ended update, of which files could not be removed |
//! | `DATASTORE/update-modules/NAME/late-N.json` | [`Transactional`] | the same, after a later update was staged |
//! | `DATASTORE/update-modules/NAME/unrestored-N.json` | [`Transactional`] | an update whose previous version could not be restored |
//!
//! # One call at a time
//!
//! A call that is not a query holds a lock on the journal's directory. It ends when the process that called it ends,
//! as by a power loss, with all programs that it has started. The journal identifies directories on disk by device
//! and inode ([`durable::Destination`], [`durable::Staging`]); a directory that was replaced between two calls is
//! refused.
//!
//! # Units and formats
//!
//! Sizes are bytes; file modes are octal strings in settings; every query is answered with one line in one write.

mod accounts;
mod artifact;
mod client;
mod deployment_log;
pub mod durable;
#[doc(hidden)]
pub mod fuzzing;
mod guard;
mod journal;
mod module;
mod name;
mod output;
mod pax;
mod payloads;
mod processes;
mod program;
mod protected;
mod record;
mod run;
mod set_aside;
pub mod settings;
mod settings_file;
mod stability;
mod state;
mod status;
mod supervision;
mod transaction;
mod transactional;
mod tree;
mod update;

#[cfg(test)]
mod test_support;

pub use accounts::Accounts;
pub use artifact::{ArtifactContent, PayloadFile};
pub use client::client_command;
#[doc(hidden)]
pub use deployment_log::{first_error, write_log};
pub use guard::Guard;
pub use module::UpdateModule;
pub use name::FileName;
pub use pax::pax_records;
pub use payloads::{Payload, Payloads};
pub use program::Program;
pub use protected::{Replaces, require_harmless, require_harmless_path};
pub use record::check_journal;
pub use run::run;
pub use stability::{Poll, StabilityWindow};
pub use state::{NeedsReboot, State};
pub use status::Pending;
pub use transactional::{InTransactions, Transactional};
pub use tree::WorkTree;
pub use update::{Trigger, Update};

/// The crate of the error type.
pub use anyhow;
