//! Does an Update Module, any one, keep to the protocol? Each case is one sentence of it, tried on the executable.
//!
//! The client is played by [`mock_client`]: it writes trees as clients 3.4.0 and 5.1.0 were seen to.

mod cases;
mod files;
mod payload;
mod trial;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

pub use cases::CASES;
pub use payload::Payload;

/// A call that takes longer than this hangs: on a FIFO that nobody writes, or on a terminal that is not there.
pub const LIMIT: Duration = Duration::from_secs(60);

/// An executable and what it is to install.
pub struct Subject {
    /// The module, a program or a script.
    pub module: PathBuf,
    /// The artifact's files, the device's settings, and what is to come of them.
    pub payload: Payload,
    /// A Debian system that the device is a copy of, for a module that is nothing without dpkg.
    pub debian: Option<PathBuf>,
    /// How long one call may take: [`LIMIT`], unless one knows better.
    pub limit: Duration,
}

/// What came of a case that was not broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The module keeps to it.
    Kept,
    /// It is about rollback, which the module says it does not support.
    NotApplicable,
}

/// One sentence of the protocol.
pub struct Case {
    /// Its name on the command line.
    pub name: &'static str,
    /// The sentence.
    pub says: &'static str,
    of_rollback: bool,
    check: fn(&Subject) -> Result<()>,
}

impl Case {
    /// Tries the case on `subject`.
    ///
    /// # Errors
    /// When the module does not keep to the protocol: what it was asked and what it did.
    pub fn run(&self, subject: &Subject) -> Result<Verdict> {
        if self.of_rollback && !trial::supports_rollback(subject)? {
            return Ok(Verdict::NotApplicable);
        }
        (self.check)(subject).map(|()| Verdict::Kept)
    }
}
