//! The generations of the Mender client: everything that differs between them and that the scenarios use.

/// A generation of the client.
#[derive(Debug, PartialEq, Eq)]
pub struct Client {
    /// Its versions, for messages.
    pub versions: &'static str,
    /// The Debian package with its command and the upstream modules.
    pub package: &'static str,
    /// Its command, to which `install`, `commit`, `rollback`, `show-artifact` and `show-provides` are given.
    pub command: &'static str,
    /// The options before them that make it log its calls of modules to standard error.
    pub log_options: &'static str,
    /// In a line of that log: the text before the path of the called module and the state.
    pub call: &'static str,
    /// The services of the daemon, in the order in which they are started. The last one runs the modules.
    pub services: &'static [&'static str],
    /// The exit statuses of a rollback, after the boot has recovered an install that lost power.
    pub rollback_after_recovery: &'static [i32],
}

/// The clients, the one in the images first.
pub const CLIENTS: &[Client] = &[
    Client {
        versions: "3",
        package: "mender-client",
        command: "mender",
        log_options: "--no-syslog --log-level debug",
        call: "msg=\"Calling module: ",
        services: &["mender-client.service"],
        rollback_after_recovery: &[2], // it does not know of an interrupted install
    },
    Client {
        versions: "4, 5 and 6",
        package: "mender-update",
        command: "mender-update",
        log_options: "--log-level debug",
        call: "Calling Update Module with command `", // client 5.1 logs only the call of Download
        services: &["mender-authd.service", "mender-updated.service"],
        rollback_after_recovery: &[0, 2], // it knows of one that has begun
    },
];

impl Client {
    /// The service that runs the modules.
    pub fn service(&self) -> &'static str {
        self.services.last().copied().unwrap_or_default()
    }

    /// The command line with `arguments`.
    pub fn command_line(&self, arguments: &str) -> String {
        format!("{} {} {arguments}", self.command, self.log_options)
    }
}
