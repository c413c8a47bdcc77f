//! `web-file`: a web root with files that an update replaces, removes and does not change; and an empty device.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use anyhow::Result;
use mender_update_module_test::{MockClient, Snapshot};
use rustix::fs::{XattrFlags, setxattr};

use crate::{Module, NEW_OWNER, PREVIOUS_OWNER, give, is_clean, is_root, is_same_as};
use mender_update_module_test::fault_injection::Subject;

pub fn subjects(module: &Module) -> Vec<Box<dyn Subject>> {
    let subject = |first_install| -> Box<dyn Subject> { Box::new(WebFile { module: module.clone(), first_install }) };
    vec![subject(false), subject(true)]
}

/// The files of the artifact.
const NEW: [(&str, &str); 3] =
    [("index.html", "the new index"), ("style sheet.css", "the new style"), ("added.js", "only in the new version")];

/// The user and the group of new files: other ones than root's, if that is possible.
fn owner(device: &MockClient) -> Result<(u32, u32)> {
    let device = fs::metadata(device.device())?;
    Ok(if is_root() { NEW_OWNER } else { (device.uid(), device.gid()) })
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
        let www = device.device().join("www");
        let (owner, group) = owner(&device)?;
        device.set("web-file", &format!("dest_dir = {www:?}\nowner = \"{owner}\"\ngroup = \"{group}\"\n"))?;
        if !self.first_install {
            fs::create_dir_all(www.join("uploads"))?;
            for name in ["index.html", "style sheet.css", "gone.html", "uploads/photo"] {
                fs::write(www.join(name), format!("the previous {name}"))?;
            }
            fs::set_permissions(www.join("gone.html"), fs::Permissions::from_mode(0o640))?;
            setxattr(www.join("index.html"), "user.origin", b"factory", XattrFlags::CREATE)?;
            give(&www, ["index.html", "gone.html", "uploads", "uploads/photo", ""], PREVIOUS_OWNER)?;
            self.module
                .set_times(&www, ["index.html", "style sheet.css", "gone.html", "uploads/photo", "uploads", ""])?;
        }
        Ok(device)
    }

    fn active(&self, device: &MockClient) -> Result<Snapshot> {
        Snapshot::of(&device.device().join("www"))
    }

    fn require_new(&self, device: &MockClient) -> Result<()> {
        is_same_as(self, device, |device| {
            let (www, (owner, group)) = (device.device().join("www"), owner(device)?);
            fs::create_dir_all(&www)?;
            for previous in ["index.html", "style sheet.css", "gone.html"] {
                let _ = fs::remove_file(www.join(previous)); // a first install has none
            }
            for (name, content) in NEW {
                fs::write(www.join(name), content)?;
                chown(www.join(name), Some(owner), Some(group))?;
                fs::set_permissions(www.join(name), fs::Permissions::from_mode(0o644))?;
            }
            Ok(())
        })
    }

    fn payload(&self, _device: &MockClient) -> Result<Vec<(String, Vec<u8>)>> {
        Ok(NEW.map(|(name, content)| (name.into(), content.into())).into())
    }

    fn is_clean(&self, device: &MockClient) -> Result<()> {
        is_clean(device, "www", "web-file")
    }
}
