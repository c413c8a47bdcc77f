//! The device's settings, in `/etc/mender-modules/container.toml`.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use mender_update_module::log;
use mender_update_module::settings::{load, value_at_boot};
use serde::{Deserialize, Serialize};

/// A program and the options that it always gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Words", into = "Vec<String>")]
pub struct CommandLine {
    /// A path, or a name that is searched in `PATH`.
    pub program: String,
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
        ensure!(words.first().is_some_and(|program| !program.is_empty()), "empty command: begin it with a program");
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
    /// The program that controls systemd.
    pub systemctl: CommandLine,
    /// The directory for units that last until the next boot.
    pub units_dir: PathBuf,
    /// The directory for podman's temporary files while it loads an image.
    pub tmp_dir: Option<PathBuf>,
    /// The space that an update leaves free, in MiB.
    pub reserve_mib: u64,
    /// The time limit for containers to become healthy, in seconds.
    pub health_seconds: u64,
    /// The time for which they have to stay healthy, in seconds.
    pub stable_seconds: u64,
    /// The time limit of the engine for one image, in seconds, counted from the end of its download.
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

impl Settings {
    /// The settings of the module `name`.
    ///
    /// # Errors
    /// When the file or a value in it has a mistake.
    pub fn load(name: &str) -> Result<Self> {
        let settings: Self = load(name)?;
        settings.check().with_context(|| format!("invalid settings in /etc/mender-modules/{name}.toml"))?;
        Ok(settings)
    }

    /// The settings at boot: `systemctl` and `units_dir`, and the defaults of all others. A mistake in the file is
    /// logged, and a key with a mistake has its default: the next update is refused, but projects are started.
    ///
    /// # Errors
    /// When the file cannot be read, or is not trusted.
    pub fn at_boot(name: &str) -> Result<Self> {
        let (systemctl, units_dir) = (value_at_boot(name, "systemctl")?, value_at_boot(name, "units_dir")?);
        if let Err(error) = Self::load(name) {
            log!("starting the projects with a mistake in the settings: {error:#}");
        }
        let default = Self::default();
        Ok(Self {
            systemctl: systemctl.unwrap_or(default.systemctl),
            units_dir: units_dir.filter(|path: &PathBuf| path.is_absolute()).unwrap_or(default.units_dir),
            ..default
        })
    }

    /// Checks the values, for `container --check-settings` and before an update.
    ///
    /// # Errors
    /// When a value cannot be used: the key, and the remedy.
    pub fn check(&self) -> Result<()> {
        let Self { health_seconds, stable_seconds, .. } = self;
        ensure!(
            stable_seconds < health_seconds,
            "stable_seconds = {stable_seconds}: use less than health_seconds = {health_seconds}"
        );
        let paths = [("units_dir", Some(&self.units_dir)), ("tmp_dir", self.tmp_dir.as_ref())];
        for (key, path) in paths.into_iter().filter_map(|(key, path)| path.map(|path| (key, path))) {
            ensure!(path.is_absolute(), "{key} = {path:?}: use an absolute path");
        }
        self.reserve().map(drop)
    }

    /// The space that an update leaves free, in bytes.
    ///
    /// # Errors
    /// When the number is too large.
    pub fn reserve(&self) -> Result<u64> {
        self.reserve_mib
            .checked_mul(1 << 20)
            .with_context(|| format!("reserve_mib = {}: too large: use a smaller number", self.reserve_mib))
    }
}

#[cfg(test)]
mod tests {
    use mender_update_module_test::packaged_settings;

    use super::*;

    #[test]
    fn the_packaged_settings_are_the_defaults() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../debian/container/container.toml");
        // The defaults of these two depend on the device.
        let shown = Settings {
            engine: Some(CommandLine { program: "podman".into(), options: Vec::new() }),
            tmp_dir: Some("/var/tmp".into()),
            ..Settings::default()
        };
        packaged_settings(file, &shown).unwrap();
    }

    #[test]
    fn values_that_an_update_would_refuse_are_found() {
        for (text, expected) in [
            ("stable_seconds = 120", "use less than health_seconds = 120"),
            ("units_dir = \"here\"", "units_dir = \"here\": use an absolute path"),
            ("tmp_dir = \"here\"", "tmp_dir = \"here\": use an absolute path"),
            ("reserve_mib = 9223372036854775807", "reserve_mib"),
        ] {
            let settings: Settings = toml::from_str(text).unwrap();
            let error = format!("{:#}", settings.check().unwrap_err());
            assert!(error.contains(expected), "{text}: {error}");
        }
        Settings::default().check().unwrap();
    }

    #[test]
    fn a_command_is_a_program_or_a_program_with_options() {
        let settings: Settings = toml::from_str(r#"engine = "docker""#).unwrap();
        assert_eq!(settings.engine.unwrap().program, "docker");
        let settings: Settings = toml::from_str(r#"engine = ["podman", "--root", "/data/c"]"#).unwrap();
        assert_eq!(settings.engine.unwrap().options, ["--root", "/data/c"]);
        assert!(toml::from_str::<Settings>("engine = []").is_err());
    }
}
