//! The configuration of dpkg and apt. A payload may break it, and a rollback needs both programs.

use std::path::Path;

/// The files of the configuration, and the directories with all of its other files. The third one is in the home
/// directory that [`program`](crate::dpkg::program) sets.
const PATHS: [&str; 3] = ["/etc/apt", "/etc/dpkg", "/root/.dpkg.cfg"];

/// Whether `path` belongs to the configuration of dpkg or apt.
pub fn contains(path: &Path) -> bool {
    PATHS.iter().any(|own| path.starts_with(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_in_etc_and_in_the_home_directory() {
        let is_configuration = |path: &&str| contains(Path::new(path));
        assert!(
            ["/etc/apt", "/etc/apt/apt.conf.d/x", "/etc/dpkg/dpkg.cfg", "/root/.dpkg.cfg"].iter().all(is_configuration)
        );
        assert!(!["/etc/aptitude", "/etc", "/root/.dpkg.cfg2", "/srv/etc/apt"].iter().any(is_configuration));
    }
}
