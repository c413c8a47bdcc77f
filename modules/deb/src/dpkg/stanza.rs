//! Debian's control data, which describe a package in its `.deb` and in dpkg's database.

use std::fmt;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::paths::NAME_MAX;

/// The fields that describe one package, without the empty line after them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stanza(pub String);

/// The name of a package, with its architecture where that is a foreign one: unique on a device.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PackageKey {
    pub name: String,
    pub foreign: Option<String>,
}

impl PackageKey {
    /// The package with the name `text` in apt's form: `name`, or `name:architecture` for a foreign one.
    pub fn from_apt(text: &str) -> Self {
        match text.split_once(':') {
            Some((name, architecture)) => Self { name: name.into(), foreign: Some(architecture.into()) },
            None => Self { name: text.into(), foreign: None },
        }
    }
}

impl fmt::Display for PackageKey {
    /// Apt's form of the name.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)?;
        self.foreign.iter().try_for_each(|architecture| write!(formatter, ":{architecture}"))
    }
}

impl Stanza {
    /// The value of the field `name`, with the space at the beginning of each further line; `None` where it
    /// is absent.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields().find_map(|field| {
            let (found, value) = field.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim_matches([' ', '\t']).trim_end())
        })
    }

    /// The value of the field `name`.
    ///
    /// # Errors
    /// Where it is absent or empty.
    pub fn required(&self, name: &str) -> Result<&str> {
        let value = self.field(name).filter(|value| !value.is_empty());
        value.with_context(|| {
            let first = self.0.lines().next().unwrap_or_default();
            format!("invalid control data of a package: {first:?}: field {name} is missing")
        })
    }

    /// Every field with all its lines.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        let mut rest = self.0.as_str();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let begins_field = |at: &(usize, &str)| !rest[at.0 + 1..].starts_with([' ', '\t']);
            let end = rest.match_indices('\n').find(begins_field).map_or(rest.len(), |(at, _)| at);
            let field = &rest[..end];
            rest = rest.get(end + 1..).unwrap_or_default();
            Some(field)
        })
    }

    /// The key of the package on a device of architecture `native`.
    pub fn key(&self, native: &str) -> Result<PackageKey> {
        let architecture = self.required("Architecture")?;
        let foreign = Some(architecture.to_owned()).filter(|own| own != native && own != "all");
        Ok(PackageKey { name: self.required("Package")?.to_owned(), foreign })
    }

    /// The name of the package in dpkg's form, always with its architecture.
    pub fn dpkg_name(&self) -> Result<String> {
        Ok(format!("{}:{}", self.required("Package")?, self.required("Architecture")?))
    }

    /// The name of the package's file in apt's form: `NAME_VERSION_ARCHITECTURE.deb`.
    ///
    /// # Errors
    /// Where a field has characters that Debian does not allow, such as a slash, or the name is too long.
    pub fn file_name(&self) -> Result<String> {
        let part = |field: &str, also: &str| {
            let value = self.required(field)?;
            let known = |c: char| c.is_ascii_alphanumeric() || also.contains(c);
            ensure!(
                value.starts_with(|c: char| c.is_ascii_alphanumeric()) && value.chars().all(known),
                "invalid control data of a package: field {field}: {value:?} has characters that Debian \
                 does not allow"
            );
            Ok(value.replace(':', "%3a"))
        };
        let (name, version) = (part("Package", "+-.")?, part("Version", "+-.~:")?);
        let file_name = format!("{name}_{version}_{}.deb", part("Architecture", "-")?);
        ensure!(
            file_name.len() <= NAME_MAX,
            "invalid control data of a package: file name {file_name:?}: longer than {NAME_MAX} bytes"
        );
        Ok(file_name)
    }

    /// The selection, such as `install` or `hold`.
    pub fn selection(&self) -> &str {
        self.status_word(0)
    }

    /// The state, such as `installed` or `config-files`.
    pub fn state(&self) -> &str {
        self.status_word(2)
    }

    fn status_word(&self, index: usize) -> &str {
        self.field("Status").and_then(|status| status.split(' ').nth(index)).unwrap_or_default()
    }

    /// Whether the package is installed and dpkg has nothing left to do for it.
    pub fn is_installed(&self) -> bool {
        self.state() == "installed" && self.status_word(1) == "ok"
    }

    /// Whether dpkg has nothing left to do for the package: it is installed, or it is not.
    pub fn is_finished(&self) -> bool {
        matches!(self.state(), "installed" | "config-files" | "not-installed") && self.status_word(1) == "ok"
    }

    /// Whether the device has files of the package.
    pub fn has_files(&self) -> bool {
        !matches!(self.state(), "" | "not-installed" | "config-files")
    }

    /// Whether the package is unpacked and not configured. A rollback can restore its files and its state.
    pub fn is_unpacked(&self) -> bool {
        matches!(self.state(), "unpacked" | "half-configured" | "triggers-awaited" | "triggers-pending")
            && self.status_word(1) == "ok"
    }

    /// Whether the package is configured. dpkg may still have to run triggers.
    pub fn is_configured(&self) -> bool {
        matches!(self.state(), "installed" | "triggers-awaited" | "triggers-pending")
    }

    /// Whether the package is essential or protected.
    pub fn is_essential(&self) -> bool {
        let yes = |field: &&str| self.field(field).is_some_and(|value| value.eq_ignore_ascii_case("yes"));
        ["Essential", "Protected"].iter().any(yes)
    }

    /// The paths of the configuration files, each with its flag such as `obsolete`, or an empty one.
    pub fn conffiles(&self) -> impl Iterator<Item = (&str, &str)> {
        // The path may contain spaces. The checksum and the flag after it do not.
        self.field("Conffiles").unwrap_or_default().lines().filter_map(|line| {
            let (path, last) = line.trim().rsplit_once(' ')?;
            match last {
                "obsolete" | "remove-on-upgrade" => path.rsplit_once(' ').map(|(path, _)| (path, last)),
                _ => Some((path, "")),
            }
        })
    }

    /// `Installed-Size` in bytes; 0 where it is absent or no number.
    pub fn installed_size(&self) -> u64 {
        let kibibytes = self.field("Installed-Size").and_then(|size| size.parse::<u64>().ok());
        kibibytes.unwrap_or_default().saturating_mul(1024)
    }

    /// Whether the package replaces the package `name`.
    pub fn replaces(&self, name: &str) -> bool {
        self.lists("Replaces", name)
    }

    /// Whether the package depends on the package `name`, also as one of several alternatives.
    pub fn depends_on(&self, name: &str) -> bool {
        self.lists("Depends", name) || self.lists("Pre-Depends", name)
    }

    fn lists(&self, field: &str, name: &str) -> bool {
        let mut packages = self.field(field).unwrap_or_default().split([',', '|']);
        packages.any(|package| package.trim().split([' ', '(', ':']).next() == Some(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stanza() -> Stanza {
        Stanza(
            "Package: libx+y\nStatus: hold ok installed\nArchitecture: armhf\nVersion: 1:2.0~rc1+b1\n\
             Installed-Size: 3\nReplaces: a (<< 2), libz, b:any\nConffiles:\n /etc/a b 0123\n /etc/old 4567 obsolete\n\
             Description: short\n long\n .\n longer"
                .into(),
        )
    }

    #[test]
    fn fields_are_found_with_all_their_lines() {
        let stanza = stanza();
        assert_eq!(stanza.field("version"), Some("1:2.0~rc1+b1"));
        assert_eq!(stanza.field("Description"), Some("short\n long\n .\n longer"));
        assert_eq!(stanza.field("long"), None);
        assert_eq!(stanza.fields().count(), 8);
        assert_eq!((stanza.selection(), stanza.state(), stanza.is_installed()), ("hold", "installed", true));
        assert_eq!(stanza.installed_size(), 3072);
        let conffiles: Vec<_> = stanza.conffiles().collect();
        assert_eq!(conffiles, [("/etc/a b", ""), ("/etc/old", "obsolete")]);
        assert!(stanza.replaces("a") && stanza.replaces("b") && stanza.replaces("libz") && !stanza.replaces("lib"));
    }

    #[test]
    fn file_names_are_those_of_apt_and_never_paths() {
        let stanza = stanza();
        assert_eq!(stanza.file_name().unwrap(), "libx+y_1%3a2.0~rc1+b1_armhf.deb");
        assert_eq!(stanza.key("arm64").unwrap().to_string(), "libx+y:armhf");
        assert_eq!(stanza.key("armhf").unwrap(), PackageKey::from_apt("libx+y"));
        for (field, bad) in [("Package", "../x"), ("Version", "1/2"), ("Version", ""), ("Package", "-x")] {
            let text =
                stanza.0.replace(&format!("{field}: {}", stanza.field(field).unwrap()), &format!("{field}: {bad}"));
            assert!(Stanza(text).file_name().is_err(), "{field} {bad:?} was accepted");
        }
        assert!(Stanza("nonsense".into()).file_name().is_err());
    }
}
