//! The four views of a deployment, which have to agree: the disk, the client, the status on the server, and the
//! deployment log on the server.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use mender_server::Deployment;

use super::subject::Subject;
use crate::device::Device;

/// What the device and the server show after a deployment.
#[derive(Clone, Debug)]
pub struct Views {
    /// The module.
    pub module: &'static str,
    /// The disk: the artifact whose payload is active.
    pub disk: String,
    /// The client: the name of the artifact that `show-artifact` prints.
    pub artifact: String,
    /// The client: what `show-provides` prints.
    pub provides: BTreeMap<String, String>,
    /// The server: the status that was reported, and the deployment log.
    pub deployment: Deployment,
}

/// The result of a deployment, on which all views agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The new version is active and committed.
    Committed,
    /// The previous version is active, and the server has the log of the failure.
    Failed,
    /// The previous version is active after the server has aborted the deployment.
    Aborted,
    /// The artifact was active before the deployment.
    AlreadyInstalled,
}

/// The statuses in the order in which a deployment has them. Some may be missing, and some repeat.
const ORDER: [&str; 6] = ["downloading", "installing", "rebooting", "success", "failure", "already-installed"];

impl Views {
    /// Reads the views of `deployment`, which has ended.
    pub fn read(device: &Device, subject: &Subject, deployment: Deployment) -> Result<Self> {
        let show = |what| device.ok(&format!("{} {what}", device.generation().command));
        Ok(Self {
            module: subject.module,
            disk: (subject.active)(device)?,
            artifact: show("show-artifact")?.trim().to_owned(),
            provides: provides(&show("show-provides")?),
            deployment,
        })
    }

    /// The outcome, if all views agree on it. A deployment that was not the first one had another version before.
    ///
    /// # Errors
    /// Two views disagree. The error names them.
    pub fn outcome(&self) -> Result<Outcome> {
        self.agreed().with_context(|| format!("the views of the deployment disagree: {self:#?}"))
    }

    fn agreed(&self) -> Result<Outcome> {
        let Deployment { artifact: new, statuses, log, .. } = &self.deployment;
        ensure!(self.disk == self.artifact, "disk and show-artifact");
        let provided = self.provides.get("artifact_name").map_or(self.artifact.as_str(), String::as_str);
        ensure!(provided == self.artifact, "show-artifact and show-provides: the artifact's name");
        ensure!(is_in_order(statuses), "the status is out of order: {statuses:?}");
        let outcome = self.reported()?;
        let is_new = matches!(outcome, Outcome::Committed | Outcome::AlreadyInstalled);
        ensure!((self.disk == new.name) == is_new, "disk and status on the server");
        let version = self.provides.get(&format!("data-partition.{}.version", self.module));
        ensure!((version == Some(&new.name)) == is_new, "status on the server and show-provides: the version");
        // Not every client sends the log of an aborted deployment.
        let has_log = log.is_some() == (outcome == Outcome::Failed) || outcome == Outcome::Aborted;
        ensure!(has_log, "status and deployment log on the server");
        Ok(outcome)
    }

    /// The outcome that the server shows.
    fn reported(&self) -> Result<Outcome> {
        let Deployment { statuses, refused, is_aborted, .. } = &self.deployment;
        let has = |status: &str| statuses.iter().any(|reported| reported == status);
        match self.deployment.outcome() {
            Some("success") => {
                ensure!(has("downloading") && has("installing"), "success without an install: {statuses:?}");
                Ok(Outcome::Committed)
            }
            Some("already-installed") => {
                ensure!(statuses.len() == 1, "an install of an installed artifact: {statuses:?}");
                Ok(Outcome::AlreadyInstalled)
            }
            Some(_) => Ok(Outcome::Failed),
            None => {
                ensure!(*is_aborted, "no final status: {statuses:?}");
                ensure!(!refused.iter().any(|status| status == "success"), "success of an aborted deployment");
                Ok(Outcome::Aborted)
            }
        }
    }
}

/// Whether the client reports nothing more about `deployment`. After a failure it sends the log.
pub fn is_over(deployment: &Deployment) -> bool {
    match deployment.outcome() {
        Some("failure") => deployment.log.is_some(),
        Some(_) => true,
        None => deployment.refused.last().is_some_and(|status| matches!(status.as_str(), "success" | "failure")),
    }
}

/// Whether no status is followed by one of an earlier phase, and nothing follows a final one.
fn is_in_order(statuses: &[String]) -> bool {
    let phases = statuses.iter().map(|status| ORDER.iter().position(|known| known == status));
    // The client reports "installing" before the commit also after a reboot.
    let phases: Option<Vec<_>> = phases.map(|phase| phase.map(|phase| if phase == 2 { 1 } else { phase })).collect();
    phases.is_some_and(|phases| phases.windows(2).all(|pair| pair[0] <= pair[1] && pair[0] < 3))
}

/// The lines `NAME=VALUE` of `text`.
pub fn provides(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests;
