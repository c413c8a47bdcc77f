//! Managed mode: a device whose client runs as a daemon, and the Mender server of this process that it polls.
//!
//! A scenario starts a [`Managed`] on a device that has power, deploys artifacts, and reads the [`Views`] of the
//! device and the server. All of this works also after power losses and reboots: the daemon starts with every boot.

mod subject;
mod views;

use std::path::Path;

use anyhow::{Context, Result};
use mender_server::{Artifact, Deployment, Server};
use qemu::Limit;
use serde_json::json;

use crate::device::Device;
pub use subject::{BASE, CONTAINER, DEB, DIRECTORY, Subject, WEB_FILE};
pub use views::{Outcome, Views, provides};

/// A deployment, from the client's next poll to its last report. An interrupted download waits for one minute, and
/// podman's commands take some seconds each.
const DEPLOYMENT: Limit = Limit::new("DEPLOYMENT", 1800);

/// The directory of the client's data.
const DATA: &str = "/var/lib/mender";

/// The program that prints the identity of the device. Debian's package has none.
const IDENTITY: &str = "/usr/share/mender/identity/mender-device-identity";

/// The client's settings. Client 3.4 repeats a report for as long as two poll intervals are, at most ten times: here
/// eight times in 16 s. D-Bus is for other programs on the device, and not every image has it.
fn settings(url: &str) -> String {
    json!({
        "ServerURL": url,
        "UpdatePollIntervalSeconds": 8,
        "InventoryPollIntervalSeconds": 3600,
        "RetryPollIntervalSeconds": 2,
        "DBus": { "Enabled": false },
    })
    .to_string()
}

/// The server of a device whose client runs as a daemon.
pub struct Managed {
    /// The server.
    pub server: Server,
}

impl Managed {
    /// Starts a server and the daemon on `device`, which has power. The daemon also starts with every later boot.
    pub fn start(device: &Device) -> Result<Self> {
        let managed = Self { server: Server::start()? };
        let client = device.generation();
        // An emulated CPU takes up to a minute to create a key.
        let key = device.copy_in(&device.key()?)?;
        let settings = device.write_file("mender.conf", settings(&managed.server.url()).as_bytes())?;
        let services = client.services.join(" ");
        device.ok(&format!(
            "printf '#!/bin/sh\\necho mac=52:54:00:12:34:56\\n' > {IDENTITY} && chmod 755 {IDENTITY} \
             && install -m 600 {key} {DATA}/mender-agent.pem && install -m 600 {settings} /etc/mender/mender.conf \
             && rm {key} {settings} && cd /etc/systemd/system && rm -f {services} && systemctl daemon-reload \
             && systemctl --quiet enable {services} && systemctl start {services} && sync"
        ))?;
        Ok(managed)
    }

    /// Offers the artifact called `name` in the file `path` to the device, and returns the ID of the deployment.
    pub fn deploy(&self, device: &Device, path: &Path, name: &str) -> Result<String> {
        Ok(self.server.deploy(Artifact::read(path, name, device.device_type())?))
    }

    /// Waits until `condition` is true for the deployment `id`.
    pub fn wait(&self, device: &Device, id: &str, condition: impl Fn(&Deployment) -> bool) -> Result<Deployment> {
        let name = format!("deployment of {}", self.server.deployment(id)?.artifact.name);
        let waited = device.wait_for(&name, DEPLOYMENT, || Ok(condition(&self.server.deployment(id)?)));
        let deployment = self.server.deployment(id)?;
        waited.with_context(|| format!("{name} did not continue: {deployment:#?}\n{}", device.daemon_log()))?;
        Ok(deployment)
    }

    /// Waits until the client reports nothing more about the deployment `id`, and reads the views of it.
    pub fn views(&self, device: &Device, subject: &Subject, id: &str) -> Result<Views> {
        let deployment = self.wait(device, id, views::is_over)?;
        Views::read(device, subject, deployment)
    }

    /// Waits until the server, which is or will be absent, has left a request unanswered.
    pub fn wait_for_unanswered(&self, device: &Device) -> Result<()> {
        let before = self.server.unanswered();
        device
            .wait_for("request to the absent server", DEPLOYMENT, || Ok(self.server.unanswered() > before))
            .with_context(|| format!("no request to the absent server\n{}", device.daemon_log()))
    }
}
