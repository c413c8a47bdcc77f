//! `directory`: a directory that is replaced with the content of a tar archive, with and without kept files, and a
//! first install.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use mender_update_module_test::{MockClient, Snapshot};
use rustix::fs::{XattrFlags, setxattr};
use tar::{Builder, EntryType, Header};

use crate::{Module, NEW_OWNER, PREVIOUS_OWNER, give, is_clean, is_root, is_same_as};
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

    /// Without the staging directory, which is in the parent of the destination.
    fn visible(&self, device: &MockClient) -> Result<Snapshot> {
        Ok(self.active(device)?.without(|path| path.iter().any(|name| name == ".app.directory")))
    }

    fn require_new(&self, device: &MockClient) -> Result<()> {
        is_same_as(self, device, |device| {
            let (app, kept) = (device.device().join(self.destination()), device.device().join("kept"));
            if self.previous == Previous::TreeWithUploads {
                fs::rename(app.join("uploads"), &kept)?;
            }
            if self.previous != Previous::Nothing {
                fs::remove_dir_all(&app)?;
            }
            fs::create_dir_all(&app)?;
            unpack(&archive(owner(device)?)?, &app)?;
            if self.previous == Previous::TreeWithUploads {
                fs::rename(&kept, app.join("uploads"))?;
            }
            Ok(())
        })
    }

    fn payload(&self, device: &MockClient) -> Result<Vec<(String, Vec<u8>)>> {
        let destination = device.device().join(self.destination());
        Ok(vec![
            ("dest_dir".into(), format!("{}\n", destination.display()).into()),
            ("update.tar".into(), archive(owner(device)?)?),
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
    fs::hard_link(app.join("program"), app.join("program-1"))?;
    symlink("program-1", app.join("current"))?;
    if !module.plain {
        setxattr(app.join("share/gone"), "user.origin", b"factory", XattrFlags::CREATE)?;
    }
    give(app, ["program", "current", "share", "share/gone", "uploads", "uploads/photo"], PREVIOUS_OWNER)?;
    fs::set_permissions(app.join("program"), fs::Permissions::from_mode(0o4750))?;
    let files = ["program", "current", "share/doc/read me", "share/gone", "uploads/photo"];
    module.set_times(app, files.into_iter().chain(["share/doc", "share", "uploads", ""]))
}

/// The user and the group of the new tree: other ones than root's, if that is possible.
fn owner(device: &MockClient) -> Result<(u32, u32)> {
    let device = fs::metadata(device.device())?;
    Ok(if is_root() { NEW_OWNER } else { (device.uid(), device.gid()) })
}

/// Unpacks `archive` in `destination` with tar(1).
fn unpack(archive: &[u8], destination: &Path) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--preserve-permissions", "--numeric-owner", "--same-owner", "--xattrs", "--directory"]);
    let mut tar = tar.arg(destination).stdin(Stdio::piped()).spawn().context("starting tar failed")?;
    tar.stdin.take().context("tar has no standard input")?.write_all(archive)?;
    ensure!(tar.wait()?.success(), "tar failed");
    Ok(())
}

/// The new tree, of the user and the group `owner`.
fn archive(owner: (u32, u32)) -> Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    let mut add = |name: &str, kind: EntryType, mode: u32, content: &str| -> Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner.0.into());
        header.set_gid(owner.1.into());
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
