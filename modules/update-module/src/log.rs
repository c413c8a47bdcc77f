//! The deployment log: what a module writes to stderr is what the Mender server shows for the deployment.

use std::fmt::Display;
use std::io::{self, Write};

/// Writes one line to the deployment log. A log that nobody reads any more is no reason to fail.
pub fn say(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
