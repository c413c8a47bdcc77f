//! `web-file`: a web root with files that an update replaces, removes and does not change; and an empty device.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use anyhow::Result;
use mender_update_module_test::{MockClient, Snapshot};
use rustix::fs::{XattrFlags, setxattr};

use crate::{Module, is_clean};
use mender_update_module_test::fault_injection::Subject;

pub fn subjects(module: &Module) -> Vec<Box<dyn Subject>> {
    let subject = |first_install| -> Box<dyn Subject> { Box::new(WebFile { module: module.clone(), first_install }) };
    vec![subject(false), subject(true)]
}

struct WebFile {
    module: Module,
    first_install: bool,
}

impl Subject for WebFile {
    fn name(&self) -> &'static str {
        if self.first_install { "first install" } else { "update" }
    }

    fn device(&self) -> Result<MockClient> {
        let device = self.module.device()?;
        let (www, me) = (device.device().join("www"), fs::metadata(device.device())?);
        let (owner, group) = (me.uid(), me.gid());
        device.set("web-file", &format!("dest_dir = {www:?}\nowner = \"{owner}\"\ngroup = \"{group}\"\n"))?;
        if !self.first_install {
            fs::create_dir_all(www.join("uploads"))?;
            for name in ["index.html", "style sheet.css", "gone.html", "uploads/photo"] {
                fs::write(www.join(name), format!("the previous {name}"))?;
            }
            fs::set_permissions(www.join("gone.html"), fs::Permissions::from_mode(0o640))?;
            setxattr(www.join("index.html"), "user.origin", b"factory", XattrFlags::CREATE)?;
            self.module
                .set_times(&www, ["index.html", "style sheet.css", "gone.html", "uploads/photo", "uploads", ""])?;
        }
        Ok(device)
    }

    fn active(&self, device: &MockClient) -> Result<Snapshot> {
        Snapshot::of(&device.device().join("www"))
    }

    fn payload(&self, _device: &MockClient) -> Result<Vec<(String, Vec<u8>)>> {
        let files = [
            ("index.html", "the new index"),
            ("style sheet.css", "the new style"),
            ("added.js", "only in the new version"),
        ];
        Ok(files.map(|(name, content)| (name.into(), content.into())).into())
    }

    fn is_clean(&self, device: &MockClient) -> Result<()> {
        is_clean(device, "www", "web-file")
    }
}
