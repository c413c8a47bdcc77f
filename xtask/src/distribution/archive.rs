//! Archives that are the same from every machine: the same files give the same bytes.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use host::directory;
use tar::{Archive, Builder, EntryType, Header};
use xshell::{Shell, cmd};

use crate::dist::Built;
use crate::dist::modules::UPDATE_MODULE;
use crate::layer;
use crate::target::Target;

/// A file or symlink in an archive.
#[derive(Debug, PartialEq, Eq)]
enum Entry {
    File { content: Vec<u8>, is_executable: bool },
    Symlink(PathBuf),
}

/// Files and symlinks by their path in the archive.
type Files = BTreeMap<PathBuf, Entry>;

/// Directories of a package that only Debian uses.
const OF_DEBIAN: &[&str] = &["usr/share/lintian"];

/// The directory of the settings, which are the device's.
const SETTINGS: &str = "etc/mender-modules";

/// The directory for files that nothing reads.
const EXAMPLES: &str = "usr/share/doc/mender-update-modules";

/// Writes the archive with the executables for `target`, and returns its path. It has the files of the packages, so
/// that it can be unpacked in the root directory of a device, and again with a later version: it enables the units, as
/// the maintainer scripts do, and has the settings, which dpkg would not replace, as examples.
pub fn executables(sh: &Shell, built: &Built, target: &Target) -> Result<PathBuf> {
    let mut files = Files::new();
    for (_, deb) in built.packages.iter().filter(|(of, deb)| *of == target && is_update_module(deb)) {
        let unpack = cmd!(sh, "dpkg-deb --fsys-tarfile {deb}").quiet().output();
        let tar = unpack.with_context(|| format!("unpacking {} failed", deb.display()))?.stdout;
        add_package(&tar, &mut files).with_context(|| format!("reading the files of {} failed", deb.display()))?;
    }
    write(built, &built.workspace.executables(target), files)
}

/// Whether the package `deb` is an Update Module, which runs on a device.
pub fn is_update_module(deb: &Path) -> bool {
    deb.file_name().is_some_and(|name| name.to_string_lossy().starts_with(UPDATE_MODULE))
}

/// Adds the files in `tar`, the content of a package, without those that only Debian uses.
fn add_package(tar: &[u8], files: &mut Files) -> Result<()> {
    for entry in Archive::new(tar).entries()? {
        let mut entry = entry?;
        let path = entry.path()?;
        let path = path.strip_prefix(".").unwrap_or(&path).to_owned();
        if entry.header().entry_type() != EntryType::Regular || OF_DEBIAN.iter().any(|part| path.starts_with(part)) {
            continue;
        }
        let is_executable = entry.header().mode()? & 0o111 != 0;
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        if path.extension().is_some_and(|extension| extension == "service") {
            files.extend(enabling(&path, &content));
        }
        let path = path.strip_prefix(SETTINGS).map(|name| Path::new(EXAMPLES).join(name)).unwrap_or(path);
        files.insert(path, Entry::File { content, is_executable });
    }
    Ok(())
}

/// The symlinks that enable the unit `path`: one for each target in its `WantedBy=`.
fn enabling(path: &Path, unit: &[u8]) -> Vec<(PathBuf, Entry)> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Vec::new() };
    let text = String::from_utf8_lossy(unit);
    let targets = text.lines().filter_map(|line| line.strip_prefix("WantedBy=")).flat_map(str::split_whitespace);
    let link = |target: &str| (directory.join(format!("{target}.wants")).join(name), Path::new("..").join(name));
    targets.map(link).map(|(path, target)| (path, Entry::Symlink(target))).collect()
}

/// Writes the archive with the Yocto layer, and returns its path. Its recipes have the checksums of the packages and
/// sources in `dist/`.
pub fn layer(sh: &Shell, built: &Built) -> Result<PathBuf> {
    let files = layer::released(sh, &built.workspace, &built.sources)?;
    let file = |(path, content)| (path, Entry::File { content, is_executable: false }); // it has no programs
    write(built, &built.workspace.layer(), files.into_iter().map(file).collect())
}

/// Writes `files` to the archive `name` in `dist/`, below a directory of this name without its extension.
fn write(built: &Built, name: &str, files: Files) -> Result<PathBuf> {
    let top = name.strip_suffix(".tar.gz").unwrap_or(name);
    let time = built.epoch.parse().with_context(|| format!("invalid time of the last commit: {}", built.epoch))?;
    let content = content(top, &files, time).with_context(|| format!("making {name} failed"))?;
    let path = built.out.join(name);
    directory::write(&path, content)?;
    Ok(path)
}

/// The content of the archive of `files` below the directory `top`, with `time` in seconds since 1970.
fn content(top: &str, files: &Files, time: u64) -> Result<Vec<u8>> {
    let mut tar = Builder::new(GzBuilder::new().write(Vec::new(), Compression::best()));
    for (path, entry) in files {
        let mut header = Header::new_gnu();
        header.set_mtime(time);
        header.set_uid(0);
        header.set_gid(0);
        let to = Path::new(top).join(path);
        let added = match entry {
            Entry::File { content, is_executable } => {
                header.set_entry_type(EntryType::Regular);
                header.set_mode(if *is_executable { 0o755 } else { 0o644 });
                header.set_size(content.len() as u64);
                tar.append_data(&mut header, to, content.as_slice())
            }
            Entry::Symlink(target) => {
                header.set_entry_type(EntryType::Symlink);
                header.set_mode(0o777);
                header.set_size(0);
                tar.append_link(&mut header, to, target)
            }
        };
        added.with_context(|| format!("adding {} failed", path.display()))?;
    }
    Ok(tar.into_inner()?.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &str, is_executable: bool) -> Entry {
        Entry::File { content: content.into(), is_executable }
    }

    /// The names, modes and contents in an archive.
    fn unpacked(archive: &[u8]) -> Vec<(String, u32, String)> {
        let mut found = Vec::new();
        for entry in Archive::new(flate2::read::GzDecoder::new(archive)).entries().unwrap() {
            let mut entry = entry.unwrap();
            let (name, mode) = (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap());
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            if let Some(target) = entry.link_name().unwrap() {
                content = format!("-> {}", target.display());
            }
            found.push((name, mode, content));
        }
        found
    }

    #[test]
    fn archives_are_reproducible() {
        let link = Entry::Symlink("../a".into());
        let files: Files =
            [("b/run".into(), file("x", true)), ("a".into(), file("y", false)), ("c/a".into(), link)].into();
        let archive = content("top", &files, 7).unwrap();
        assert_eq!(archive, content("top", &files, 7).unwrap());
        let expected = [("top/a", 0o644, "y"), ("top/b/run", 0o755, "x"), ("top/c/a", 0o777, "-> ../a")];
        assert_eq!(unpacked(&archive), expected.map(|(name, mode, text)| (name.to_owned(), mode, text.to_owned())));
    }

    #[test]
    fn a_package_is_enabled_without_its_settings_and_what_is_only_for_debian() {
        let unit = "[Install]\nWantedBy=sysinit.target\n";
        let mut tar = Builder::new(Vec::new());
        for (path, mode, content) in [
            ("./usr/share/mender/deb", 0o755, "x"),
            ("./usr/share/lintian/overrides/deb", 0o644, "x"),
            ("./etc/mender-modules/deb.toml", 0o644, "# defaults"),
            ("./usr/lib/systemd/system/recover.service", 0o644, unit),
        ] {
            let mut header = Header::new_gnu();
            header.set_mode(mode);
            header.set_size(content.len() as u64);
            header.set_path(path).unwrap();
            header.set_cksum();
            tar.append(&header, content.as_bytes()).unwrap();
        }
        let mut files = Files::new();
        add_package(&tar.into_inner().unwrap(), &mut files).unwrap();
        let units = Path::new("usr/lib/systemd/system");
        let expected: Files = [
            ("usr/share/mender/deb".into(), file("x", true)),
            ("usr/share/doc/mender-update-modules/deb.toml".into(), file("# defaults", false)),
            (units.join("recover.service"), file(unit, false)),
            (units.join("sysinit.target.wants/recover.service"), Entry::Symlink("../recover.service".into())),
        ]
        .into();
        assert_eq!(files, expected);
        assert!(add_package(b"not a tar", &mut files).is_err());
    }
}
