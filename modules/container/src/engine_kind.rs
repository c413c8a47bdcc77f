//! The two container engines.

use serde::{Deserialize, Serialize};

/// Podman or docker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EngineKind {
    Podman,
    Docker,
}
