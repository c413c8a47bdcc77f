//! The small files and symlinks that hold which alternative is chosen, and which unit is enabled: maintainer scripts change
//! them by update-alternatives, deb-systemd-helper and update-rc.d.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use mender_update_module::durable::{self, Attributes};
use mender_update_module::log;

use crate::staged::names;
use crate::was::parts;

/// What update-alternatives knows. The links that it makes are named in there.
const ALTERNATIVES: &str = "/var/lib/dpkg/alternatives";

/// Directories of such files, with those in them.
const DIRECTORIES: [&str; 7] = [
    ALTERNATIVES,
    "/etc/alternatives",
    "/etc/systemd/system",
    "/etc/systemd/user",
    "/var/lib/systemd/deb-systemd-helper-enabled",
    "/var/lib/systemd/deb-systemd-helper-masked",
    "/var/lib/systemd/deb-systemd-user-helper-enabled",
];

/// Where init scripts are enabled: `/etc/rc0.d` to `/etc/rcS.d`.
const RUNLEVELS: &str = "0123456S";

/// The largest of these files in bytes: what is larger is none of them.
const LIMIT: u64 = 64 << 10;

/// Kind, mode, owner, group, modification time, and content or target, by path.
pub type Table = BTreeMap<String, String>;

/// Reads them.
///
/// # Errors
/// When one cannot be read.
pub fn read() -> Result<Table> {
    let mut table = Table::new();
    let runlevels = RUNLEVELS.chars().map(|level| format!("/etc/rc{level}.d"));
    for directory in DIRECTORIES.map(str::to_owned).into_iter().chain(runlevels) {
        read_directory(Path::new(&directory), &mut table)?;
    }
    for name in names(Path::new(ALTERNATIVES))? {
        // The first lines of a file there: a word, the link, and name and link of every other one that goes with it.
        let text = fs::read(Path::new(ALTERNATIVES).join(&name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        for link in text.lines().skip(1).take_while(|line| !line.is_empty()).step_by(2) {
            note(Path::new(link), &mut table)?;
        }
    }
    Ok(table)
}

/// Two levels are enough: `multi-user.target.wants/x.service`.
fn read_directory(directory: &Path, table: &mut Table) -> Result<()> {
    if !directory.symlink_metadata().is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    for name in names(directory)? {
        let path = directory.join(&name);
        note(&path, table)?;
        if path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            for name in names(&path)? {
                note(&path.join(&name), table)?;
            }
        }
    }
    Ok(())
}

fn note(path: &Path, table: &mut Table) -> Result<()> {
    let Some(meta) = durable::look_at(path)? else { return Ok(()) };
    let reading = || format!("reading {}", path.display());
    let (kind, content) = if meta.is_symlink() {
        ("link", fs::read_link(path).with_context(reading)?.into_os_string().into_string().ok())
    } else if meta.is_dir() {
        ("directory", Some(String::new()))
    } else if meta.is_file() && meta.len() <= LIMIT {
        ("file", String::from_utf8(fs::read(path).with_context(reading)?).ok())
    } else {
        return Ok(());
    };
    // What is not UTF-8 is nothing that these programs write.
    if let (Some(content), Some(key)) = (content, path.to_str()) {
        let time = if kind == "directory" { (0, 0) } else { (meta.mtime(), meta.mtime_nsec()) };
        let (mode, owner, group) = (meta.mode() & 0o7777, meta.uid(), meta.gid());
        let value = format!("{kind} {mode} {owner} {group} {} {} {content}", time.0, time.1);
        table.insert(key.to_owned(), value);
    }
    Ok(())
}

/// Makes `path` what its entry in the table says it `was`; an absent entry is an absent path.
///
/// # Errors
/// When it cannot be made so.
pub fn restore(path: &Path, was: Option<&str>) -> Result<()> {
    log!("rollback: restoring {}", path.display());
    let Some(was) = was else {
        let is_directory = durable::look_at(path)?.is_some_and(|found| found.is_dir());
        return if is_directory { durable::remove_empty_dir(path) } else { durable::remove_file(path) };
    };
    let damaged = || format!("the entry of {} in dpkg's tables is damaged", path.display());
    let mut fields = was.splitn(7, ' ');
    let mut field = || fields.next().with_context(damaged);
    let kind = field()?;
    let (mode, owner, group) = (field()?.parse()?, field()?.parse()?, field()?.parse()?);
    let modified = (field()?.parse()?, field()?.parse()?);
    let attributes = Attributes { owner, group, mode, modified, extended: Vec::new() };
    let content = field()?;
    match kind {
        "directory" => {
            let directory = durable::make_dirs(path)?;
            let modified = directory.attributes()?.modified;
            directory.set_attributes(&Attributes { modified, ..attributes })
        }
        "file" => {
            durable::write_file(path, content.as_bytes())?;
            durable::set_attributes(path, &attributes)
        }
        _ => {
            durable::remove_file(path)?;
            let (parent, name) = parts(path)?;
            let parent = durable::make_dirs(parent)?;
            parent.symlink(&name, Path::new(content))?;
            parent.set_attributes_of_name(&name, &attributes)?;
            parent.sync()
        }
    }
}
