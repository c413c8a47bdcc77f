//! The small files and symlinks of alternatives and enabled units. Maintainer scripts change them with
//! update-alternatives, deb-systemd-helper and update-rc.d.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use mender_update_module::durable::{self, Attributes, parent_and_name};
use mender_update_module::log;

use crate::paths::{is_directory, names};

/// The directory of update-alternatives. Its files name the symlinks that it makes.
const ALTERNATIVES: &str = "/var/lib/dpkg/alternatives";

/// The directories of state files.
const DIRECTORIES: [&str; 7] = [
    ALTERNATIVES,
    "/etc/alternatives",
    "/etc/systemd/system",
    "/etc/systemd/user",
    "/var/lib/systemd/deb-systemd-helper-enabled",
    "/var/lib/systemd/deb-systemd-helper-masked",
    "/var/lib/systemd/deb-systemd-user-helper-enabled",
];

/// The runlevels, with a directory of enabled init scripts each: `/etc/rc0.d` to `/etc/rcS.d`.
const RUNLEVELS: &str = "0123456S";

/// The size limit of a state file in bytes. Larger files in these directories are others.
const LIMIT: u64 = 64 << 10;

/// Type, mode, owner, group, modification time, and content or target, by path.
pub type Table = BTreeMap<String, String>;

/// Reads all state files.
pub fn read() -> Result<Table> {
    let mut table = Table::new();
    let runlevels = RUNLEVELS.chars().map(|level| format!("/etc/rc{level}.d"));
    for directory in DIRECTORIES.map(str::to_owned).into_iter().chain(runlevels) {
        read_directory(Path::new(&directory), &mut table)?;
    }
    for name in names(Path::new(ALTERNATIVES))? {
        // The first lines of a file there: the mode, the link, then name and link of each slave alternative.
        let path = Path::new(ALTERNATIVES).join(&name);
        if !durable::metadata(&path)?.is_some_and(|found| found.is_file()) {
            continue;
        }
        let text = fs::read(&path).with_context(|| format!("reading {} failed", path.display()))?;
        let text = String::from_utf8_lossy(&text);
        for link in text.lines().skip(1).take_while(|line| !line.is_empty()).step_by(2) {
            add(Path::new(link), &mut table)?;
        }
    }
    Ok(table)
}

/// Reads two levels, for paths such as `multi-user.target.wants/x.service`.
fn read_directory(directory: &Path, table: &mut Table) -> Result<()> {
    if !is_directory(directory)? {
        return Ok(());
    }
    for name in names(directory)? {
        let path = directory.join(&name);
        add(&path, table)?;
        if is_directory(&path)? {
            for name in names(&path)? {
                add(&path.join(&name), table)?;
            }
        }
    }
    Ok(())
}

fn add(path: &Path, table: &mut Table) -> Result<()> {
    let Some(found) = durable::metadata(path)? else { return Ok(()) };
    let reading = || format!("reading {} failed", path.display());
    let (kind, content) = if found.is_symlink() {
        ("link", fs::read_link(path).with_context(reading)?.into_os_string().into_string().ok())
    } else if found.is_dir() {
        ("directory", Some(String::new()))
    } else if found.is_file() && found.len() <= LIMIT {
        ("file", String::from_utf8(fs::read(path).with_context(reading)?).ok())
    } else {
        return Ok(());
    };
    // These programs write UTF-8 only.
    if let (Some(content), Some(key)) = (content, path.to_str()) {
        let time = if kind == "directory" { (0, 0) } else { (found.mtime(), found.mtime_nsec()) };
        let (mode, owner, group) = (found.mode() & 0o7777, found.uid(), found.gid());
        let value = format!("{kind} {mode} {owner} {group} {} {} {content}", time.0, time.1);
        table.insert(key.to_owned(), value);
    }
    Ok(())
}

/// Whether `path` is a file of update-alternatives, without which [`read`] does not find the links that it names.
pub fn names_links(path: &Path) -> bool {
    path.starts_with(ALTERNATIVES)
}

/// Restores `path` from its entry in the table; removes it where there is no entry.
pub fn restore(path: &Path, entry: Option<&str>) -> Result<()> {
    log!("rollback: restoring {}", path.display());
    let Some(entry) = entry else {
        return if is_directory(path)? { durable::remove_empty_dir(path) } else { durable::remove_file(path) };
    };
    let damaged = || format!("restoring {} failed: its entry in the backup is damaged", path.display());
    let mut fields = entry.splitn(7, ' ');
    let mut field = || fields.next().with_context(damaged);
    let kind = field()?;
    let (mode, owner, group) = (field()?.parse()?, field()?.parse()?, field()?.parse()?);
    let modified = (field()?.parse()?, field()?.parse()?);
    let attributes = Attributes { owner, group, mode, modified, extended: Vec::new() };
    let content = field()?;
    // The path may have something of another kind now.
    match (kind, is_directory(path)?) {
        ("directory", false) => durable::remove_file(path)?,
        ("file" | "link", true) => durable::remove_empty_dir(path)?,
        _ => {}
    }
    match kind {
        "directory" => {
            let directory = durable::make_dirs(path)?;
            // The entry has neither its modification time nor its extended attributes.
            let Attributes { modified, extended, .. } = directory.attributes()?;
            directory.set_attributes(&Attributes { modified, extended, ..attributes })
        }
        "file" => {
            durable::write_file(path, content.as_bytes())?;
            durable::set_attributes(path, &attributes)
        }
        _ => {
            durable::remove_file(path)?;
            let (parent, name) = parent_and_name(path)?;
            let parent = durable::make_dirs(parent)?;
            parent.symlink(&name, Path::new(content))?;
            parent.set_attributes_of_name(&name, &attributes)?;
            parent.sync()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use mender_update_module::durable::Dir;

    use super::*;
    use crate::test_device::{on_device, write};

    /// A default ACL as Linux stores it in an attribute: version 2, then tag, permissions and ID of owner, group and
    /// others.
    fn default_acl() -> Vec<u8> {
        let entries = [(1_u16, 7_u16), (4, 5), (32, 1)].map(|(tag, permissions)| {
            [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &u32::MAX.to_le_bytes()].concat()
        });
        [2_u32.to_le_bytes().to_vec(), entries.concat()].concat()
    }

    #[test]
    fn a_directory_keeps_its_acl_and_its_modification_time() {
        let above = tempfile::tempdir().unwrap();
        let path = above.path().join("multi-user.target.wants");
        let directory = durable::make_dirs(&path).unwrap();
        let extended = vec![("system.posix_acl_default".into(), default_acl())];
        let expected = Attributes { mode: 0o750, modified: (1, 2), extended, ..directory.attributes().unwrap() };
        directory.set_attributes(&Attributes { mode: 0o700, ..expected.clone() }).unwrap();
        restore(&path, Some(&format!("directory {} {} {} 0 0 ", 0o750, expected.owner, expected.group))).unwrap();
        assert_eq!(Dir::open(&path).unwrap().attributes().unwrap(), expected);
    }

    #[test]
    fn alternatives_and_enabled_units_are_read() {
        on_device(|| {
            assert!(read().unwrap().is_empty());
            let alternative = "auto\n/srv/bin/x\nx-manual\n/srv/man/x.1\n\n/not/a/link\n10\n";
            write("/var/lib/dpkg/alternatives/x", alternative);
            fs::create_dir("/var/lib/dpkg/alternatives/directory").unwrap();
            for link in ["/srv/bin/x", "/srv/man/x.1", "/srv/not-named"] {
                fs::create_dir_all(Path::new(link).parent().unwrap()).unwrap();
                symlink("/etc/alternatives/x", link).unwrap();
            }
            write("/etc/systemd/system/x.service.d/override.conf", "text");
            write("/etc/systemd/system/a/b/deep", "");
            write("/etc/rc2.d/S01x", "");
            write("/etc/systemd/system/large", vec![b'x'; LIMIT as usize + 1]);
            write("/etc/systemd/system/fits", vec![b'x'; LIMIT as usize]);
            write("/etc/systemd/system/not-utf-8", b"\xe9");
            fs::set_permissions("/etc/rc2.d/S01x", fs::Permissions::from_mode(0o4751)).unwrap();
            symlink("/no such", "/etc/alternatives").unwrap();
            let table = read().unwrap();
            let expected = [
                "/etc/rc2.d/S01x",
                "/etc/systemd/system/a",
                "/etc/systemd/system/a/b",
                "/etc/systemd/system/fits",
                "/etc/systemd/system/x.service.d",
                "/etc/systemd/system/x.service.d/override.conf",
                "/srv/bin/x",
                "/srv/man/x.1",
                "/var/lib/dpkg/alternatives/directory",
                "/var/lib/dpkg/alternatives/x",
            ];
            assert_eq!(table.keys().collect::<Vec<_>>(), expected);
            assert_eq!(table["/etc/systemd/system/a"], "directory 493 0 0 0 0 ");
            let words = |path: &str| table[path].split(' ').map(str::to_owned).collect::<Vec<_>>();
            let file = words("/etc/rc2.d/S01x");
            let time = fs::metadata("/etc/rc2.d/S01x").unwrap();
            assert_eq!(file[..2], ["file".to_owned(), 0o4751.to_string()]);
            assert_eq!(file[4..6], [time.mtime().to_string(), time.mtime_nsec().to_string()]);
            assert_eq!(words("/srv/bin/x")[6], "/etc/alternatives/x");
            assert!(table["/var/lib/dpkg/alternatives/x"].ends_with(alternative));
        });
    }

    #[test]
    fn an_entry_is_restored_in_the_place_of_another_kind() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("directory")).unwrap();
        fs::create_dir(path("shared")).unwrap();
        fs::write(path("file"), "text").unwrap();
        symlink("shared", path("symlink")).unwrap();
        let read = || {
            let mut table = Table::new();
            read_directory(directory.path(), &mut table).unwrap();
            table
        };
        let before = read();
        fs::remove_dir(path("directory")).unwrap();
        symlink("shared", path("directory")).unwrap();
        for name in ["file", "symlink"] {
            fs::remove_file(path(name)).unwrap();
            fs::create_dir(path(name)).unwrap();
        }
        before.iter().for_each(|(path, entry)| restore(Path::new(path), Some(entry)).unwrap());
        assert_eq!(read(), before);
    }

    #[test]
    fn every_entry_is_restored_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("directory")).unwrap();
        fs::write(path("file"), "two\nlines with spaces\n").unwrap();
        symlink("target with spaces", path("symlink")).unwrap();
        let read = || {
            let mut table = Table::new();
            read_directory(directory.path(), &mut table).unwrap();
            table
        };
        let before = read();
        assert_eq!(before.len(), 3);
        fs::remove_dir(path("directory")).unwrap();
        fs::write(path("file"), "changed").unwrap();
        fs::set_permissions(path("file"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::remove_file(path("symlink")).unwrap();
        fs::write(path("symlink"), "").unwrap();
        before.iter().for_each(|(path, entry)| restore(Path::new(path), Some(entry)).unwrap());
        assert_eq!(read(), before);
        before.keys().for_each(|path| restore(Path::new(path), None).unwrap());
        assert!(read().is_empty());
        let damaged = restore(&path("x"), Some("file 420")).unwrap_err().to_string();
        assert!(damaged.contains("/x failed: its entry in the backup is damaged"), "{damaged}");
    }
}
