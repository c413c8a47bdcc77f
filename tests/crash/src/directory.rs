//! `directory`: a directory that is replaced with the content of a tar archive, with and without kept files, and a
//! first install.

use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use anyhow::Result;
use mender_update_module_test::{MockClient, Snapshot};
use rustix::fs::{XattrFlags, setxattr};
use tar::{Builder, EntryType, Header};

use crate::{Module, is_clean};
use mender_update_module_test::fault_injection::Subject;

pub fn subjects(module: &Module) -> Vec<Box<dyn Subject>> {
    let subject = |previous| -> Box<dyn Subject> { Box::new(Directory { module: module.clone(), previous }) };
    [Previous::Tree, Previous::TreeWithUploads, Previous::Nothing].map(subject).into()
}

struct Directory {
    module: Module,
    previous: Previous,
}

/// The previous version.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Previous {
    /// A tree that the update replaces.
    Tree,
    /// A tree with a directory that the settings keep.
    TreeWithUploads,
    /// None; the parent of the destination does not exist either.
    Nothing,
}

impl Directory {
    /// The destination, relative to the device.
    fn destination(&self) -> &'static str {
        if self.previous == Previous::Nothing { "srv/app" } else { "app" }
    }
}

impl Subject for Directory {
    fn name(&self) -> &'static str {
        match self.previous {
            Previous::Tree => "update",
            Previous::TreeWithUploads => "update with kept files",
            Previous::Nothing => "first install",
        }
    }

    fn device(&self) -> Result<MockClient> {
        let device = self.module.device()?;
        if self.previous == Previous::TreeWithUploads {
            device.set("directory", "keep = [\"uploads/**\"]\n")?;
        }
        if self.previous != Previous::Nothing {
            make_previous(&device.device().join(self.destination()), &self.module)?;
        }
        Ok(device)
    }

    fn active(&self, device: &MockClient) -> Result<Snapshot> {
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
        self.previous != Previous::Nothing // the update makes the parent of the destination
    }

    fn is_clean(&self, device: &MockClient) -> Result<()> {
        let top = Path::new(self.destination()).iter().next().unwrap_or_default();
        is_clean(device, &top.to_string_lossy(), "directory")?;
        is_clean(device, "app", "directory")
    }
}

fn make_previous(app: &Path, module: &Module) -> Result<()> {
    fs::create_dir_all(app.join("share/doc"))?;
    fs::create_dir(app.join("uploads"))?;
    for name in ["program", "share/doc/read me", "share/gone", "uploads/photo"] {
        fs::write(app.join(name), format!("the previous {name}"))?;
    }
    // Larger than the record of a tar archive: a backup of it can be interrupted half-way.
    fs::write(app.join("share/gone"), "only in the previous version\n".repeat(2 << 10))?;
    fs::set_permissions(app.join("program"), fs::Permissions::from_mode(0o750))?;
    fs::hard_link(app.join("program"), app.join("program-1"))?;
    symlink("program-1", app.join("current"))?;
    if !module.plain {
        setxattr(app.join("share/gone"), "user.origin", b"factory", XattrFlags::CREATE)?;
    }
    let files = ["program", "current", "share/doc/read me", "share/gone", "uploads/photo"];
    module.set_times(app, files.into_iter().chain(["share/doc", "share", "uploads", ""]))
}

/// The new tree. Its owner is that of `owned`: only root could set another.
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
    add("./share/data", EntryType::Regular, 0o644, "added by the new version")?;
    add("./share/doc/", EntryType::Directory, 0o700, "")?;
    add("./share/doc/read me", EntryType::Regular, 0o600, "the new read me")?;
    Ok(tar.into_inner()?)
}
