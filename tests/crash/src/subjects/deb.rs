//! `deb`: packages replaced, added and removed by the real dpkg and apt, in a chroot on a copy-on-write mount.
//!
//! The tracer cuts apt, dpkg and maintainer scripts as it cuts the module. What is compared is told at
//! [`System::state`](mock_client::debian::System::state). Lost writes are not replayed: dpkg syncs what it writes, and a
//! replay would have to know all of a Debian system.

use std::fs;

use anyhow::{Context, Result, ensure};
use mock_client::debian::Package;
use mock_client::{Generation, MockClient, Snapshot};

use super::Module;
use crate::Subject;

pub fn subjects(module: &Module) -> Vec<Box<dyn Subject>> {
    let subject = |old| -> Box<dyn Subject> { Box::new(Deb { module: module.clone(), old }) };
    [true, false].map(subject).into()
}

struct Deb {
    module: Module,
    /// Whether the packages are there already, in an older version.
    old: bool,
}

impl Deb {
    /// The packages before: one that is replaced by a newer version, one by another package.
    fn before() -> [Package; 2] {
        [app("1.0"), Package::new("legacy", "1").file("/usr/share/legacy", "legacy")]
    }
}

/// A package with a script, a file that changes, one of this version only, and a configuration file.
fn app(version: &str) -> Package {
    Package::new("app", version)
        .file("/usr/share/app/data", version)
        .file(&format!("/usr/share/app/only-in-{version}"), "")
        .conffile("/etc/app.conf", &format!("the settings of {version}\n"))
        .script("postinst", "exit 0")
}

impl Subject for Deb {
    fn name(&self) -> &'static str {
        if self.old { "update" } else { "first install" }
    }

    fn device(&self) -> Result<MockClient> {
        let base = self.module.debian.as_deref().context("deb is tried on a Debian system: name one")?;
        let device = MockClient::debian(base, &self.module.executable, Generation::V5, true)?;
        let system = device.system().context("the device is a Debian system")?;
        if self.old {
            let packages = Self::before().iter().map(Package::build).collect::<Result<Vec<_>>>()?;
            system.install_packages(&packages)?;
            fs::write(device.device().join("etc/app.conf"), "changed on the device\n")?;
            system.ok(&["touch", "--date=@1234567890.5", "/etc/app.conf"])?;
        }
        Ok(device)
    }

    fn live(&self, device: &MockClient) -> Result<Snapshot> {
        device.system().context("the device is a Debian system")?.state()
    }

    fn payload(&self, _device: &MockClient) -> Result<Vec<(String, Vec<u8>)>> {
        let successor = Package::new("successor", "2")
            .field("Conflicts", "legacy")
            .field("Replaces", "legacy")
            .file("/usr/share/legacy", "of the successor");
        Ok(vec![("app.deb".into(), app("2.0").build()?), ("successor.deb".into(), successor.build()?)])
    }

    fn is_clean(&self, device: &MockClient) -> Result<()> {
        let directory = device.datastore().join("update-modules/deb");
        for name in ["journal.json", "staging", "old"] {
            ensure!(!directory.join(name).exists(), "{name} is left");
        }
        Ok(())
    }
}
