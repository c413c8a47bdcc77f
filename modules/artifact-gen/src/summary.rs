//! The summary of an artifact, as a table or as JSON.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::mender_artifact::Header;

/// A payload file.
#[derive(Clone, Debug, Serialize)]
pub struct Payload {
    /// Its name in the artifact.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
}

/// What an artifact is.
pub struct Summary {
    /// Its path.
    pub artifact: PathBuf,
    /// Its size in bytes; `None` if it was not written.
    pub size: Option<u64>,
    /// Its name.
    pub name: String,
    /// The module.
    pub payload_type: &'static str,
    /// The device types that it is for.
    pub device_types: Vec<String>,
    /// The payload files.
    pub payload: Vec<Payload>,
    /// What is special to the module: a key, and one or several values.
    pub facts: Vec<(&'static str, Vec<String>)>,
    /// The meta-data, as JSON.
    pub meta_data: Option<String>,
    /// The command that would make it, without the temporary name.
    pub command: Option<String>,
    /// The header; `None` if it was not written.
    pub header: Option<Header>,
}

impl Summary {
    /// The summary as lines of a key and a value.
    pub fn table(&self) -> String {
        let artifact = match self.size {
            Some(size) => format!("{}, {}", self.artifact.display(), bytes(size)),
            None => format!("{}, not written (--dry-run)", self.artifact.display()),
        };
        let mut rows = vec![
            ("artifact", vec![artifact]),
            ("name", vec![self.name.clone()]),
            ("type", vec![self.payload_type.to_owned()]),
            ("device types", vec![self.device_types.join(", ")]),
        ];
        if let Some(Header { provides, depends }) = &self.header {
            rows.push(("provides", provides.iter().map(|(key, value)| format!("{key} = {value}")).collect()));
            let depends = depends.iter().map(|(key, values)| format!("{key} = {}", values.join(" or "))).collect();
            rows.push(("depends", depends));
        }
        rows.extend(self.facts.iter().cloned());
        let file = |file: &Payload| format!("{}, {}", file.name, bytes(file.size));
        rows.push(("payload", self.payload.iter().map(file).collect()));
        rows.extend(self.command.iter().map(|command| ("command", vec![command.clone()])));
        let width = rows.iter().map(|(key, _)| key.len()).max().unwrap_or_default();
        let mut text = String::new();
        for (key, values) in rows {
            let values = if values.is_empty() { vec!["none".to_owned()] } else { values };
            for (at, value) in values.iter().enumerate() {
                let key = if at == 0 { key } else { "" };
                text += &format!("{key:width$}  {value}\n");
            }
        }
        text
    }

    /// The summary as one JSON object. Sizes are in bytes.
    ///
    /// # Errors
    /// Never for meta-data that were checked.
    pub fn json(&self) -> Result<String> {
        let mut object = json!({
            "artifact": self.artifact.display().to_string(),
            "size": self.size,
            "name": self.name,
            "type": self.payload_type,
            "device_types": self.device_types,
            "provides": self.header.as_ref().map(|header| &header.provides),
            "depends": self.header.as_ref().map(|header| &header.depends),
            "payload": self.payload,
            "meta_data": self.meta_data.as_deref().map(serde_json::from_str::<Value>).transpose()?,
        });
        let facts = self.facts.iter().map(|(key, values)| ((*key).replace(' ', "_"), json!(values)));
        if let Some(object) = object.as_object_mut() {
            object.extend(facts.collect::<Map<_, _>>());
            object.extend(self.command.iter().map(|command| ("command".to_owned(), json!(command))));
        }
        Ok(serde_json::to_string_pretty(&object)? + "\n")
    }
}

/// A number of bytes for people.
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if number < 1024 {
        return format!("{number} B");
    }
    let mut value = number as f64;
    let mut unit = "";
    for next in UNITS {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (number, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB")] {
            assert_eq!(bytes(number), text);
        }
    }
}
