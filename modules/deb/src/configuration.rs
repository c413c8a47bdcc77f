//! The configuration of dpkg and apt. A payload may break it, and a rollback needs both programs.

use std::path::Path;

/// The files of the configuration, and the directories with all of its other files. The third one is in the home
/// directory that [`program`](crate::dpkg::program) sets.
const PATHS: [&str; 3] = ["/etc/apt", "/etc/dpkg", "/root/.dpkg.cfg"];

/// Whether `path` belongs to the configuration of dpkg or apt.
pub fn contains(path: &Path) -> bool {
    PATHS.iter().any(|own| path.starts_with(own))
}
