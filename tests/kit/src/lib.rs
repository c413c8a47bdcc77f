//! Tests for [Mender](https://mender.io) Update Modules in any language: conformance to the protocol, and fault
//! injection.
//!
//! - **Conformance**: each rule of the Update Module protocol v3 is tested on the executable, with a mock of the
//!   clients 3.4 and 5.1.
//! - **Fault injection**: the module is killed before and after every system call that changes a file system, every
//!   such call fails with ENOSPC and EIO, and unsynced writes are lost. Then the client continues as the real one does
//!   after a power loss, and exactly the previous or exactly the new version has to be active. On x86_64 only.
//!
//! # A Rust module
//!
//! Describe in `tests/payload` what the module installs (see [`Suite`]), and add to `Cargo.toml`:
//!
//! ```toml
//! [[test]]
//! name = "suite"
//! harness = false
//! ```
//!
//! and the file `tests/suite.rs`, with the name of your executable. `cargo test` then runs everything.
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     // env!("CARGO_BIN_EXE_my-module") is the path of the executable `my-module`.
//!     # macro_rules! env { ($name:literal) => { "my-module" } }
//!     mender_update_module_test::Suite::new(env!("CARGO_BIN_EXE_my-module"), "tests/payload").main()
//! }
//! ```
//!
//! Tests of your own drive the executable with [`MockClient`] and compare devices with [`Snapshot`].
//!
//! # A module in another language
//!
//! ```sh
//! cargo install mender-update-module-test
//! mender-update-module-test PATH/OF/MODULE PATH/OF/PAYLOAD
//! ```

mod client;
mod command_line;
pub mod conformance;
pub mod debian;
#[doc(hidden)]
pub mod failing_storage;
pub mod fault_injection;
mod file;
mod journals;
#[doc(hidden)]
pub mod privileged;
pub mod protocol;
mod settings;
mod snapshot;
mod suite;

pub use client::{Generation, MockClient, Outcome, PayloadFile};
#[doc(hidden)]
pub use command_line::main as command_line;
pub use file::read_text;
pub use journals::released_journals;
pub use settings::packaged_settings;
pub use snapshot::Snapshot;
pub use suite::Suite;
