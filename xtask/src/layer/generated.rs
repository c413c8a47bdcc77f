//! The content of the generated files of the layer: the crates of each module, licences, and the checksums of
//! downloads.

use std::fmt::Write;

use anyhow::{Context, Result};
use toml_edit::{DocumentMut, Item};

/// The directory of the layer in the work tree.
pub const LAYER: &str = "meta-rust-modules";

/// The first line of every generated file.
const NOTE: &str = "# Made by `cargo xtask layer`: not to be edited.\n";

/// The crates of `lock`, a `Cargo.lock`, in the format of OE-Core's `bitbake -c update_crates`.
///
/// # Errors
/// `lock` is not a `Cargo.lock`, or has a crate that is not from crates.io.
pub fn crates(lock: &str) -> Result<String> {
    let lock: DocumentMut = lock.parse().context("parsing Cargo.lock failed")?;
    let packages = lock["package"].as_array_of_tables().context("no packages in Cargo.lock")?;
    let (mut uris, mut sums) = (String::new(), String::new());
    for package in packages {
        let text = |key: &str| package.get(key).and_then(Item::as_str);
        let (name, version) = (text("name").unwrap_or_default(), text("version").unwrap_or_default());
        let Some(source) = text("source") else { continue }; // a crate of this workspace
        anyhow::ensure!(
            source.starts_with("registry+") && source.contains("crates.io"),
            "unsupported source of the crate {name} {version}: {source}: use a crate of crates.io, because BitBake's \
             fetcher supports no other"
        );
        let sum = text("checksum").with_context(|| format!("no checksum of {name} {version} in Cargo.lock"))?;
        let _ = writeln!(uris, "    crate://crates.io/{name}/{version} \\"); // to a String: no error
        let _ = writeln!(sums, "SRC_URI[{name}-{version}.sha256sum] = \"{sum}\"");
    }
    // The format of OE-Core, which its linter does not accept.
    let exception = "# nooelint: oelint.vars.inconspaces,oelint.vars.notneededspace - \
                     the form of OE-Core's own update_crates";
    Ok(format!("{NOTE}\n{exception}\nSRC_URI += \" \\\n{uris}\"\n\n{sums}"))
}

/// The default choice between the two recipes of each of `modules` (Debian names): the one that builds from source.
pub fn providers<'a>(modules: impl IntoIterator<Item = &'a str>) -> String {
    let lines = modules.into_iter().map(|name| format!("PREFERRED_RPROVIDER_{name} ??= \"{name}\"\n"));
    format!("{NOTE}\n{}", lines.collect::<String>())
}

/// The checksums of downloads, each with the name that its recipe uses.
pub fn sums(of: &str, sums: &[(String, String)]) -> String {
    let mut text = format!("{NOTE}# {of}\n\n");
    for (name, sum) in sums {
        let _ = writeln!(text, "SRC_URI[{name}.sha256sum] = \"{sum}\""); // to a String: no error
    }
    text
}

/// The licences of one module, for its recipes.
pub struct Licence {
    /// The module's name.
    pub module: String,
    /// The licences of all linked code except the C library, joined by ` & `.
    pub licences: String,
    /// The md5 of the file `copyright` in its Debian package, for each C library by name.
    pub copyright: Vec<(&'static str, String)>,
}

/// The licences of `modules`, as variables with a flag for each module.
pub fn licences(modules: &[Licence]) -> String {
    let mut text =
        format!("{NOTE}# What is linked into each executable, and the file copyright of its Debian package.\n\n");
    for Licence { module, licences, .. } in modules {
        let _ = writeln!(text, "RUST_MODULES_LICENSE[{module}] = \"{licences}\""); // to a String: no error
    }
    for Licence { module, copyright, .. } in modules {
        for (libc, sum) in copyright {
            let _ = writeln!(text, "RUST_MODULES_COPYRIGHT[{module}-{libc}] = \"{sum}\"");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_crates_of_the_registry_are_listed() {
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
        assert!(git.contains("crate tar 0.4.44: git+"), "{git}");
    }
}
