//! The content of an artifact.

use serde_json::{Value, json};
use test_image::Archive;

/// The files that `mender-artifact` packs, and meta-data.
pub struct Release {
    /// The artifact's name.
    pub name: String,
    /// The names and contents of the payload's files, including images.
    pub files: Vec<(String, Vec<u8>)>,
    /// The meta-data.
    pub meta_data: Value,
}

/// A release of `project`. `images` has the references and archives of its images; `meta_data` has the other meta-data.
pub fn release(name: &str, project: &str, images: &[(&str, &Archive)], mut meta_data: Value) -> Release {
    meta_data["project"] = json!(project);
    let file = |number: usize| format!("image-{number}.tar");
    let listed = images.iter().enumerate();
    let listed =
        listed.map(|(number, (reference, image))| json!({"file": file(number), "id": image.id, "ref": reference}));
    if meta_data["images"].is_null() {
        meta_data["images"] = listed.collect();
    }
    let files = images.iter().enumerate().map(|(number, (_, image))| (file(number), image.content.clone()));
    Release { name: name.to_owned(), files: files.collect(), meta_data }
}
