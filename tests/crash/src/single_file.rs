//! `single-file`: a file that is replaced, or installed for the first time.

use std::fs;

use anyhow::Result;
use mender_update_module_test::{MockClient, Snapshot};

use crate::{Module, is_clean};
use mender_update_module_test::fault_injection::Subject;

pub fn subjects(module: &Module) -> Vec<Box<dyn Subject>> {
    let subject =
        |first_install| -> Box<dyn Subject> { Box::new(SingleFile { module: module.clone(), first_install }) };
    vec![subject(false), subject(true)]
}

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

    fn payload(&self, device: &MockClient) -> Result<Vec<(String, Vec<u8>)>> {
        let directory = format!("{}\n", device.device().join("etc").display());
        let files = [
            ("dest_dir", directory.as_str()),
            ("filename", "app.conf\n"),
            ("permissions", "644\n"),
            ("app.conf", "the new settings"),
        ];
        Ok(files.map(|(name, content)| (name.into(), content.into())).into())
    }

    fn is_clean(&self, device: &MockClient) -> Result<()> {
        is_clean(device, "etc", "single-file")
    }
}
