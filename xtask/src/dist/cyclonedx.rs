//! The SBOM of a package in CycloneDX 1.6, made of the one in SPDX: both have the same components.

use anyhow::{Context, Result};
use host::cache;
use serde_json::{Map, Value, json};

/// The relationships in SPDX of what is part of the executable.
const PARTS: &[&str] = &["CONTAINS", "STATIC_LINK"];

/// The document in CycloneDX with the content of `spdx`, a document of [`super::sbom::Sbom`].
pub fn document(spdx: &str) -> Result<String> {
    let spdx: Value = serde_json::from_str(spdx).context("parsing the SBOM in SPDX failed")?;
    let described = related(&spdx, &["DESCRIBES"]);
    let main = described.first().and_then(|id| package(&spdx, id)).context("the SBOM in SPDX describes no package")?;
    let parts: Vec<_> = related(&spdx, PARTS).into_iter().filter_map(|id| package(&spdx, id)).collect();
    let references: Vec<_> = parts.iter().map(|part| reference(part)).collect();
    let mut dependencies = vec![json!({ "ref": reference(main), "dependsOn": references })];
    dependencies.extend(references.iter().map(|part| json!({ "ref": part })));
    let creation = &spdx["creationInfo"];
    let document = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": format!("urn:uuid:{}", uuid(&cache::sha256(spdx.to_string().as_bytes()))),
        "version": 1,
        "metadata": {
            "timestamp": creation["created"],
            "lifecycles": [{ "phase": "build" }],
            "tools": { "components": [{ "type": "application", "name": text(&creation["creators"][0]) }] },
            "component": component(main, "application"),
        },
        "components": parts.iter().map(|part| component(part, "library")).collect::<Vec<_>>(),
        "dependencies": dependencies,
    });
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

/// The identifiers of the packages with a relationship of one of `kinds`, in their order.
fn related<'a>(spdx: &'a Value, kinds: &[&str]) -> Vec<&'a str> {
    let all = spdx["relationships"].as_array().into_iter().flatten();
    all.filter(|one| kinds.contains(&text(&one["relationshipType"])))
        .map(|one| text(&one["relatedSpdxElement"]))
        .collect()
}

fn package<'a>(spdx: &'a Value, id: &str) -> Option<&'a Value> {
    spdx["packages"].as_array()?.iter().find(|package| text(&package["SPDXID"]) == id)
}

/// The reference to the component of `package`: its package URL if it has one.
fn reference(package: &Value) -> String {
    let own = || format!("{}@{}", text(&package["name"]), text(&package["versionInfo"]));
    external(package, "purl").map_or_else(own, str::to_owned)
}

fn component(package: &Value, kind: &str) -> Value {
    let mut component = Map::new();
    let mut set = |key: &str, value: Value| drop(component.insert(key.to_owned(), value));
    set("type", kind.into());
    set("bom-ref", reference(package).into());
    set("name", package["name"].clone());
    set("version", package["versionInfo"].clone());
    let hash = |sum: &Value| json!({ "alg": "SHA-256", "content": sum["checksumValue"] });
    if let Some(sums) = package["checksums"].as_array() {
        set("hashes", sums.iter().map(hash).collect());
    }
    set("licenses", json!([{ "expression": package["licenseConcluded"], "acknowledgement": "concluded" }]));
    let copyright = text(&package["copyrightText"]);
    if !["", "NOASSERTION"].contains(&copyright) {
        set("copyright", copyright.into());
    }
    for (key, kind) in [("cpe", "cpe23Type"), ("purl", "purl")] {
        if let Some(locator) = external(package, kind) {
            set(key, locator.into());
        }
    }
    Value::Object(component)
}

/// The external reference of `package` of this kind.
fn external<'a>(package: &'a Value, kind: &str) -> Option<&'a str> {
    let references = package["externalRefs"].as_array()?;
    references.iter().find(|one| text(&one["referenceType"]) == kind).map(|one| text(&one["referenceLocator"]))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A UUID of version 8, whose content is free, from the hexadecimal digits of a hash.
fn uuid(hash: &str) -> String {
    let digits = |from: usize, to: usize| hash.get(from..to).unwrap_or_default();
    format!("{}-{}-8{}-8{}-{}", digits(0, 8), digits(8, 12), digits(12, 15), digits(15, 18), digits(18, 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spdx() -> String {
        json!({
            "creationInfo": { "created": "2026-11-24T08:00:00Z", "creators": ["Tool: xtask"] },
            "packages": [
                { "SPDXID": "M", "name": "m", "versionInfo": "1", "licenseConcluded": "Apache-2.0 AND MIT",
                  "copyrightText": "NOASSERTION", "checksums": [{ "checksumValue": "123" }] },
                { "SPDXID": "T", "name": "tar", "versionInfo": "0.4", "licenseConcluded": "MIT",
                  "copyrightText": "A", "externalRefs": [
                    { "referenceType": "purl", "referenceLocator": "pkg:cargo/tar@0.4" }] },
                { "SPDXID": "C", "name": "musl", "versionInfo": "1.2.5", "licenseConcluded": "MIT", "externalRefs": [
                    { "referenceType": "cpe23Type", "referenceLocator": "cpe:2.3:a:musl" }] },
            ],
            "relationships": [
                { "relationshipType": "DESCRIBES", "relatedSpdxElement": "M" },
                { "relationshipType": "CONTAINS", "relatedSpdxElement": "T" },
                { "relationshipType": "STATIC_LINK", "relatedSpdxElement": "C" },
            ],
        })
        .to_string()
    }

    #[test]
    fn components_are_the_packages_of_spdx() {
        let document: Value = serde_json::from_str(&document(&spdx()).unwrap()).unwrap();
        assert_eq!(document["metadata"]["component"]["hashes"][0]["content"], "123");
        let [tar, musl] = &document["components"].as_array().unwrap()[..] else { panic!("{document}") };
        assert_eq!((text(&tar["purl"]), text(&tar["copyright"])), ("pkg:cargo/tar@0.4", "A"));
        assert_eq!(tar["licenses"][0]["expression"], "MIT");
        assert_eq!((text(&musl["cpe"]), text(&musl["bom-ref"])), ("cpe:2.3:a:musl", "musl@1.2.5"));
        assert_eq!(document["dependencies"][0]["dependsOn"], json!(["pkg:cargo/tar@0.4", "musl@1.2.5"]));
    }

    #[test]
    fn a_document_is_reproducible_and_its_number_depends_on_the_content() {
        assert_eq!(document(&spdx()).unwrap(), document(&spdx()).unwrap());
        let number = |spdx: &str| document(spdx).unwrap().split("urn:uuid:").nth(1).unwrap()[..36].to_owned();
        assert_ne!(number(&spdx()), number(&spdx().replace("1.2.5", "1.2.6")));
        assert_eq!(number(&spdx()).split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
    }

    #[test]
    fn a_document_without_a_package_is_an_error() {
        assert!(document("{}").unwrap_err().to_string().contains("describes no package"));
    }
}
