//! The files of the layer that are made, not written: which crates a module needs, and the checksums of what recipes
//! download.

use std::fmt::Write;

use anyhow::{Context, Result};
use toml_edit::{DocumentMut, Item};

/// The first line of each of them.
const NOTE: &str = "# Made by `cargo xtask layer`: not to be edited.\n";

/// The crates of `lock`, a `Cargo.lock`, in the form of OE-Core's own `bitbake -c update_crates`.
///
/// # Errors
/// When it is not a `Cargo.lock`, or has a crate that comes from anywhere but crates.io.
pub fn crates(lock: &str) -> Result<String> {
    let lock: DocumentMut = lock.parse().context("reading Cargo.lock")?;
    let packages = lock["package"].as_array_of_tables().context("Cargo.lock lists no packages")?;
    let (mut uris, mut sums) = (String::new(), String::new());
    for package in packages {
        let text = |key: &str| package.get(key).and_then(Item::as_str);
        let (name, version) = (text("name").unwrap_or_default(), text("version").unwrap_or_default());
        let Some(source) = text("source") else { continue }; // ours
        anyhow::ensure!(
            source.starts_with("registry+") && source.contains("crates.io"),
            "{name} {version} comes from {source}, and BitBake's crate fetcher takes crates.io only"
        );
        let sum = text("checksum").with_context(|| format!("{name} {version} has no checksum"))?;
        let _ = writeln!(uris, "    crate://crates.io/{name}/{version} \\"); // to a String: no error
        let _ = writeln!(sums, "SRC_URI[{name}-{version}.sha256sum] = \"{sum}\"");
    }
    // As OE-Core writes it, whatever its linter says.
    let exception = "# nooelint: oelint.vars.inconspaces,oelint.vars.notneededspace - the form of OE-Core's own update_crates";
    Ok(format!("{NOTE}\n{exception}\nSRC_URI += \" \\\n{uris}\"\n\n{sums}"))
}

/// The choice that a build makes where it says nothing, between the two recipes of each of `modules`, by their Debian names: the
/// one from source.
pub fn providers<'a>(modules: impl IntoIterator<Item = &'a str>) -> String {
    let lines = modules.into_iter().map(|name| format!("PREFERRED_RPROVIDER_{name} ??= \"{name}\"\n"));
    format!("{NOTE}\n{}", lines.collect::<String>())
}

/// The checksums of downloads, each by the name that its recipe gives it.
pub fn sums(of: &str, sums: &[(String, String)]) -> String {
    let mut text = format!("{NOTE}# {of}\n\n");
    for (name, sum) in sums {
        let _ = writeln!(text, "SRC_URI[{name}.sha256sum] = \"{sum}\""); // to a String: no error
    }
    text
}

/// What the recipes of one module say of licences.
pub struct Licence {
    /// The module's name.
    pub module: String,
    /// The licences of all that is linked into it but the C library, joined by ` & `.
    pub licences: String,
    /// The md5 of `copyright` in its Debian package.
    pub copyright: String,
}

/// Variables with a flag for each module.
pub fn licences(modules: &[Licence]) -> String {
    let mut text = format!(
        "{NOTE}# What is linked into each executable, and the file copyright of its Debian package.\n\n"
    );
    for Licence { module, licences, .. } in modules {
        let _ = writeln!(text, "RUST_MODULES_LICENSE[{module}] = \"{licences}\""); // to a String: no error
    }
    for Licence { module, copyright, .. } in modules {
        let _ = writeln!(text, "RUST_MODULES_COPYRIGHT[{module}] = \"{copyright}\"");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_are_those_of_the_registry() {
        let lock = |source: &str| {
            format!(
                "version = 4\n[[package]]\nname = \"ours\"\nversion = \"0.1.0\"\n[[package]]\nname = \"tar\"\n\
                 version = \"0.4.44\"\nsource = \"{source}\"\nchecksum = \"abc\"\n"
            )
        };
        let made = crates(&lock("registry+https://github.com/rust-lang/crates.io-index")).unwrap();
        let expected = "SRC_URI += \" \\\n    crate://crates.io/tar/0.4.44 \\\n\"\n\n\
                        SRC_URI[tar-0.4.44.sha256sum] = \"abc\"\n";
        assert!(made.ends_with(expected), "{made}");
        let git = crates(&lock("git+https://example.org/tar")).unwrap_err().to_string();
        assert!(git.contains("tar 0.4.44 comes from git+"), "{git}");
    }
}
