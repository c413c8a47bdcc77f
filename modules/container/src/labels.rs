//! Labels of containers.

/// The label of containers that the units of this module make; its value is the project.
pub const PROJECT: &str = "io.mender.update-module.project";

/// The label that docker-compose and podman-compose give every container; its value is the project.
pub const COMPOSE_PROJECT: &str = "com.docker.compose.project";

/// Another label for the project, which only podman-compose gives. `podman-compose down` selects containers by it.
const PODMAN_COMPOSE_PROJECT: &str = "io.podman.compose.project";

/// The label of containers of compose with the directory of the compose files.
pub const COMPOSE_DIRECTORY: &str = "com.docker.compose.project.working_dir";

/// The labels of the containers of `project`, as filters of the engine: one by the units of this module, one by
/// compose.
pub fn of_project(project: &str) -> [String; 2] {
    [PROJECT, COMPOSE_PROJECT].map(|label| format!("{label}={project}"))
}

/// The labels of compose for the containers of `project`, as filters of the engine.
pub fn of_compose_project(project: &str) -> [String; 2] {
    [COMPOSE_PROJECT, PODMAN_COMPOSE_PROJECT].map(|label| format!("{label}={project}"))
}
