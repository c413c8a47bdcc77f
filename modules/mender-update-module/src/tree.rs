//! The work tree: files of the client about the update, and temporary files of the module.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;

/// The end of a work tree's path, below the datastore. Clients from version 4 have the payload 0000 only.
const TREE_BELOW_DATASTORE: [&str; 5] = ["modules", "v3", "payloads", "0000", "tree"];

/// The largest size of a text in the tree, in bytes; the largest text is the meta-data.
pub(crate) const TEXT_MAX: u64 = 1 << 20;

/// A typed view of the work tree, `<datastore>/modules/v3/payloads/0000/tree`.
///
/// Files are read on demand: after a power loss in Download the tree is incomplete, and `Cleanup` is called with it.
/// Texts are returned without the newline that client 5 adds.
///
/// ```
/// use mender_update_module::WorkTree;
///
/// let tree = WorkTree::new("/var/lib/mender/modules/v3/payloads/0000/tree");
/// assert_eq!(tree.datastore(), std::path::Path::new("/var/lib/mender"));
/// assert_eq!(tree.artifact_name()?, None, "no such tree");
/// # anyhow::Ok(())
/// ```
pub struct WorkTree {
    path: PathBuf,
}

impl WorkTree {
    /// The work tree at `path`, which may not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The work tree in the datastore `datastore`, for calls that are not the client's.
    pub(crate) fn in_datastore(datastore: PathBuf) -> Self {
        Self::new(TREE_BELOW_DATASTORE.iter().fold(datastore, |path, part| path.join(part)))
    }

    /// The directory, which is also the working directory of a call.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The client's data directory, usually `/var/lib/mender`. For a tree at any other path, as in a test, it is the
    /// parent directory.
    pub fn datastore(&self) -> &Path {
        let parts = self.path.components().rev().map(|part| part.as_os_str());
        let below_datastore = parts.take(TREE_BELOW_DATASTORE.len()).eq(TREE_BELOW_DATASTORE.iter().rev().copied());
        let levels = if below_datastore { TREE_BELOW_DATASTORE.len() } else { 1 };
        self.path.ancestors().nth(levels).unwrap_or(&self.path)
    }

    /// The directory of the module `name` in the datastore, with its journal. It is outside the work tree, which the
    /// client deletes before a download.
    pub fn state_directory(&self, name: &str) -> PathBuf {
        self.datastore().join("update-modules").join(name)
    }

    /// The name of the installed artifact, if the client has one.
    ///
    /// # Errors
    /// When the file cannot be read or is not UTF-8.
    pub fn current_artifact_name(&self) -> Result<Option<String>> {
        self.text("current_artifact_name")
    }

    /// The group of the installed artifact, if it has one.
    ///
    /// # Errors
    /// When the file cannot be read or is not UTF-8.
    pub fn current_artifact_group(&self) -> Result<Option<String>> {
        self.text("current_artifact_group")
    }

    /// The type of this device.
    ///
    /// # Errors
    /// When the file cannot be read or is not UTF-8.
    pub fn current_device_type(&self) -> Result<Option<String>> {
        self.text("current_device_type")
    }

    /// The name of the artifact of this update.
    ///
    /// # Errors
    /// When the file cannot be read or is not UTF-8.
    pub fn artifact_name(&self) -> Result<Option<String>> {
        self.text("header/artifact_name")
    }

    /// The artifact's meta-data, if it has any; otherwise the client writes `null`.
    ///
    /// # Errors
    /// When the meta-data does not have the form of `T`.
    pub fn meta_data<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        let path = self.path.join("header/meta-data");
        let Some(text) = self.text("header/meta-data")? else { return Ok(None) };
        serde_json::from_str(&text).with_context(|| format!("invalid meta-data of the artifact: {}", path.display()))
    }

    /// The directory of the payload, for a module that leaves the download to the client.
    pub fn files(&self) -> PathBuf {
        self.path.join("files")
    }

    /// The directory for temporary files of the module, until `Cleanup`. It survives a reboot, but client 3.4 deletes
    /// it when another install follows an interrupted one: use [`state_directory`](Self::state_directory) for a
    /// rollback.
    pub fn tmp(&self) -> PathBuf {
        self.path.join("tmp")
    }

    /// The content of a file in the tree; `None` if it does not exist or is empty.
    fn text(&self, name: &str) -> Result<Option<String>> {
        let path = self.path.join(name);
        let reading = || format!("reading {} failed", path.display());
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(reading),
        };
        let mut text = String::new();
        file.take(TEXT_MAX + 1).read_to_string(&mut text).with_context(reading)?;
        ensure!(text.len() as u64 <= TEXT_MAX, "{}: larger than {TEXT_MAX} bytes", reading());
        Ok(Some(text.trim_end_matches('\n').to_owned()).filter(|text| !text.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_datastore_is_five_levels_up() {
        let device = WorkTree::new("/data/mender/modules/v3/payloads/0000/tree");
        assert_eq!(device.datastore(), Path::new("/data/mender"));
        assert_eq!(WorkTree::in_datastore("/data/m".into()).datastore(), Path::new("/data/m"));
        assert_eq!(device.state_directory("web-file"), Path::new("/data/mender/update-modules/web-file"));
        assert_eq!(WorkTree::new("/tmp/x y/tree").datastore(), Path::new("/tmp/x y"));
        assert_eq!(WorkTree::new("tree").datastore(), Path::new(""));
    }

    #[test]
    fn both_clients_forms_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let tree = WorkTree::new(directory.path());
        let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
        fs::create_dir(directory.path().join("header")).unwrap();
        write("current_artifact_name", "release-1\n");
        write("current_artifact_group", "");
        write("header/artifact_name", "release-2");
        write("header/meta-data", "null");
        assert_eq!(tree.current_artifact_name().unwrap().as_deref(), Some("release-1"));
        assert_eq!(tree.current_artifact_group().unwrap(), None);
        assert_eq!(tree.current_device_type().unwrap(), None, "an incomplete tree");
        assert_eq!(tree.artifact_name().unwrap().as_deref(), Some("release-2"));
        assert_eq!(tree.meta_data::<Vec<String>>().unwrap(), None);
        write("header/meta-data", "[\"a\"]\n");
        assert_eq!(tree.meta_data::<Vec<String>>().unwrap().unwrap(), ["a"]);
        write("header/meta-data", "{\"a\": 1}");
        let error = format!("{:#}", tree.meta_data::<Vec<String>>().unwrap_err());
        assert!(error.contains("header/meta-data"), "{error}");
        fs::remove_file(directory.path().join("header/meta-data")).unwrap();
        assert_eq!(tree.meta_data::<Vec<String>>().unwrap(), None, "an incomplete tree");
        std::os::unix::fs::symlink("meta-data", directory.path().join("header/meta-data")).unwrap();
        let error = format!("{:#}", tree.meta_data::<Vec<String>>().unwrap_err());
        assert!(error.contains("header/meta-data"), "what cannot be read is not missing: {error}");
    }

    #[test]
    fn each_text_is_that_of_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let tree = WorkTree::new(directory.path());
        fs::create_dir(directory.path().join("header")).unwrap();
        let names = ["current_artifact_name", "current_artifact_group", "current_device_type", "header/artifact_name"];
        names.iter().for_each(|name| fs::write(directory.path().join(name), format!("text of {name}\n")).unwrap());
        let texts = [
            tree.current_artifact_name(),
            tree.current_artifact_group(),
            tree.current_device_type(),
            tree.artifact_name(),
        ];
        assert_eq!(texts.map(|text| text.unwrap().unwrap()), names.map(|name| format!("text of {name}")));
    }

    #[test]
    fn the_directories_are_in_the_tree() {
        let tree = WorkTree::new("/tree");
        assert_eq!(
            (tree.path(), tree.files(), tree.tmp()),
            (Path::new("/tree"), "/tree/files".into(), "/tree/tmp".into())
        );
    }

    #[test]
    fn a_text_that_is_too_large_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let tree = WorkTree::new(directory.path());
        for (length, is_read) in [(TEXT_MAX as usize, true), (TEXT_MAX as usize + 1, false)] {
            fs::write(directory.path().join("current_device_type"), "x".repeat(length)).unwrap();
            match tree.current_device_type() {
                Ok(text) => assert!(is_read && text.unwrap().len() == length),
                Err(error) => assert!(!is_read && error.to_string().contains("current_device_type"), "{error:#}"),
            }
        }
    }
}
