//! The version of the GNU C library that executables are linked with. It is the version of the source package, because
//! vulnerabilities are reported for that.

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use crate::target::Target;

/// The version of Debian's source package `glibc` from which the static C library for `target` is built.
pub fn version(sh: &Shell, target: &Target) -> Result<String> {
    let package = target.packages.iter().find(|package| package.starts_with("libc6-dev"));
    let package = package.with_context(|| format!("no C library in the packages of the target {}", target.debian))?;
    let format = "${source:Package} (= ${source:Version}), ${Built-Using}";
    let sources = cmd!(sh, "dpkg-query --show --showformat={format} {package}").quiet().read()?;
    let version =
        glibc(&sources).with_context(|| format!("no version of glibc in the sources of {package}: {sources}"))?;
    Ok(version.to_owned())
}

/// The version of glibc in `sources`. Debian's packages for cross compiling have a source of another name, and name
/// glibc in `Built-Using`.
fn glibc(sources: &str) -> Option<&str> {
    sources.split(", ").find_map(|source| source.strip_prefix("glibc (= ")?.strip_suffix(')'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_for_native_and_cross_packages() {
        assert_eq!(glibc("glibc (= 2.36-9+deb12u14), "), Some("2.36-9+deb12u14"));
        let cross = "cross-toolchain-base (= 66), binutils (= 2.40-2), gcc-12 (= 12.2.0-14), glibc (= 2.36-8)";
        assert_eq!(glibc(cross), Some("2.36-8"));
        assert_eq!(glibc("musl (= 1.2.3-1), "), None);
    }
}
