//! Does an Update Module, any one, keep to the protocol? Each case is one sentence of it, tried on the executable.
//!
//! The client is played by [`mock_client`]: it writes trees as clients 3.4.0 and 5.1.0 were seen to.

mod cases;
mod payload;

use std::path::PathBuf;

use anyhow::Result;

pub use cases::CASES;
pub use payload::Payload;

/// An executable and what it is to install.
pub struct Subject {
    /// The module, a program or a script.
    pub module: PathBuf,
    /// The artifact's files and the device's settings.
    pub payload: Payload,
}

/// One sentence of the protocol.
pub struct Case {
    /// Its name on the command line.
    pub name: &'static str,
    /// The sentence.
    pub says: &'static str,
    check: fn(&Subject) -> Result<()>,
}

impl Case {
    /// Tries the case on `subject`.
    ///
    /// # Errors
    /// When the module does not keep to the protocol: what it was asked and what it did.
    pub fn run(&self, subject: &Subject) -> Result<()> {
        (self.check)(subject)
    }
}
