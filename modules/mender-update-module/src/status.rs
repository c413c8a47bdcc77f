//! `MODULE --status`: what a person on the device wants to know of an update under way.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::client::client_command;
use crate::record::Phase;

/// The update in a module's journal.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Pending {
    /// The phase, as the journal of this version calls it.
    pub phase: String,
    /// The same in words.
    pub meaning: &'static str,
    /// Whether a rollback to the previous version is still possible.
    pub can_roll_back: bool,
    /// Where the previous version or the staged payload is kept, if it is a directory of the update's own.
    pub kept_in: Option<PathBuf>,
    /// What to type next, if anything.
    pub next: Option<String>,
}

impl Pending {
    pub(crate) fn new(phase: Phase, kept_in: Option<PathBuf>) -> Self {
        let client = client_command();
        let (meaning, can_roll_back, next) = match phase {
            Phase::Staging => {
                ("a download was interrupted", false, Some("install the artifact again".to_owned()))
            }
            Phase::Staged => {
                ("downloaded, not installed", false, Some("install the artifact again".to_owned()))
            }
            Phase::Activating => {
                ("the installation was interrupted, or runs", true, Some(format!("{client} rollback")))
            }
            Phase::Active => (
                "installed, waits for its commit",
                true,
                Some(format!("{client} commit, or {client} rollback")),
            ),
            Phase::Committed => ("committed, not cleaned up yet", true, None),
            Phase::RollingBack => {
                ("the rollback was interrupted, or runs", true, Some(format!("{client} rollback")))
            }
            Phase::RolledBack => ("rolled back, not cleaned up yet", false, None),
            Phase::Discarding => ("ended, not cleaned up yet", false, None),
        };
        Self { phase: format!("{phase:?}"), meaning, can_roll_back, kept_in, next }
    }
}

/// Everything that `--status` reports.
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
            None => writeln!(formatter, "update:    none is pending")?,
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
            writeln!(formatter, "not restored: the previous version of the update in {}", record.display())?;
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
         \x20 {name} --status [--json]         shows the update under way, and what to do next\n\
         \x20 {name} --check-settings [FILE]   checks the settings, /etc/mender-modules/{name}.toml or FILE\n\
         \x20 {name} --recover [TREE]          ends an interrupted update, as at boot\n\
         \x20 {name} --under-way               prints the journal and succeeds while an update has not ended\n\
         \x20 {name} --version                 prints the version\n\
         \x20 {name} --help                    prints this"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_says_what_to_do() {
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
        for line in
            ["module:    web-file 1.0.0", "installed, waits for its commit (Active)", "rollback:  possible"]
        {
            assert!(text.contains(line), "{line} is missing in {text}");
        }
        assert!(text.contains("commit, or ") && text.contains("kept in:   /kept"), "{text}");
        assert!(status(None).to_string().contains("none is pending"));
        for phase in [Phase::Staging, Phase::Staged, Phase::Activating, Phase::RollingBack] {
            assert!(Pending::new(phase, None).next.is_some(), "{phase:?}");
        }
        let json = serde_json::to_string(&status(Some(Pending::new(Phase::Staged, None)))).unwrap();
        assert!(json.contains(r#""phase":"Staged""#) && json.contains(r#""can_roll_back":false"#), "{json}");
    }
}
