//! The GNU C library that executables are linked with, by its source: that is what vulnerabilities are reported for.

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use crate::target::Target;

/// Debian's version of the source `glibc` that the static C library for `target` is built from.
///
/// # Errors
/// When dpkg does not know it.
pub fn version(sh: &Shell, target: &Target) -> Result<String> {
    let package = target.packages.iter().find(|package| package.starts_with("libc6-dev"));
    let package = package.with_context(|| format!("no C library is listed for {}", target.debian))?;
    let format = "${source:Package} (= ${source:Version}), ${Built-Using}";
    let sources = cmd!(sh, "dpkg-query --show --showformat={format} {package}").quiet().read()?;
    let version =
        glibc(&sources).with_context(|| format!("{package} is not built from glibc but from {sources}"))?;
    Ok(version.to_owned())
}

/// The version of glibc among `sources`. Debian's packages for cross compiling are built from a source of another name, and
/// name glibc in `Built-Using`.
fn glibc(sources: &str) -> Option<&str> {
    sources.split(", ").find_map(|source| source.strip_prefix("glibc (= ")?.strip_suffix(')'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_found_in_native_and_in_cross_packages() {
        assert_eq!(glibc("glibc (= 2.36-9+deb12u14), "), Some("2.36-9+deb12u14"));
        let cross =
            "cross-toolchain-base (= 66), binutils (= 2.40-2), gcc-12 (= 12.2.0-14), glibc (= 2.36-8)";
        assert_eq!(glibc(cross), Some("2.36-8"));
        assert_eq!(glibc("musl (= 1.2.3-1), "), None);
    }
}
