//! Images for tests, made on the spot: an archive as `docker save` writes it, with one executable in it. No registry and
//! no engine are needed, and the same input is the same image.

use std::fmt::Write;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// How the server in an image behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It answers.
    Well,
    /// It ends at once, and fails.
    Exit,
    /// It runs, and says that it is not well.
    Unhealthy,
    /// It ends at once, and has succeeded: a one-shot service.
    Once,
}

impl Mode {
    /// Its word in the image's environment.
    pub fn word(self) -> &'static str {
        match self {
            Mode::Well => "well",
            Mode::Exit => "exit",
            Mode::Unhealthy => "unhealthy",
            Mode::Once => "once",
        }
    }
}

/// One image.
pub struct Image<'a> {
    /// What it is called, with its tag.
    pub reference: &'a str,
    /// What its server answers.
    pub version: &'a str,
    /// How the server behaves.
    pub mode: Mode,
    /// Debian's name of the architecture that it is for.
    pub architecture: &'a str,
    /// The executable: `tiny-http` for an image that is run, anything for one that is not.
    pub executable: &'a [u8],
}

/// An archive with one image.
pub struct Archive {
    /// The image's ID, 64 hexadecimal digits.
    pub id: String,
    /// What `docker save` would have written.
    pub content: Vec<u8>,
}

/// An image with more than a server in it.
pub struct Special<'a> {
    image: Image<'a>,
    references: Vec<String>,
    settings: Value,
}

impl<'a> Image<'a> {
    /// Makes the archive.
    pub fn archive(&self) -> Archive {
        archive(self.executable, &[self.reference.to_owned()], |layer| self.config(layer))
    }

    fn special(self) -> Special<'a> {
        let references = vec![self.reference.to_owned()];
        Special { image: self, references, settings: json!({}) }
    }

    /// With a health check of its own, which asks the server.
    pub fn with_health_check(self) -> Special<'a> {
        let second = 1_000_000_000_i64;
        self.special().with(
            "Healthcheck",
            json!({"Test": ["CMD", "/tiny-http", "check"], "Interval": second, "Retries": 2, "Timeout": 5 * second}),
        )
    }

    /// With `VOLUME` at `path`.
    pub fn with_volume(self, path: &str) -> Special<'a> {
        self.special().with("Volumes", json!({path: {}}))
    }

    /// With exactly the names `references` in its archive.
    pub fn called(self, references: &[&str]) -> Special<'a> {
        let references = references.iter().map(|name| (*name).to_owned()).collect();
        Special { references, ..self.special() }
    }

    fn config(&self, layer: &str) -> Value {
        let architecture = if self.architecture == "armhf" { "arm" } else { self.architecture };
        json!({
            "architecture": architecture,
            "os": "linux",
            "created": "2026-01-01T00:00:00Z",
            "config": {
                "Entrypoint": ["/tiny-http"],
                "Env": [format!("MODE={}", self.mode.word()), format!("VERSION={}", self.version)],
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
            "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "test-image"}],
        })
    }
}

impl Special<'_> {
    /// Sets `key` of the image's configuration.
    #[must_use]
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.settings[key] = value;
        self
    }

    /// Makes the archive.
    pub fn archive(&self) -> Archive {
        let config = |layer: &str| {
            let mut config = self.image.config(layer);
            for (key, value) in self.settings.as_object().into_iter().flatten() {
                config["config"][key] = value.clone();
            }
            config
        };
        archive(self.image.executable, &self.references, config)
    }
}

fn archive(executable: &[u8], references: &[String], config: impl Fn(&str) -> Value) -> Archive {
    let layer = tar(&[("tiny-http", 0o755, executable)]);
    let config = config(&digest(&layer)).to_string();
    let id = digest(config.as_bytes());
    let config_name = format!("{id}.json");
    let manifest = json!([{"Config": config_name, "RepoTags": references, "Layers": ["layer.tar"]}]);
    let content = tar(&[
        (&config_name, 0o644, config.as_bytes()),
        ("layer.tar", 0o644, &layer),
        ("manifest.json", 0o644, manifest.to_string().as_bytes()),
    ]);
    Archive { id, content }
}

/// The sha256 of `bytes`, in hexadecimal digits.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // a String takes everything
        text
    })
}

/// A tar archive of files: their names, permissions and contents.
///
/// # Panics
/// For a name that is too long for its format.
#[expect(clippy::expect_used, reason = "nothing that is written to memory fails")]
pub fn tar(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    for (name, mode, content) in files {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(*mode);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, name, *content).expect("names are short");
    }
    archive.into_inner().expect("memory takes everything")
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: Image = Image {
        reference: "localhost/a:1",
        version: "1",
        mode: Mode::Well,
        architecture: "amd64",
        executable: b"x",
    };

    #[test]
    fn the_same_input_is_the_same_image_and_another_version_another() {
        let (one, again) = (IMAGE.archive(), IMAGE.archive());
        assert_eq!((&one.id, &one.content), (&again.id, &again.content));
        assert_ne!(one.id, Image { version: "2", ..IMAGE }.archive().id);
        assert_eq!(one.id.len(), 64);
    }
}
