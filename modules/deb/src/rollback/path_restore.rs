//! Restores one path from its recorded state.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use mender_update_module::durable::{self, Attributes, Dir, parent_and_name};

use crate::backup::path_state::PathState;

/// Restores `path` as far as that needs no content of files. An empty directory in its place is removed.
pub fn restore(path: &Path, previous: &PathState) -> Result<()> {
    let now = PathState::read(path)?;
    if previous.difference(&now, path)?.is_none() {
        return Ok(());
    }
    match (previous, &now) {
        (PathState::File { attributes, .. }, PathState::File { attributes: attributes_now, .. }) => {
            remove_new_xattrs(path, attributes, attributes_now)?;
            durable::set_attributes(path, attributes)
        }
        (PathState::Node { attributes, kind, device }, PathState::Node { kind: kind_now, device: device_now, .. })
            if (kind, device) == (kind_now, device_now) =>
        {
            let (parent, name) = parent_and_name(path)?;
            Dir::open(parent)?.set_attributes_of_name(&name, attributes)
        }
        (PathState::Directory { attributes, .. }, PathState::Directory { attributes: attributes_now, .. }) => {
            remove_new_xattrs(path, attributes, attributes_now)?;
            let attributes = Attributes { modified: attributes_now.modified, ..attributes.clone() };
            Dir::open(path)?.set_attributes(&attributes)
        }
        (PathState::Directory { attributes, .. }, _) => {
            remove_replacement(path, &now)?;
            durable::make_dirs(path)?.set_attributes(attributes)
        }
        (PathState::Symlink { attributes, target, .. }, _) => {
            remove_replacement(path, &now)?;
            let (parent, name) = parent_and_name(path)?;
            let parent = durable::make_dirs(parent)?;
            parent.symlink(&name, target)?;
            parent.set_attributes_of_name(&name, attributes)?;
            parent.sync()
        }
        // The copy or the package has the content of a file.
        _ => Ok(()),
    }
}

/// Removes the extended attributes of `path` that it has `now` and did not have `before`.
fn remove_new_xattrs(path: &Path, before: &Attributes, now: &Attributes) -> Result<()> {
    for (name, _) in &now.extended {
        if before.extended.iter().any(|(own, _)| own == name) {
            continue;
        }
        rustix::fs::lremovexattr(path, name.as_os_str()).with_context(|| {
            format!("removing the extended attribute {} of {}", name.to_string_lossy(), path.display())
        })?;
    }
    Ok(())
}

/// Removes `now`, what is at `path` in the place of something else.
fn remove_replacement(path: &Path, now: &PathState) -> Result<()> {
    match now {
        PathState::Absent => Ok(()),
        PathState::Directory { .. } => {
            durable::remove_empty_dir(path)?;
            ensure!(!durable::exists(path)?, "replacing {} failed: it is a directory and not empty", path.display());
            Ok(())
        }
        _ => durable::remove_file(path),
    }
}
