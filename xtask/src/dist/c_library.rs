//! The version of the C library that executables are linked with. For the GNU C library it is the version of the
//! source package, because vulnerabilities are reported for that.

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

use super::rust_source::Active;
use crate::target::{Libc, Target};

/// The version of `libc` for `target`.
pub fn version(sh: &Shell, target: &Target, libc: Libc) -> Result<String> {
    match libc {
        Libc::Musl => {
            let archive = Active::find(sh)?.musl(target.musl)?;
            musl(&archive).with_context(|| format!("no version in the libc.a of {}", target.musl))
        }
        Libc::Glibc => debian(sh, target),
    }
}

/// The version in `archive`, musl as a static library. It contains its version as a text.
fn musl(archive: &[u8]) -> Option<String> {
    let texts = archive.split(|byte| !byte.is_ascii_graphic());
    let versions = texts.filter(|text| {
        let parts: Vec<_> = text.split(|byte| *byte == b'.').collect();
        let number = |part: &&[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
        parts.len() == 3 && parts[0] == b"1" && parts.iter().all(number)
    });
    versions.map(|text| String::from_utf8_lossy(text).into_owned()).next()
}

/// The version of Debian's source package `glibc` from which the static C library for `target` is built.
fn debian(sh: &Shell, target: &Target) -> Result<String> {
    let package = target.glibc.packages.iter().find(|package| package.starts_with("libc6-dev"));
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
    fn the_version_of_musl_is_in_its_library() {
        assert_eq!(musl(b"!<arch>\n\x00abc 1.5\x001.2.5\x00\x00").as_deref(), Some("1.2.5"));
        assert_eq!(musl(b"!<arch>\n\x0010.2.5\x001.2\x00x1.2.5\x00"), None);
    }

    #[test]
    fn the_version_is_found_for_native_and_cross_packages() {
        assert_eq!(glibc("glibc (= 2.36-9+deb12u14), "), Some("2.36-9+deb12u14"));
        let cross = "cross-toolchain-base (= 66), binutils (= 2.40-2), gcc-12 (= 12.2.0-14), glibc (= 2.36-8)";
        assert_eq!(glibc(cross), Some("2.36-8"));
        assert_eq!(glibc("musl (= 1.2.3-1), "), None);
    }
}
