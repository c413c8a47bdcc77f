//! `deb`: packages that the real dpkg and apt replace, add and remove, in a chroot on a copy-on-write mount.
//!
//! The tracer interrupts apt, dpkg and maintainer scripts as it interrupts the module. The comparison is that of
//! [`System::state`](mender_update_module_test::debian::System::state). Unsynced writes are lost in the directories
//! that an update changes; the packages have their files in `/opt`, because `/usr` is large.

use std::fs;

use anyhow::{Context, Result, ensure};
use mender_update_module_test::debian::Package;
use mender_update_module_test::{Generation, MockClient, Snapshot};

use crate::{Module, is_same_as};
use mender_update_module_test::fault_injection::{Subject, directory_for_devices};

pub fn subjects(module: &Module) -> Vec<Box<dyn Subject>> {
    let subject = |previous| -> Box<dyn Subject> { Box::new(Deb { module: module.clone(), previous }) };
    [true, false].map(subject).into()
}

struct Deb {
    module: Module,
    /// Whether an older version of the packages is installed.
    previous: bool,
}

impl Deb {
    /// The packages before: one that a newer version replaces, and one that another package replaces.
    fn before() -> [Package; 2] {
        [app("1.0"), Package::new("legacy", "1").file("/opt/legacy", "legacy")]
    }
}

/// A package with a maintainer script, a file that changes, a file of this version only, and a configuration file.
fn app(version: &str) -> Package {
    Package::new("app", version)
        .file("/opt/app/data", version)
        .file(&format!("/opt/app/only-in-{version}"), "")
        .conffile("/etc/app.conf", &format!("the settings of {version}\n"))
        .script("postinst", "exit 0")
}

impl Subject for Deb {
    fn name(&self) -> &'static str {
        if self.previous { "update" } else { "first install" }
    }

    fn device(&self) -> Result<MockClient> {
        let base = self.module.debian.as_deref().context("no Debian system for the module deb")?;
        let (parent, executable) = (directory_for_devices(), &self.module.executable);
        let device = MockClient::debian_in(parent, base, executable, Generation::V5, true)?;
        let system = device.system().context("the device is a Debian system")?;
        if self.previous {
            let packages = Self::before().iter().map(Package::build).collect::<Result<Vec<_>>>()?;
            system.install_packages(&packages)?;
            fs::write(device.device().join("etc/app.conf"), "changed on the device\n")?;
            system.ok(&["touch", "--date=@1234567890.5", "/etc/app.conf"])?;
        }
        Ok(device)
    }

    fn active(&self, device: &MockClient) -> Result<Snapshot> {
        device.system().context("the device is a Debian system")?.state()
    }

    fn require_new(&self, device: &MockClient) -> Result<()> {
        is_same_as(self, device, |device| {
            let system = device.system().context("the device is a Debian system")?;
            let packages: Vec<_> = self.payload(device)?.into_iter().map(|(_, package)| package).collect();
            system.install_packages(&packages)
        })
    }

    fn payload(&self, _device: &MockClient) -> Result<Vec<(String, Vec<u8>)>> {
        let successor = Package::new("successor", "2")
            .field("Conflicts", "legacy")
            .field("Replaces", "legacy")
            .file("/opt/legacy", "of the successor");
        Ok(vec![("app.deb".into(), app("2.0").build()?), ("successor.deb".into(), successor.build()?)])
    }

    fn recorded(&self) -> &'static [&'static str] {
        &["data", "etc", "opt", "var/lib/apt", "var/lib/dpkg"]
    }

    fn is_clean(&self, device: &MockClient) -> Result<()> {
        let directory = device.datastore().join("update-modules/deb");
        for name in ["journal.json", "staging", "old"] {
            ensure!(!directory.join(name).exists(), "the update is not ended: {name} is left");
        }
        Ok(())
    }
}
