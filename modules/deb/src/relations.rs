//! Dependencies and conflicts between the packages of one artifact.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};

use crate::dpkg::program::query;
use crate::dpkg::stanza::Stanza;

/// One package in a field such as `Depends`: `name:any (>= 1.2)`.
pub(crate) struct Relation<'a> {
    name: &'a str,
    /// The operator and the version.
    version: Option<(&'a str, &'a str)>,
}

impl<'a> Relation<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Self> {
        let (name, rest) = text.trim().split_once(['(', ' ']).unwrap_or((text.trim(), ""));
        let name = name.split(':').next().unwrap_or_default();
        let rest = rest.trim().trim_start_matches('(').trim_end_matches(')').trim();
        let operator = rest.trim_end_matches(|c| !matches!(c, '<' | '>' | '='));
        let version = match operator {
            "" if rest.is_empty() => None,
            "<<" | "<=" | "=" | ">=" | ">>" => Some((operator, rest[operator.len()..].trim())),
            _ => bail!("invalid control data of a package: {text:?}: use a form such as \"name (>= 1.0)\""),
        };
        Ok(Self { name, version })
    }

    /// Whether the package `stanza`, by its name or by one that it provides, satisfies this.
    fn is_satisfied_by(&self, stanza: &Stanza) -> Result<bool> {
        if stanza.required("Package")? == self.name {
            return self.accepts(Some(stanza.required("Version")?));
        }
        for provided in clauses(stanza, "Provides") {
            let provided = Relation::parse(provided)?;
            if provided.name == self.name && self.accepts(provided.version.map(|(_, version)| version))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether `version` fits; a package that is provided without a version fits only where none is asked for.
    fn accepts(&self, version: Option<&str>) -> Result<bool> {
        match (self.version, version) {
            (None, _) => Ok(true),
            (Some(_), None) => Ok(false),
            (Some((operator, limit)), Some(version)) => {
                let mut compare = query("dpkg").args(["--compare-versions", version, operator, limit]);
                Ok(compare.status().context("comparing versions needs dpkg: install it")?.success())
            }
        }
    }
}

/// Checks that no package of `stanzas` excludes another one, and returns the dependencies that none of them satisfies.
///
/// # Errors
/// When a dependency names a package of the artifact in a version that the artifact does not have, or two packages
/// conflict.
pub fn check(stanzas: &[Stanza]) -> Result<Vec<String>> {
    let mut needs = BTreeSet::new();
    for stanza in stanzas {
        for clause in ["Pre-Depends", "Depends"].iter().flat_map(|field| clauses(stanza, field)) {
            if !is_satisfied(stanza, clause, stanzas)? {
                needs.insert(clause.to_owned());
            }
        }
        for clause in ["Conflicts", "Breaks"].iter().flat_map(|field| clauses(stanza, field)) {
            check_conflict(stanza, clause, stanzas)?;
        }
    }
    Ok(needs.into_iter().collect())
}

/// Whether one of `stanzas` satisfies the dependency `clause`; `false` if the device may.
fn is_satisfied(stanza: &Stanza, clause: &str, stanzas: &[Stanza]) -> Result<bool> {
    let (mut on_device, mut wrong) = (false, None);
    for alternative in clause.split('|') {
        let relation = Relation::parse(alternative)?;
        for other in stanzas {
            if relation.is_satisfied_by(other)? {
                return Ok(true);
            }
        }
        let same = stanzas.iter().find(|other| other.field("Package") == Some(relation.name));
        on_device |= same.is_none();
        wrong = wrong.or(same);
    }
    if let Some(wrong) = wrong.filter(|_| !on_device) {
        bail!(
            "missing dependency: package {} {} depends on {clause}, and the artifact has {} {}: add the version that it \
             needs",
            stanza.required("Package")?,
            stanza.required("Version")?,
            wrong.required("Package")?,
            wrong.required("Version")?
        );
    }
    Ok(false)
}

fn check_conflict(stanza: &Stanza, clause: &str, stanzas: &[Stanza]) -> Result<()> {
    let relation = Relation::parse(clause)?;
    for other in stanzas.iter().filter(|other| *other != stanza) {
        if relation.is_satisfied_by(other)? {
            bail!(
                "conflicting packages: package {} does not work with {}, because of its field \"{clause}\": remove one",
                stanza.dpkg_name()?,
                other.dpkg_name()?
            );
        }
    }
    Ok(())
}

/// The clauses of the field `field`, which commas separate.
pub(crate) fn clauses<'a>(stanza: &'a Stanza, field: &str) -> impl Iterator<Item = &'a str> {
    let clauses = stanza.field(field).unwrap_or_default().split(',');
    clauses.map(str::trim).filter(|clause| !clause.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stanza(name: &str, version: &str, more: &str) -> Stanza {
        Stanza(format!("Package: {name}\nVersion: {version}\nArchitecture: arm64\n{more}").into())
    }

    #[test]
    fn dependencies_between_packages_are_checked() {
        let app = stanza("app", "2", "Depends: lib:any (>= 2.0~), libc6 (>= 2.36), db | sqlite, virtual");
        let lib = |version: &str| stanza("lib", version, "Provides: virtual, db (= 3)");
        assert_eq!(check(&[app.clone(), lib("2.0")]).unwrap(), ["libc6 (>= 2.36)"]);
        let error = check(&[app.clone(), lib("1.9")]).unwrap_err().to_string();
        assert!(error.contains("app 2 depends on lib:any (>= 2.0~), and the artifact has lib 1.9"), "{error}");
        assert_eq!(check(&[app]).unwrap().len(), 4);
        let alternative = stanza("app", "2", "Depends: lib (>> 9) | other");
        assert_eq!(check(&[alternative, lib("2")]).unwrap(), ["lib (>> 9) | other"], "the device may have other");
    }

    #[test]
    fn packages_that_exclude_each_other_are_refused() {
        let app = stanza("app", "2", "Breaks: lib (<< 2)");
        check(&[app.clone(), stanza("lib", "2", "")]).unwrap();
        let error = check(&[app, stanza("lib", "1", "")]).unwrap_err().to_string();
        assert!(error.contains("app:arm64 does not work with lib:arm64"), "{error}");
        let own = stanza("mta", "1", "Provides: mail\nConflicts: mail");
        check(std::slice::from_ref(&own)).unwrap();
        assert!(check(&[own, stanza("other", "1", "Provides: mail")]).is_err());
        assert!(check(&[stanza("app", "1", "Depends: lib (~ 1)")]).is_err());
    }
}
