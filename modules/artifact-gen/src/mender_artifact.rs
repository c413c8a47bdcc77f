//! The program mender-artifact, which packs artifacts.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::path::Path;

use anyhow::{Result, ensure};
use mender_update_module::ArtifactContent;

use crate::command::{Words, is_installed};
use crate::options::Options;

/// Names another program than `mender-artifact`.
const VARIABLE: &str = "MENDER_ARTIFACT";

/// The option for device types from version 4.3 on, and before.
const COMPATIBLE_TYPES: &str = "--compatible-types";
const DEVICE_TYPE: &str = "--device-type";

/// mender-artifact, as it is installed.
pub struct MenderArtifact {
    program: OsString,
    /// Its option for device types.
    device_type: &'static str,
}

impl MenderArtifact {
    /// Finds the program, and asks it for its option for device types. Its temporary files are in `tmp`.
    ///
    /// # Errors
    /// When it is not installed, or does not work.
    pub fn find(tmp: &Path) -> Result<Self> {
        let program = env::var_os(VARIABLE).unwrap_or_else(|| "mender-artifact".into());
        ensure!(
            is_installed(&program),
            "{} not found: install the package mender-artifact of Debian, or the program of docs.mender.io/downloads",
            program.to_string_lossy()
        );
        let help = Words::new(&program).args(["write", "module-image", "--help"]).output(tmp)?;
        let device_type = if help.contains(COMPATIBLE_TYPES) { COMPATIBLE_TYPES } else { DEVICE_TYPE };
        Ok(Self { program, device_type })
    }

    /// The command that packs `content` as an artifact of type `module`, with the meta-data in the file `meta_data`.
    pub fn write(
        &self,
        module: &str,
        content: &ArtifactContent,
        meta_data: Option<&Path>,
        options: &Options,
        output: &Path,
    ) -> Words {
        let mut words = self.command("write").args(["module-image", "--type", module]);
        words = words.args(["--artifact-name", options.artifact_name.as_str()]);
        for device_type in &options.device_types {
            words = words.args([self.device_type, device_type.as_str()]);
        }
        let software = [
            ("--software-filesystem", &options.software_filesystem),
            ("--software-name", &options.software_name),
            ("--software-version", &options.software_version),
        ];
        for (option, value) in software {
            words = words.args(value.iter().flat_map(|value| [option, value.as_str()]));
        }
        if let Some(path) = meta_data {
            words = words.args([OsString::from("--meta-data"), path.into()]);
        }
        for file in &content.files {
            words = words.args([OsString::from("--file"), file.path.clone().into()]);
        }
        words = words.args([OsString::from("--output-path"), output.into()]);
        words.args(&options.passed_on)
    }

    /// What is in the header of `artifact`: the options that would make it.
    ///
    /// # Errors
    /// When the artifact cannot be read.
    pub fn header(&self, artifact: &Path, tmp: &Path) -> Result<Header> {
        let dump = self.command("dump").args(["--print0-cmdline"]).args([artifact]);
        Ok(Header::parse(&dump.output(tmp)?))
    }

    fn command(&self, command: &str) -> Words {
        Words::new(&self.program).args([command])
    }
}

/// The header of an artifact.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// What the device has after the update.
    pub provides: BTreeMap<String, String>,
    /// What the device needs before it.
    pub depends: BTreeMap<String, Vec<String>>,
}

impl Header {
    /// Parses options of mender-artifact that are separated by NUL bytes.
    fn parse(options: &str) -> Self {
        let mut header = Self::default();
        let mut words = options.split('\0').map(str::trim);
        while let Some(option) = words.next() {
            let mut depends = |key: &str, value: &str| {
                header.depends.entry(key.to_owned()).or_default().push(value.to_owned());
            };
            match option {
                "--artifact-name-depends" => depends("artifact_name", words.next().unwrap_or_default()),
                "--depends-groups" => depends("artifact_group", words.next().unwrap_or_default()),
                "--depends" | "--provides" => {
                    let Some((key, value)) = words.next().and_then(|pair| pair.split_once(':')) else { continue };
                    if option == "--depends" {
                        depends(key, value);
                    } else {
                        header.provides.insert(key.to_owned(), value.to_owned());
                    }
                }
                "--provides-group" => {
                    let group = words.next().unwrap_or_default().to_owned();
                    header.provides.insert("artifact_group".to_owned(), group);
                }
                _ => {}
            }
        }
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn provides_and_depends_are_read() {
        // As version 3.9.0 prints it.
        let header = Header::parse(
            "write\0module-image\0--artifact-name\0rel-2\0--artifact-name-depends\0rel-1\0--device-type\0a\0--provides\0\
             rootfs-image.web-file.version:rel-2\0--depends\0foo:bar:x\0--clears-provides\0rootfs-image.web-file.*\n",
        );
        assert_eq!(header.provides, BTreeMap::from([("rootfs-image.web-file.version".into(), "rel-2".into())]));
        let expected = [("artifact_name".into(), vec!["rel-1".into()]), ("foo".into(), vec!["bar:x".into()])];
        assert_eq!(header.depends, BTreeMap::from(expected));
    }
}
