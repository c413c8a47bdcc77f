//! What the device and the artifact say: `/etc/mender-modules/container.toml` and the artifact's meta-data.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::definition::Definition;
use crate::image::Image;
use crate::name::Name;

/// A program and options that it is always given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Words", into = "Vec<String>")]
pub struct CommandLine {
    /// A path, or a name to be looked for in `PATH`.
    pub program: String,
    /// The options.
    pub options: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Words {
    One(String),
    Many(Vec<String>),
}

impl TryFrom<Words> for CommandLine {
    type Error = anyhow::Error;

    fn try_from(words: Words) -> Result<Self> {
        let mut words = match words {
            Words::One(word) => vec![word],
            Words::Many(words) => words,
        };
        ensure!(
            words.first().is_some_and(|program| !program.is_empty()),
            "a command line begins with a program"
        );
        Ok(Self { program: words.remove(0), options: words })
    }
}

impl From<CommandLine> for Vec<String> {
    fn from(command: CommandLine) -> Self {
        [vec![command.program], command.options].concat()
    }
}

/// The device's settings.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The container engine.
    pub engine: Option<CommandLine>,
    /// What controls systemd.
    pub systemctl: CommandLine,
    /// Where units that last until the next boot are put.
    pub units_dir: PathBuf,
    /// Where podman puts temporary files while it loads an image.
    pub tmp_dir: Option<PathBuf>,
    /// Space that an update leaves free, in MiB.
    pub reserve_mib: u64,
    /// How long containers may take until they are well.
    pub health_seconds: u64,
    /// How long they have to stay well.
    pub stable_seconds: u64,
    /// How long the engine may take for one image, counted from the end of its download.
    pub load_seconds: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            engine: None,
            systemctl: CommandLine { program: "systemctl".into(), options: Vec::new() },
            units_dir: "/run/systemd/system".into(),
            tmp_dir: None,
            reserve_mib: 16,
            health_seconds: 120,
            stable_seconds: 10,
            load_seconds: 1800,
        }
    }
}

/// The artifact's meta-data. Keys that are not known here are the library's, or somebody else's.
#[derive(Debug, Deserialize)]
pub struct MetaData {
    /// What is replaced: other projects are left alone.
    pub project: Name,
    /// The images that it runs.
    pub images: Vec<Image>,
    /// What runs; exactly one of its forms.
    #[serde(flatten)]
    pub definition: Definition,
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_packaged_settings_are_the_defaults() {
        // The conffile shows every key with its default; it must not say anything else than the code does.
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../debian/container/container.toml");
        let text = fs::read_to_string(path).unwrap();
        let packaged: Settings = toml::from_str(&text).unwrap();
        assert_eq!(format!("{packaged:?}"), format!("{:?}", Settings::default()));
        let keys =
            ["systemctl", "units_dir", "reserve_mib", "health_seconds", "stable_seconds", "load_seconds"];
        for key in keys {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("#{key} = ")));
            let shown: toml::Value =
                toml::from_str::<toml::Table>(&format!("x = {}", line.unwrap())).unwrap()["x"].clone();
            let settings: Settings = toml::Table::from_iter([(key.to_owned(), shown)]).try_into().unwrap();
            assert_eq!(format!("{settings:?}"), format!("{:?}", Settings::default()), "{key}");
        }
        for key in ["engine", "tmp_dir"] {
            assert!(text.contains(&format!("#{key} = ")), "{key} is not shown");
        }
    }

    #[test]
    fn a_command_is_a_name_or_words() {
        let settings: Settings = toml::from_str(r#"engine = "docker""#).unwrap();
        assert_eq!(settings.engine.unwrap().program, "docker");
        let settings: Settings = toml::from_str(r#"engine = ["podman", "--root", "/data/c"]"#).unwrap();
        assert_eq!(settings.engine.unwrap().options, ["--root", "/data/c"]);
        assert!(toml::from_str::<Settings>("engine = []").is_err());
    }
}
