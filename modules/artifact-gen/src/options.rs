//! The options that all generators have.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail, ensure};
use clap::Args;
use serde_json::{Map, Value};

use crate::platform::Architecture;

/// The options of mender-artifact that the generators set themselves.
const OWN: [&str; 14] = [
    "-n",
    "--artifact-name",
    "-t",
    "--device-type",
    "-c",
    "--compatible-types",
    "-o",
    "--output-path",
    "-T",
    "--type",
    "-f",
    "--file",
    "-m",
    "--meta-data",
];

/// The common options.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Name of the artifact
    #[arg(short = 'n', long, value_name = "NAME")]
    pub artifact_name: String,
    /// Device type that the artifact is for; may be repeated
    #[arg(short = 't', long = "device-type", value_name = "TYPE", required = true)]
    pub device_types: Vec<String>,
    /// Writes the artifact to this file [default: NAME.mender]
    #[arg(short = 'o', long, value_name = "FILE")]
    pub output_path: Option<PathBuf>,
    /// Second part of the key of the software version [default: the module's name]
    #[arg(long, value_name = "NAME")]
    pub software_name: Option<String>,
    /// Software version [default: the artifact's name]
    #[arg(long, value_name = "VERSION")]
    pub software_version: Option<String>,
    /// First part of the key of the software version [default: rootfs-image; for container the project]
    #[arg(long, value_name = "NAME")]
    pub software_filesystem: Option<String>,
    /// Adds the keys of this JSON file to the meta-data, such as units and health
    #[arg(long, value_name = "FILE")]
    pub meta_data: Option<PathBuf>,
    /// Architecture of the devices: arm64, armhf, armv6, armel, amd64 or i386; may be repeated [default: that of the
    /// device types]
    #[arg(long = "architecture", value_name = "ARCH")]
    pub architectures: Vec<Architecture>,
    /// Refuses a payload that is larger, such as 100M or 2G
    #[arg(long, value_name = "SIZE")]
    pub max_size: Option<Size>,
    /// Checks everything, shows the command, and writes no artifact
    #[arg(long)]
    pub dry_run: bool,
    /// Writes the summary as JSON
    #[arg(long)]
    pub json: bool,
    /// Refused: the generator sets the payload type
    #[arg(short = 'T', long = "type", value_name = "TYPE", hide = true)]
    pub payload_type: Option<String>,
    /// Other options of mender-artifact write module-image, after --
    #[arg(last = true, value_name = "OPTION")]
    pub passed_on: Vec<String>,
}

impl Options {
    /// Refuses options that contradict the generator of `module`.
    ///
    /// # Errors
    /// The option, and the remedy.
    pub fn check(&self, module: &str) -> Result<()> {
        if let Some(payload_type) = &self.payload_type {
            bail!("option --type refused: {payload_type}: this generator makes artifacts of type {module}: remove it");
        }
        for word in &self.passed_on {
            let option = word.split('=').next().unwrap_or_default();
            // mender-artifact takes every option with one hyphen or with two.
            let is_own = |own: &&str| own.trim_start_matches('-') == option.trim_start_matches('-');
            ensure!(
                !(option.starts_with('-') && OWN.iter().any(is_own)),
                "option {option} after -- refused: the generator sets it: give it before -- if this generator has it"
            );
        }
        ensure!(!self.artifact_name.is_empty(), "invalid artifact name: it is empty: give one with --artifact-name");
        Ok(())
    }

    /// The path of the artifact.
    pub fn output(&self) -> PathBuf {
        self.output_path.clone().unwrap_or_else(|| format!("{}.mender", self.artifact_name.replace('/', "_")).into())
    }

    /// The meta-data: `own` and the keys of the file in the options; `None` if there are none.
    ///
    /// # Errors
    /// When the file cannot be read, is no JSON object, or has one of the keys in `own`.
    pub fn meta_data(&self, own: Map<String, Value>) -> Result<Option<String>> {
        let mut keys = own;
        if let Some(path) = &self.meta_data {
            for (key, value) in object(path)? {
                ensure!(
                    keys.insert(key.clone(), value).is_none(),
                    "meta-data key {key} twice: in {}, and from the options: remove one",
                    path.display()
                );
            }
        }
        if keys.is_empty() { Ok(None) } else { Ok(Some(serde_json::to_string_pretty(&keys)?)) }
    }
}

/// The JSON object in the file `path`.
///
/// # Errors
/// When the file cannot be read, or is no JSON object.
pub fn object(path: &Path) -> Result<Map<String, Value>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {} failed", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("invalid JSON file {}: use an object", path.display()))
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let factor = match &text[digits.len()..] {
            "" | "B" => 0,
            "K" | "KiB" => 10,
            "M" | "MiB" => 20,
            "G" | "GiB" => 30,
            _ => bail!("use a number of bytes, or one with K, M or G, such as 100M"),
        };
        let number: u64 = digits.parse().context("use a number of bytes, or one with K, M or G, such as 100M")?;
        number.checked_mul(1 << factor).map(Self).context("too large")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_powers_of_1024() {
        for (text, bytes) in [("0", 0), ("12", 12), ("2K", 2048), ("100M", 100 << 20), ("1GiB", 1 << 30)] {
            assert_eq!(text.parse::<Size>().unwrap(), Size(bytes), "{text}");
        }
        for bad in ["", "M", "-1", "1.5M", "1T", "99999999999G"] {
            assert!(bad.parse::<Size>().is_err(), "{bad} was accepted");
        }
    }
}
