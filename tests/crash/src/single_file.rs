//! `single-file`: a file that is replaced, or installed for the first time.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::Result;
use mender_update_module_test::{MockClient, Snapshot};

use crate::{Module, is_clean, is_same_as};
use mender_update_module_test::fault_injection::Subject;

pub fn subjects(module: &Module) -> Vec<Box<dyn Subject>> {
    let subject =
        |first_install| -> Box<dyn Subject> { Box::new(SingleFile { module: module.clone(), first_install }) };
    vec![subject(false), subject(true)]
}

/// The content of the artifact's file.
const NEW: &str = "the new settings";

struct SingleFile {
    module: Module,
    first_install: bool,
}

impl Subject for SingleFile {
    fn name(&self) -> &'static str {
        if self.first_install { "first install" } else { "update" }
    }

    fn device(&self) -> Result<MockClient> {
        let device = self.module.device()?;
        let etc = device.device().join("etc");
        fs::create_dir(&etc)?;
        fs::write(etc.join("neighbour"), "not part of the update")?;
        if !self.first_install {
            fs::write(etc.join("app.conf"), "the previous settings")?;
            self.module.set_times(&etc, ["app.conf"])?;
        }
        Ok(device)
    }

    fn active(&self, device: &MockClient) -> Result<Snapshot> {
        // Without the time of the directory, which every replacement of a file in it changes.
        Snapshot::of(&device.device().join("etc/app.conf"))
    }

    fn require_new(&self, device: &MockClient) -> Result<()> {
        is_same_as(self, device, |device| {
            let file = device.device().join("etc/app.conf");
            fs::write(&file, NEW)?;
            Ok(fs::set_permissions(&file, fs::Permissions::from_mode(0o644))?)
        })
    }

    fn payload(&self, device: &MockClient) -> Result<Vec<(String, Vec<u8>)>> {
        let directory = format!("{}\n", device.device().join("etc").display());
        let files =
            [("dest_dir", directory.as_str()), ("filename", "app.conf\n"), ("permissions", "644\n"), ("app.conf", NEW)];
        Ok(files.map(|(name, content)| (name.into(), content.into())).into())
    }

    fn is_clean(&self, device: &MockClient) -> Result<()> {
        is_clean(device, "etc", "single-file")
    }
}
