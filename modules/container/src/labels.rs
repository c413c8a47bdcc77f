//! Labels of containers.

/// The label of containers that the units of this module make; its value is the project.
pub const PROJECT: &str = "io.mender.update-module.project";

/// The label that docker-compose and podman-compose give every container; its value is the project.
pub const COMPOSE_PROJECT: &str = "com.docker.compose.project";

/// The labels of the containers of `project`, as filters of the engine: one by the units of this module, one by
/// compose.
pub fn of_project(project: &str) -> [String; 2] {
    [PROJECT, COMPOSE_PROJECT].map(|label| format!("{label}={project}"))
}
