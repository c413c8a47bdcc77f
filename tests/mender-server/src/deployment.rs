//! Deployments, as the server sees them.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// The statuses after which the client reports nothing more about a deployment.
const FINAL: [&str; 3] = ["success", "failure", "already-installed"];

/// An artifact that the server offers.
#[derive(Clone, Default)]
pub struct Artifact {
    /// Its name.
    pub name: String,
    /// The compatible device type.
    pub device_type: String,
    /// The artifact itself.
    pub content: Arc<[u8]>,
}

/// Without the content, because messages show deployments.
impl fmt::Debug for Artifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {}, {} bytes", self.name, self.device_type, self.content.len())
    }
}

impl Artifact {
    /// The artifact in the file `path`.
    pub fn read(path: &Path, name: &str, device_type: &str) -> Result<Self> {
        let content = fs::read(path).with_context(|| format!("reading {} failed", path.display()))?;
        Ok(Self { name: name.to_owned(), device_type: device_type.to_owned(), content: content.into() })
    }
}

/// A deployment, and what the client has reported about it.
#[derive(Clone, Debug, Default)]
pub struct Deployment {
    /// Its artifact.
    pub artifact: Artifact,
    /// The accepted reports of the status, in their order.
    pub statuses: Vec<String>,
    /// The reports of the status that were refused, because the deployment was aborted.
    pub refused: Vec<String>,
    /// The lines of the deployment log, each with its level.
    pub log: Option<Vec<String>>,
    /// The offset at which each download of the artifact began.
    pub downloads: Vec<usize>,
    /// Whether the server has aborted it.
    pub is_aborted: bool,
}

impl Deployment {
    /// The last status, if the client has reported one after which nothing follows.
    pub fn outcome(&self) -> Option<&str> {
        self.statuses.last().map(String::as_str).filter(|status| FINAL.contains(status))
    }

    /// The number of reports of `status`.
    pub(crate) fn count(&self, status: &str) -> usize {
        self.statuses.iter().filter(|reported| *reported == status).count()
    }

    /// The deployment in the answer to a client that asks for the next one.
    pub(crate) fn description(&self, id: &str, url: &str) -> Value {
        json!({
            "id": id,
            "artifact": {
                "artifact_name": self.artifact.name,
                "device_types_compatible": [self.artifact.device_type],
                "source": { "uri": format!("{url}/artifacts/{id}"), "expire": "2100-01-01T00:00:00Z" },
            },
        })
    }
}

/// The lines of a deployment log, as the client sends it.
pub(crate) fn log_lines(body: &[u8]) -> Option<Vec<String>> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let text = |message: &Value, key: &str| message[key].as_str().unwrap_or_default().to_owned();
    let line = |message: &Value| format!("{}: {}", text(message, "level"), text(message, "message"));
    Some(body["messages"].as_array()?.iter().map(line).collect())
}
