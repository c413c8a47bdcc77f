//! `MODULE --status`: the pending update, for a person on the device.

use std::env;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::client::client_command;
use crate::record::Phase;

/// The pending update in a module's journal.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Pending {
    /// The phase.
    pub phase: String,
    /// The meaning of the phase.
    pub meaning: &'static str,
    /// Whether a rollback to the previous version is possible.
    pub can_roll_back: bool,
    /// The directory of the previous version or of the staged payload, if there is one.
    pub kept_in: Option<PathBuf>,
    /// The next command, if there is one.
    pub next: Option<String>,
}

impl Pending {
    pub(crate) fn new(phase: Phase, kept_in: Option<PathBuf>) -> Self {
        let client = client_command();
        // Client 3 has no record of an interrupted install, and refuses `mender rollback` then.
        let recover = if client == "mender" { recover_command() } else { format!("{client} rollback") };
        let (meaning, can_roll_back, next) = match phase {
            Phase::Staging => ("download interrupted", false, Some("install the artifact again".to_owned())),
            Phase::Staged => ("downloaded, not installed", false, Some("install the artifact again".to_owned())),
            Phase::Activating => ("installation interrupted, or running", true, Some(unless_running(&recover))),
            Phase::Active => {
                ("installed, waiting for commit", true, Some(format!("{client} commit, or {client} rollback")))
            }
            Phase::Committed => ("committed, not cleaned up yet", true, None),
            Phase::RollingBack => ("rollback interrupted, or running", true, Some(unless_running(&recover))),
            Phase::RolledBack => ("rolled back, not cleaned up yet", false, None),
            Phase::Discarding => ("ended, not cleaned up yet", false, None),
        };
        Self { phase: format!("{phase:?}"), meaning, can_roll_back, kept_in, next }
    }
}

/// The next step when a call of the module may still run.
fn unless_running(command: &str) -> String {
    format!("wait for the client if it runs; otherwise {command}")
}

/// The command that rolls an interrupted update back without the client.
fn recover_command() -> String {
    let module = env::current_exe().unwrap_or_else(|_| "MODULE".into());
    format!("{} --recover", module.display())
}

/// The output of `--status`.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    pub module: &'static str,
    pub version: &'static str,
    pub pending: Option<Pending>,
    /// Records of earlier updates whose previous version could not be restored.
    pub unrestored: Vec<PathBuf>,
    pub journal: PathBuf,
    pub settings: PathBuf,
    pub log: PathBuf,
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "module:    {} {}", self.module, self.version)?;
        match &self.pending {
            None => writeln!(formatter, "update:    none pending")?,
            Some(pending) => {
                writeln!(formatter, "update:    {} ({})", pending.meaning, pending.phase)?;
                let possible = if pending.can_roll_back { "possible" } else { "nothing to roll back" };
                writeln!(formatter, "rollback:  {possible}")?;
                if let Some(kept) = &pending.kept_in {
                    writeln!(formatter, "kept in:   {}", kept.display())?;
                }
                if let Some(next) = &pending.next {
                    writeln!(formatter, "next:      {next}")?;
                }
            }
        }
        for record in &self.unrestored {
            writeln!(formatter, "failed:    the rollback of an earlier update: {}", record.display())?;
        }
        writeln!(formatter, "journal:   {}", self.journal.display())?;
        writeln!(formatter, "settings:  {}", self.settings.display())?;
        write!(formatter, "log:       {}, or the output of {} install", self.log.display(), client_command())
    }
}

/// `MODULE --help`.
pub(crate) fn help(name: &str, version: &str) -> String {
    format!(
        "{name} {version}, a Mender Update Module\n\n\
         The Mender client runs it once for each state of an update of payload type {name}:\n\
         \x20 {name} STATE TREE\n\n\
         By hand:\n\
         \x20 {name} --status [--json]         prints the pending update, and the next command\n\
         \x20 {name} --check-settings [FILE]   checks the settings, /etc/mender-modules/{name}.toml or FILE\n\
         \x20 {name} --recover [TREE]          ends an interrupted update, as at boot\n\
         \x20 {name} --under-way               prints the path of the pending update's journal; exit code 1: none\n\
         \x20 {name} --version                 prints the version\n\
         \x20 {name} --help                    prints this help"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_has_a_meaning_and_a_next_command() {
        let status = |pending| Status {
            module: "web-file",
            version: "1.0.0",
            pending,
            unrestored: Vec::new(),
            journal: "/j".into(),
            settings: "/s".into(),
            log: "/l".into(),
        };
        let text = status(Some(Pending::new(Phase::Active, Some("/kept".into())))).to_string();
        for line in ["module:    web-file 1.0.0", "installed, waiting for commit (Active)", "rollback:  possible"] {
            assert!(text.contains(line), "{line} is missing in {text}");
        }
        assert!(text.contains("commit, or ") && text.contains("kept in:   /kept"), "{text}");
        assert!(status(None).to_string().contains("none pending"));
        for phase in [Phase::Staging, Phase::Staged, Phase::Activating, Phase::RollingBack] {
            assert!(Pending::new(phase, None).next.is_some(), "{phase:?}");
        }
        let json = serde_json::to_string(&status(Some(Pending::new(Phase::Staged, None)))).unwrap();
        assert!(json.contains(r#""phase":"Staged""#) && json.contains(r#""can_roll_back":false"#), "{json}");
    }

    #[test]
    fn an_interrupted_update_is_continued_by_the_client_or_by_hand() {
        let module = env::current_exe().unwrap();
        assert_eq!(recover_command(), format!("{} --recover", module.display()));
        for phase in [Phase::Activating, Phase::RollingBack] {
            let next = Pending::new(phase, None).next.unwrap();
            assert!(next.contains("wait for the client"), "{next}");
            assert!(next.contains("mender-update rollback") || next.contains(&recover_command()), "{next}");
        }
    }

    #[test]
    fn the_help_has_every_option() {
        let help = help("web-file", "1.0.0");
        for word in
            ["web-file 1.0.0", "--status", "--check-settings", "--recover", "--under-way", "--version", "--help"]
        {
            assert!(help.contains(word), "{word} is missing in {help}");
        }
    }
}
