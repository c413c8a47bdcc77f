//! What an artifact is made of.

use serde_json::{Value, json};
use test_image::Archive;

/// A payload: the files that `mender-artifact` packs, and meta-data.
pub struct Release {
    /// The artifact's name.
    pub name: String,
    /// Names and contents of the payload's files, images among them.
    pub files: Vec<(String, Vec<u8>)>,
    /// The meta-data.
    pub meta_data: Value,
}

/// A release of `project`, with `images` that are called what their archives say, and more `meta_data`.
pub fn release(name: &str, project: &str, images: &[(&str, &Archive)], mut meta_data: Value) -> Release {
    meta_data["project"] = json!(project);
    let file = |number: usize| format!("image-{number}.tar");
    let listed = images.iter().enumerate();
    let listed = listed
        .map(|(number, (reference, image))| json!({"file": file(number), "id": image.id, "ref": reference}));
    if meta_data["images"].is_null() {
        meta_data["images"] = listed.collect();
    }
    let files = images.iter().enumerate().map(|(number, (_, image))| (file(number), image.content.clone()));
    Release { name: name.to_owned(), files: files.collect(), meta_data }
}
