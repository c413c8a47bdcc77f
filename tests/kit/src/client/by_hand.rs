//! Calls of a module by a person or by the boot, rather than by the client.

use std::process::Command;

use super::MockClient;

impl MockClient {
    /// The command that calls the module with `arguments`, for example `--status` or `--recover`, with the settings
    /// and the data directory of this device. A device that is a Debian system has its own ones: use its
    /// [`System`](crate::debian::System).
    pub fn by_hand(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.module);
        command
            .args(arguments)
            .env("MENDER_MODULES_SETTINGS", self.settings())
            .env("MENDER_DATASTORE_DIR", self.datastore());
        command
    }
}
