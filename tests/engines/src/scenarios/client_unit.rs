//! The client's data directory, as systemd sets it and as the module finds it.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::device::Device;
use crate::{Scenario, Setup};

/// The scenarios. The engine has no part in them.
pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "client-unit",
    summary: "the module finds the data directory that systemd sets for the client, with drop-ins and files",
    on: &[Setup::Podman],
    run,
}];

const UNIT: &str = "system/mender-updated.service";

/// A unit that records its variable instead of the client.
const RECORDS: &str = "[Service]\nType=oneshot\nEnvironment=MENDER_DATASTORE_DIR=/lib\n\
                       ExecStart=/bin/sh -c 'echo $MENDER_DATASTORE_DIR >/run/data-directory'\n";

/// Files that are added one after the other, and the data directory after each.
const FILES: [(&str, &str, &str, &str); 9] = [
    ("/usr/lib/systemd", "", RECORDS, "/lib"),
    ("/etc/systemd", ".d/a.conf", "[Service]\nEnvironment=MENDER_DATASTORE_DIR=/a\n", "/a"),
    // Drop-ins have the order of their names, whatever their directories are.
    ("/usr/lib/systemd", ".d/b.conf", "[Service]\nEnvironment=\"MENDER_DATASTORE_DIR=/b\"\n", "/b"),
    ("/run/systemd", ".d/0.conf", "[Service]\nEnvironment=MENDER_DATASTORE_DIR=/0\n", "/b"),
    ("/etc/systemd", ".d/b.conf", "[Service]\n", "/a"),
    ("/etc/default/one", "", "MENDER_DATASTORE_DIR=/one\n", "/a"),
    ("/etc/systemd", ".d/1.conf", "[Service]\nEnvironmentFile=-/etc/default/one\n", "/one"),
    ("/etc/default/two", "", "# a comment\nMENDER_DATASTORE_DIR='/two'\n", "/one"),
    ("/usr/lib/systemd", ".d/2.conf", "[Service]\nEnvironmentFile=/etc/default/two\n", "/two"),
];

fn run(device: &mut Device) -> Result<()> {
    for (directory, suffix, content, expected) in FILES {
        let is_unit = directory.ends_with("systemd");
        let path = if is_unit { format!("{directory}/{UNIT}{suffix}") } else { directory.to_owned() };
        device.write(&path, content.as_bytes())?;
        device.ok("systemctl daemon-reload && systemctl start mender-updated.service")?;
        let set = String::from_utf8(device.read("/run/data-directory")?)?;
        ensure!(set.trim() == expected, "systemd sets {set:?} instead of {expected} after {path}: {content:?}");
        let status: Value =
            serde_json::from_str(&device.ok("/usr/share/mender/modules/v3/container --status --json")?)?;
        let journal = status["journal"].as_str().context("no journal in the status")?;
        ensure!(
            journal.starts_with(&format!("{expected}/")),
            "the module's journal is {journal}, and systemd sets {expected}, after {path}: {content:?}"
        );
    }
    Ok(())
}
