//! `directory`: a directory replaced by the tar archive of the official payload, over an old tree, with files that are
//! kept, or where nothing was.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use anyhow::Result;
use mock_client::{MockClient, Snapshot};
use rustix::fs::{XattrFlags, setxattr};
use tar::{Builder, EntryType, Header};

use super::{Module, is_clean};
use crate::Subject;

pub fn subjects(module: &Module) -> Vec<Box<dyn Subject>> {
    let subject = |old| -> Box<dyn Subject> { Box::new(Directory { module: module.clone(), old }) };
    [Old::Tree, Old::TreeWithUploads, Old::Nothing].map(subject).into()
}

struct Directory {
    module: Module,
    old: Old,
}

/// What is there before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Old {
    /// A tree, which the update replaces.
    Tree,
    /// A tree with a directory that the settings keep.
    TreeWithUploads,
    /// Not even the destination's parent.
    Nothing,
}

impl Directory {
    /// The destination, from the top of the device.
    fn destination(&self) -> &'static str {
        if self.old == Old::Nothing { "srv/app" } else { "app" }
    }
}

impl Subject for Directory {
    fn name(&self) -> &'static str {
        match self.old {
            Old::Tree => "update",
            Old::TreeWithUploads => "update with kept files",
            Old::Nothing => "first install",
        }
    }

    fn device(&self) -> Result<MockClient> {
        let device = self.module.device()?;
        if self.old == Old::TreeWithUploads {
            device.set("directory", "keep = [\"uploads/**\"]\n")?;
        }
        if self.old != Old::Nothing {
            make_old(&device.device().join(self.destination()), &self.module)?;
        }
        Ok(device)
    }

    fn live(&self, device: &MockClient) -> Result<Snapshot> {
        let top = Path::new(self.destination()).iter().next().unwrap_or_default();
        Snapshot::of(&device.device().join(top))
    }

    fn payload(&self, device: &MockClient) -> Result<Vec<(String, Vec<u8>)>> {
        let destination = device.device().join(self.destination());
        Ok(vec![
            ("dest_dir".into(), format!("{}\n", destination.display()).into()),
            ("update.tar".into(), archive(&fs::metadata(device.device())?)?),
        ])
    }

    fn knows_times(&self) -> bool {
        self.old != Old::Nothing // the directory above the destination is made when the update comes
    }

    fn is_clean(&self, device: &MockClient) -> Result<()> {
        let top = Path::new(self.destination()).iter().next().unwrap_or_default();
        is_clean(device, &top.to_string_lossy(), "directory")?;
        is_clean(device, "app", "directory")
    }
}

fn make_old(app: &Path, module: &Module) -> Result<()> {
    fs::create_dir_all(app.join("share/doc"))?;
    fs::create_dir(app.join("uploads"))?;
    for name in ["program", "share/doc/read me", "share/gone", "uploads/photo"] {
        fs::write(app.join(name), format!("the old {name}"))?;
    }
    // More than the record of a tar archive: a backup of it can be cut in the middle.
    fs::write(app.join("share/gone"), "only in the old\n".repeat(2 << 10))?;
    fs::set_permissions(app.join("program"), fs::Permissions::from_mode(0o750))?;
    fs::hard_link(app.join("program"), app.join("program-1"))?;
    symlink("program-1", app.join("current"))?;
    if !module.spared {
        setxattr(app.join("share/gone"), "user.origin", b"factory", XattrFlags::CREATE)?;
    }
    let files = ["program", "current", "share/doc/read me", "share/gone", "uploads/photo"];
    module.set_times(app, files.into_iter().chain(["share/doc", "share", "uploads", ""]))
}

/// The new tree, of files that belong to whom `owned` belongs: only root could give them to others.
fn archive(owned: &Metadata) -> Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    let mut add = |name: &str, kind: EntryType, mode: u32, content: &str| -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owned.uid().into());
        header.set_gid(owned.gid().into());
        header.set_mtime(1_700_000_000);
        match kind {
            EntryType::Link | EntryType::Symlink => {
                header.set_size(0);
                tar.append_link(&mut header, name, content)?;
            }
            _ => {
                header.set_size(content.len() as u64);
                tar.append_data(&mut header, name, content.as_bytes())?;
            }
        }
        if name == "./share/" {
            tar.append_pax_extensions([("SCHILY.xattr.user.origin", b"update".as_slice())])?; // of the next entry
        }
        Ok(())
    };
    add("./", EntryType::Directory, 0o755, "")?;
    add("./program", EntryType::Regular, 0o755, "the new program")?;
    add("./program-2", EntryType::Link, 0o755, "./program")?;
    add("./current", EntryType::Symlink, 0o777, "program-2")?;
    add("./share/", EntryType::Directory, 0o755, "")?;
    add("./share/data", EntryType::Regular, 0o644, "added by the new")?;
    add("./share/doc/", EntryType::Directory, 0o700, "")?;
    add("./share/doc/read me", EntryType::Regular, 0o600, "the new read me")?;
    Ok(tar.into_inner()?)
}
