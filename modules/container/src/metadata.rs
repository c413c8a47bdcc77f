//! The artifact's meta-data.

use serde::Deserialize;

use crate::forms::Definition;
use crate::image::Image;
use crate::name::Name;

/// The artifact's meta-data. Unknown keys are ignored: other programs may use them.
#[derive(Debug, Deserialize)]
pub struct MetaData {
    /// The project that is replaced. Other projects are not changed.
    pub project: Name,
    /// The images that the project runs.
    pub images: Vec<Image>,
    /// What the project runs, in exactly one form.
    #[serde(flatten)]
    pub definition: Definition,
}
