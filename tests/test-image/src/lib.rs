//! Container images for tests: archives as `docker save` writes them, with one executable. They need no registry and no
//! engine. The same input gives the same image.

use std::fmt::Write;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// The behaviour of the server in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The server answers.
    Healthy,
    /// The server ends immediately, with an error.
    Exit,
    /// The server runs, and its health check fails.
    Unhealthy,
    /// The server ends immediately, without an error: a one-shot service.
    Once,
}

impl Mode {
    /// The value of the variable `MODE` in the image.
    pub fn word(self) -> &'static str {
        match self {
            Mode::Healthy => "healthy",
            Mode::Exit => "exit",
            Mode::Unhealthy => "unhealthy",
            Mode::Once => "once",
        }
    }
}

/// An image with one server.
pub struct Image<'a> {
    /// Its name and tag.
    pub reference: &'a str,
    /// The answer of its server.
    pub version: &'a str,
    /// The behaviour of the server.
    pub mode: Mode,
    /// Debian's name of its architecture.
    pub architecture: &'a str,
    /// The executable: `tiny-http`, or any bytes for an image that no test runs.
    pub executable: &'a [u8],
}

/// An archive of one image.
pub struct Archive {
    /// The image's ID, 64 hexadecimal digits.
    pub id: String,
    /// The bytes of the archive, as `docker save` would write them.
    pub content: Vec<u8>,
}

/// An image with other names or more configuration than [`Image`] has.
pub struct Special<'a> {
    image: Image<'a>,
    references: Vec<String>,
    settings: Value,
}

impl<'a> Image<'a> {
    /// The archive of the image.
    pub fn archive(&self) -> Archive {
        archive(self.executable, &[self.reference.to_owned()], |layer| self.config(layer))
    }

    fn special(self) -> Special<'a> {
        let references = vec![self.reference.to_owned()];
        Special { image: self, references, settings: json!({}) }
    }

    /// Adds a health check that sends a request to the server.
    pub fn with_health_check(self) -> Special<'a> {
        let second = 1_000_000_000_i64;
        self.special().with(
            "Healthcheck",
            json!({"Test": ["CMD", "/tiny-http", "check"], "Interval": second, "Retries": 2, "Timeout": 5 * second}),
        )
    }

    /// Adds a volume at `path`, as `VOLUME` of a Dockerfile does.
    pub fn with_volume(self, path: &str) -> Special<'a> {
        self.special().with("Volumes", json!({path: {}}))
    }

    /// Sets the names in the archive to `references`.
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
    /// Sets `key` in the configuration of the image.
    #[must_use]
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.settings[key] = value;
        self
    }

    /// The archive of the image.
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
        let _ = write!(text, "{byte:02x}"); // writing to a String does not fail
        text
    })
}

/// A tar archive of `files`: their names, permissions and contents.
///
/// # Panics
/// A name is too long for the format.
#[expect(clippy::expect_used, reason = "writing to memory does not fail")]
pub fn tar(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    for (name, mode, content) in files {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(*mode);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, name, *content).expect("a short name");
    }
    archive.into_inner().expect("writing to memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: Image = Image {
        reference: "localhost/a:1",
        version: "1",
        mode: Mode::Healthy,
        architecture: "amd64",
        executable: b"x",
    };

    #[test]
    fn an_image_depends_on_its_input_only() {
        let (one, again) = (IMAGE.archive(), IMAGE.archive());
        assert_eq!((&one.id, &one.content), (&again.id, &again.content));
        assert_ne!(one.id, Image { version: "2", ..IMAGE }.archive().id);
        assert_eq!(one.id.len(), 64);
    }
}
