//! The two container engines.

use serde::{Deserialize, Serialize};

/// Podman or docker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EngineKind {
    /// Podman, of any version.
    Podman,
    /// Docker, with any image store.
    Docker,
}
