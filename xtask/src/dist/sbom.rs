//! The SBOM (software bill of materials) of a package, in SPDX 2.3. Without it, vulnerability scanners do not find
//! the crates and the C library in a static executable.
//!
//! It is reproducible: the same package always has the same SBOM.

use anyhow::{Context, Result};
use host::cache;
use serde_json::{Value, json};

use super::licences::{self, STANDARD_LIBRARY};
use super::linked::{Crate, Linked};
use super::modules::Module;
use crate::target::{Libc, Target};

/// The URL of the project.
const REPOSITORY: &str = env!("CARGO_PKG_REPOSITORY");

/// SPDX's value for "no statement".
const NO_ASSERTION: &str = "NOASSERTION";

/// The identifier of the module's package in the document.
const MODULE: &str = "SPDXRef-Module";

/// The content of the SBOM of one package.
pub struct Sbom<'a> {
    /// The module.
    pub module: &'a Module,
    /// The target of the package.
    pub target: &'static Target,
    /// The linked crates.
    pub linked: &'a Linked,
    /// The version of Rust, and so of its standard library.
    pub rust: &'a str,
    /// The C library.
    pub libc: Libc,
    /// Its version: of upstream for musl, of Debian for glibc.
    pub c_library: &'a str,
    /// The sha256 of the executable.
    pub executable: &'a str,
    /// The time of the sources, as `2026-11-24T08:00:00Z`.
    pub created: &'a str,
}

impl Sbom<'_> {
    /// The document, as JSON.
    pub fn document(&self) -> Result<String> {
        let is_linked = |linked: &&Crate| linked.targets.contains(&self.target);
        let mut crates = self.linked.crates.iter().filter(is_linked);
        let module = crates.next().context("no linked crates for this target in the output of cargo tree")?;
        let crates: Vec<Value> = crates.map(package_of_crate).collect();
        let libraries = [self.standard_library(), self.c_library()];
        let mut relationships = vec![relationship("SPDXRef-DOCUMENT", "DESCRIBES", &json!(MODULE))];
        relationships.extend(crates.iter().map(|part| relationship(MODULE, "CONTAINS", &part["SPDXID"])));
        relationships.extend(libraries.iter().map(|part| relationship(MODULE, "STATIC_LINK", &part["SPDXID"])));
        let packages: Vec<Value> = [self.module(module)].into_iter().chain(crates).chain(libraries).collect();
        let content = serde_json::to_vec(&json!([packages, relationships, self.created]))?;
        let name = self.module.stem(self.target);
        let document = json!({
            "spdxVersion": "SPDX-2.3",
            "dataLicense": "CC0-1.0",
            "SPDXID": "SPDXRef-DOCUMENT",
            "name": name,
            "documentNamespace": format!("{REPOSITORY}/spdx/{name}-{}", cache::sha256(&content)),
            "creationInfo": {
                "created": self.created,
                "creators": [concat!("Tool: mender-rust-modules-xtask-", env!("CARGO_PKG_VERSION"))],
            },
            "packages": packages,
            "relationships": relationships,
        });
        Ok(serde_json::to_string_pretty(&document)? + "\n")
    }

    fn module(&self, own: &Crate) -> Value {
        let mut licences: Vec<_> = self.linked.licences().iter().map(|licence| licence.spdx).collect();
        let c_library = licences::c_library(self.libc).spdx;
        if !licences.contains(&c_library) {
            licences.push(c_library);
        }
        let executable = if self.module.is_update_module() {
            format!("usr/share/mender/modules/v3/{}", self.module.name)
        } else {
            format!("usr/bin/{}", self.module.debian)
        };
        json!({
            "SPDXID": MODULE,
            "name": self.module.debian,
            "versionInfo": self.module.version,
            "packageFileName": executable,
            "primaryPackagePurpose": "APPLICATION",
            "downloadLocation": format!("git+{REPOSITORY}"),
            "filesAnalyzed": false,
            "checksums": [sha256(self.executable)],
            "licenseConcluded": licences.join(" AND "),
            "licenseDeclared": own.licence.offered,
            "copyrightText": NO_ASSERTION,
        })
    }

    fn standard_library(&self) -> Value {
        let version = self.rust;
        json!({
            "SPDXID": "SPDXRef-RustStandardLibrary",
            "name": "rust-std",
            "versionInfo": version,
            "primaryPackagePurpose": "LIBRARY",
            "downloadLocation": "git+https://github.com/rust-lang/rust",
            "filesAnalyzed": false,
            "licenseConcluded": STANDARD_LIBRARY.spdx,
            "licenseDeclared": "MIT OR Apache-2.0",
            "copyrightText": "The Rust Project Developers",
            "externalRefs": [
                purl(&format!("pkg:generic/rust@{}", escaped(version))),
                cpe(&format!("cpe:2.3:a:rust-lang:rust:{version}:*:*:*:*:*:*:*")),
            ],
        })
    }

    fn c_library(&self) -> Value {
        let version = self.c_library;
        let licence = licences::c_library(self.libc).spdx;
        let (id, location, copyright, references) = match self.libc {
            Libc::Musl => (
                "SPDXRef-Musl",
                format!("https://musl.libc.org/releases/musl-{version}.tar.gz"),
                "Rich Felker, et al.",
                [
                    purl(&format!("pkg:generic/musl@{}", escaped(version))),
                    cpe(&format!("cpe:2.3:a:musl-libc:musl:{version}:*:*:*:*:*:*:*")),
                ],
            ),
            Libc::Glibc => (
                "SPDXRef-GNUCLibrary",
                format!("https://snapshot.debian.org/package/glibc/{version}/"),
                "Free Software Foundation, Inc. and others",
                glibc_references(version),
            ),
        };
        json!({
            "SPDXID": id,
            "name": self.libc.name(),
            "versionInfo": version,
            "primaryPackagePurpose": "LIBRARY",
            "downloadLocation": location,
            "filesAnalyzed": false,
            "licenseConcluded": licence,
            "licenseDeclared": licence,
            "copyrightText": copyright,
            "externalRefs": references,
        })
    }
}

fn glibc_references(version: &str) -> [Value; 2] {
    // Vulnerabilities are reported for the upstream version, without Debian's revision.
    let upstream = version.rsplit_once('-').map_or(version, |(upstream, _)| upstream);
    [
        purl(&format!("pkg:deb/debian/glibc@{}?arch=source", escaped(version))),
        cpe(&format!("cpe:2.3:a:gnu:glibc:{upstream}:*:*:*:*:*:*:*")),
    ]
}

fn package_of_crate(linked: &Crate) -> Value {
    let Crate { name, version, licence, copyright, checksum, .. } = linked;
    let used: Vec<_> = licence.used.iter().map(|licence| licence.spdx).collect();
    let mut package = json!({
        "SPDXID": format!("SPDXRef-Crate-{}", identifier(&format!("{name}-{version}"))),
        "name": name,
        "versionInfo": version,
        "primaryPackagePurpose": "LIBRARY",
        "downloadLocation": format!("git+{REPOSITORY}"),
        "filesAnalyzed": false,
        "licenseConcluded": used.join(" AND "),
        "licenseDeclared": licence.offered,
        "copyrightText": copyright.join("\n"),
    });
    if let Some(checksum) = checksum {
        package["downloadLocation"] = format!("https://crates.io/api/v1/crates/{name}/{version}/download").into();
        package["checksums"] = json!([sha256(checksum)]);
        package["externalRefs"] = json!([purl(&format!("pkg:cargo/{name}@{}", escaped(version)))]);
    }
    package
}

fn relationship(from: &str, kind: &str, to: &Value) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}

fn sha256(value: &str) -> Value {
    json!({ "algorithm": "SHA256", "checksumValue": value })
}

fn purl(locator: &str) -> Value {
    json!({ "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": locator })
}

fn cpe(locator: &str) -> Value {
    json!({ "referenceCategory": "SECURITY", "referenceType": "cpe23Type", "referenceLocator": locator })
}

/// `version`, escaped for a package URL: a plus sign has a meaning in URLs.
fn escaped(version: &str) -> String {
    version.replace('+', "%2B")
}

/// `text` as an SPDX identifier: characters that are not allowed are replaced.
fn identifier(text: &str) -> String {
    text.chars().map(|letter| if letter.is_ascii_alphanumeric() || letter == '.' { letter } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::super::linked::tests::linked;
    use super::*;
    use crate::target::{self, TARGETS};

    fn document(linked: &Linked, executable: &str) -> String {
        document_with(linked, executable, Libc::Glibc, "2.36-9+deb12u14")
    }

    fn document_with(linked: &Linked, executable: &str, libc: Libc, c_library: &str) -> String {
        let module = Module { name: "web-file".into(), version: "0.1.0".into(), debian: "m-web-file".into() };
        let sbom = Sbom {
            module: &module,
            target: target::find("armhf").unwrap(),
            linked,
            rust: "1.95.0",
            libc,
            c_library,
            executable,
            created: "2026-11-24T08:00:00Z",
        };
        sbom.document().unwrap()
    }

    fn example() -> Linked {
        let ours = Crate { checksum: None, ..linked("web-file", "0.1.0", "Apache-2.0") };
        let other = Crate { targets: vec![&TARGETS[0]], ..linked("cpufeatures", "0.2.17", "MIT") };
        Linked { crates: vec![ours, other, linked("toml", "0.9.12+spec-1.1.0", "MIT/Apache-2.0")] }
    }

    #[test]
    fn a_document_lists_what_is_linked_for_its_architecture() {
        let document: Value = serde_json::from_str(&document(&example(), "123")).unwrap();
        assert_eq!(document["name"], "m-web-file_0.1.0_armhf");
        let names: Vec<_> = document["packages"].as_array().unwrap().iter().map(|package| &package["name"]).collect();
        assert_eq!(names, ["m-web-file", "toml", "rust-std", "glibc"]);
        let [module, toml, _, glibc] = &document["packages"].as_array().unwrap()[..] else { unreachable!() };
        assert_eq!(module["checksums"][0]["checksumValue"], "123");
        assert_eq!(toml["SPDXID"], "SPDXRef-Crate-toml-0.9.12-spec-1.1.0");
        assert_eq!(toml["externalRefs"][0]["referenceLocator"], "pkg:cargo/toml@0.9.12%2Bspec-1.1.0");
        assert_eq!(toml["licenseConcluded"], "Apache-2.0");
        assert_eq!(toml["licenseDeclared"], "MIT OR Apache-2.0");
        let locator = |number: usize| glibc["externalRefs"][number]["referenceLocator"].as_str().unwrap();
        assert_eq!(locator(0), "pkg:deb/debian/glibc@2.36-9%2Bdeb12u14?arch=source");
        assert_eq!(locator(1), "cpe:2.3:a:gnu:glibc:2.36:*:*:*:*:*:*:*");
    }

    #[test]
    fn musl_is_named_with_its_version() {
        let document: Value = serde_json::from_str(&document_with(&example(), "123", Libc::Musl, "1.2.5")).unwrap();
        let musl = document["packages"].as_array().unwrap().last().unwrap();
        assert_eq!((musl["name"].as_str(), musl["versionInfo"].as_str()), (Some("musl"), Some("1.2.5")));
        assert_eq!(musl["externalRefs"][1]["referenceLocator"], "cpe:2.3:a:musl-libc:musl:1.2.5:*:*:*:*:*:*:*");
        assert_eq!(document["packages"][0]["licenseConcluded"], "Apache-2.0 AND MIT");
    }

    #[test]
    fn every_package_has_its_relationship() {
        let document: Value = serde_json::from_str(&document(&example(), "123")).unwrap();
        let of = |kind: &str| -> Vec<&Value> {
            let all = document["relationships"].as_array().unwrap().iter();
            all.filter(|one| one["relationshipType"] == kind).map(|one| &one["relatedSpdxElement"]).collect()
        };
        assert_eq!(of("DESCRIBES"), ["SPDXRef-Module"]);
        assert_eq!(of("CONTAINS"), ["SPDXRef-Crate-toml-0.9.12-spec-1.1.0"]);
        assert_eq!(of("STATIC_LINK"), ["SPDXRef-RustStandardLibrary", "SPDXRef-GNUCLibrary"]);
    }

    #[test]
    fn the_namespace_changes_with_the_content_only() {
        let (linked, namespace) = (example(), |document: &str| {
            let document: Value = serde_json::from_str(document).unwrap();
            document["documentNamespace"].as_str().unwrap().to_owned()
        });
        let one = document(&linked, "123");
        assert_eq!(one, document(&linked, "123"));
        assert_ne!(namespace(&one), namespace(&document(&linked, "124")));
    }
}
