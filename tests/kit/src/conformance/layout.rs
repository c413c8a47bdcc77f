//! Checks of a payload directory before it is read: names, file types and syntax.

use std::fs::{self, FileType};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::conformance::files;

/// The names in a payload directory, and whether each is a directory.
const PARTS: [(&str, bool); 6] = [
    ("settings.toml", false),
    ("meta-data.json", false),
    ("files", true),
    ("previous", true),
    ("new", true),
    ("installed", true),
];

/// Checks the names and the file types in the payload directory `directory`.
///
/// # Errors
/// When a name is unknown, because nothing would read it; or when a file has another type than expected, because to
/// read a FIFO blocks for ever.
pub fn check(directory: &Path) -> Result<()> {
    let shown = directory.display();
    for entry in fs::read_dir(directory).with_context(|| format!("listing {shown} failed"))? {
        let name = entry.with_context(|| format!("listing {shown} failed"))?.file_name();
        let known = PARTS.iter().any(|(part, _)| name == *part);
        ensure!(
            known || name.to_string_lossy().starts_with('.'),
            "invalid payload directory {shown}: unknown name {name:?}: use {}",
            PARTS.map(|(part, _)| part).join(", ")
        );
    }
    for (part, is_directory) in PARTS {
        let path = directory.join(part);
        if path.symlink_metadata().is_err() {
            continue; // any part may be missing
        }
        let kind = fs::metadata(&path).with_context(|| format!("reading {} failed", path.display()))?.file_type();
        let (right, remedy) =
            if is_directory { (kind.is_dir(), "a directory") } else { (kind.is_file(), "a regular file") };
        ensure!(right, "invalid payload: {}: it is {}: replace it by {remedy}", path.display(), name_of(kind));
        if is_directory {
            check_files(&path, matches!(part, "files" | "installed"))?;
        }
    }
    Ok(())
}

/// Checks that `directory` contains only regular files, directories and symlinks. A symlink directly in a directory
/// that is `read` is followed. Others are copied or packed as they are, for example a unit that is linked to
/// `/dev/null`.
fn check_files(directory: &Path, read: bool) -> Result<()> {
    for (path, meta) in files::below(directory)? {
        let follow = read && path.parent() == Some(directory);
        let kind = if follow { fs::metadata(&path).unwrap_or(meta) } else { meta }.file_type();
        ensure!(
            kind.is_file() || kind.is_dir() || kind.is_symlink(),
            "invalid payload: {}: it is {}: replace it by a regular file",
            path.display(),
            name_of(kind)
        );
    }
    Ok(())
}

fn name_of(kind: FileType) -> &'static str {
    match kind {
        _ if kind.is_file() => "a regular file",
        _ if kind.is_dir() => "a directory",
        _ if kind.is_fifo() => "a FIFO",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

/// Checks that `text`, the content of `path`, is TOML.
pub fn check_toml(path: &Path, text: &str) -> Result<()> {
    if let Err(error) = toml::from_str::<toml::Table>(text) {
        bail!("invalid payload: {}: it is not TOML: {}", path.display(), error.to_string().trim_end());
    }
    Ok(())
}

/// Checks that `text`, the content of `path`, is a JSON object, as Mender's artifact generators require.
pub fn check_json(path: &Path, text: &str) -> Result<()> {
    if let Err(error) = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text) {
        bail!("invalid payload: {}: it is not a JSON object: {error}", path.display());
    }
    Ok(())
}
