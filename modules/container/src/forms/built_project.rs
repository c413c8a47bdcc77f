//! The result of a build.

use crate::project::{File, Service};

/// The units of a project, with what the engine makes when they start.
#[derive(Default)]
pub struct BuiltProject {
    /// The services that are started.
    pub services: Vec<Service>,
    pub units: Vec<File>,
    /// Files that units need, in addition to those of the artifact.
    pub files: Vec<File>,
    /// The names of the containers.
    pub containers: Vec<String>,
    /// The names of the pods.
    pub pods: Vec<String>,
}
