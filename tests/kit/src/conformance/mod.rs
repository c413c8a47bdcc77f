//! The conformance suite: whether an Update Module, in any language, conforms to the protocol. Each case is one rule
//! of the protocol, tested on the executable.
//!
//! The mock client writes work trees as the clients 3.4.0 and 5.1.0 do.

mod cases;
mod files;
mod layout;
mod payload;
mod trial;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

pub use cases::CASES;
pub use payload::Payload;

/// The time limit of one call. A call that takes longer is taken to hang, for example on a FIFO without a writer. Calls
/// take seconds at most; a busy machine may be many times slower.
pub const LIMIT: Duration = Duration::from_secs(300);

/// A module under test.
pub struct Subject {
    /// The module's executable: a program or a script.
    pub module: PathBuf,
    /// The artifact, the settings, and the device before and after the update.
    pub payload: Payload,
    /// A Debian system of which the device is a copy, for a module that needs dpkg.
    pub debian: Option<PathBuf>,
    /// The time limit of one call, usually [`LIMIT`].
    pub limit: Duration,
}

/// The result of a case that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The module conforms.
    Passed,
    /// The case is about rollback, which the module does not support.
    NotApplicable,
}

/// One rule of the protocol.
///
/// ```no_run
/// use mender_update_module_test::conformance::{CASES, LIMIT, Payload, Subject};
///
/// # fn main() -> anyhow::Result<()> {
/// let payload = Payload::read("tests/payload".as_ref())?;
/// let subject = Subject { module: "target/debug/my-module".into(), payload, debian: None, limit: LIMIT };
/// for case in CASES {
///     println!("{}: {:?}", case.rule, case.run(&subject)?);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Case {
    /// The name on the command line.
    pub name: &'static str,
    /// The rule.
    pub rule: &'static str,
    of_rollback: bool,
    check: fn(&Subject) -> Result<()>,
}

impl Case {
    /// Tests `subject`.
    ///
    /// # Errors
    /// When the module does not conform, with the call and its outcome.
    pub fn run(&self, subject: &Subject) -> Result<Verdict> {
        if self.of_rollback && !trial::supports_rollback(subject)? {
            return Ok(Verdict::NotApplicable);
        }
        (self.check)(subject).map(|()| Verdict::Passed)
    }
}
