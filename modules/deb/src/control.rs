//! Debian's control data: the form in which packages and dpkg's database describe packages.

use std::fmt;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// The longest name that a file can have, in bytes.
const NAME_MAX: usize = 255;

/// The description of one package: fields, one below the other, without the empty line that ends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stanza(pub String);

/// What tells a package from all others on a device: its name, and its architecture where that is a foreign one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    pub name: String,
    pub foreign: Option<String>,
}

impl Key {
    /// The package that apt calls `text`: `name`, or `name:architecture` for a foreign one.
    pub fn of_apt(text: &str) -> Self {
        match text.split_once(':') {
            Some((name, architecture)) => Self { name: name.into(), foreign: Some(architecture.into()) },
            None => Self { name: text.into(), foreign: None },
        }
    }
}

impl fmt::Display for Key {
    /// As apt calls it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)?;
        self.foreign.iter().try_for_each(|architecture| write!(formatter, ":{architecture}"))
    }
}

impl Stanza {
    /// The value of field `name`, further lines with the blank that they begin with; `None` where it is absent.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields().find_map(|field| {
            let (found, value) = field.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim_matches([' ', '\t']).trim_end())
        })
    }

    /// The value of field `name`, which has to be there.
    pub fn required(&self, name: &str) -> Result<&str> {
        let value = self.field(name).filter(|value| !value.is_empty());
        value.with_context(|| format!("a package's control data have no {name}: {:?}", self.0.lines().next()))
    }

    /// Every field with its further lines.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        let mut rest = self.0.as_str();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let begins_next = |at: &(usize, &str)| !rest[at.0 + 1..].starts_with([' ', '\t']);
            let end = rest.match_indices('\n').find(begins_next).map_or(rest.len(), |(at, _)| at);
            let field = &rest[..end];
            rest = rest.get(end + 1..).unwrap_or_default();
            Some(field)
        })
    }

    /// Which package it describes, on a device of architecture `native`.
    pub fn key(&self, native: &str) -> Result<Key> {
        let architecture = self.required("Architecture")?;
        let foreign = Some(architecture.to_owned()).filter(|own| own != native && own != "all");
        Ok(Key { name: self.required("Package")?.to_owned(), foreign })
    }

    /// What dpkg calls the package where more than one of its architectures may be installed.
    pub fn dpkg_name(&self) -> Result<String> {
        Ok(format!("{}:{}", self.required("Package")?, self.required("Architecture")?))
    }

    /// `NAME_VERSION_ARCHITECTURE.deb` as apt escapes it, once it is sure that no path can be made of it.
    pub fn file_name(&self) -> Result<String> {
        let part = |field: &str, also: &str| {
            let value = self.required(field)?;
            let known = |c: char| c.is_ascii_alphanumeric() || also.contains(c);
            ensure!(
                value.starts_with(|c: char| c.is_ascii_alphanumeric()) && value.chars().all(known),
                "a package cannot have {value:?} for a {field}"
            );
            Ok(value.replace(':', "%3a"))
        };
        let (name, version) = (part("Package", "+-.")?, part("Version", "+-.~:")?);
        let file_name = format!("{name}_{version}_{}.deb", part("Architecture", "-")?);
        ensure!(
            file_name.len() <= NAME_MAX,
            "the package name {file_name:?} is longer than {NAME_MAX} bytes"
        );
        Ok(file_name)
    }

    /// What dpkg wants to be done with it, such as `install` or `hold`.
    pub fn want(&self) -> &str {
        self.status_word(0)
    }

    /// What dpkg has done with it, such as `installed` or `config-files`.
    pub fn state(&self) -> &str {
        self.status_word(2)
    }

    fn status_word(&self, index: usize) -> &str {
        self.field("Status").and_then(|status| status.split(' ').nth(index)).unwrap_or_default()
    }

    /// Whether it is installed, whole, and dpkg has nothing more to do for it.
    pub fn is_installed(&self) -> bool {
        self.state() == "installed" && self.status_word(1) == "ok"
    }

    /// Whether files of it are on the device.
    pub fn has_files(&self) -> bool {
        !matches!(self.state(), "" | "not-installed" | "config-files")
    }

    /// Whether it is unpacked, but not configured: its files can be restored, and its state.
    pub fn is_unpacked(&self) -> bool {
        matches!(self.state(), "unpacked" | "half-configured" | "triggers-awaited" | "triggers-pending")
            && self.status_word(1) == "ok"
    }

    /// Whether it is installed but for triggers of others, which dpkg runs later.
    pub fn is_configured(&self) -> bool {
        matches!(self.state(), "installed" | "triggers-awaited" | "triggers-pending")
    }

    /// Whether the device cannot do without it.
    pub fn is_essential(&self) -> bool {
        let yes = |field: &&str| self.field(field).is_some_and(|value| value.eq_ignore_ascii_case("yes"));
        ["Essential", "Protected"].iter().any(yes)
    }

    /// Paths of its configuration files, obsolete ones too, with what dpkg notes about each.
    pub fn conffiles(&self) -> impl Iterator<Item = (&str, &str)> {
        // The path may have blanks; the checksum, and a word such as obsolete after it, have none.
        self.field("Conffiles").unwrap_or_default().lines().filter_map(|line| {
            let (path, word) = line.trim().rsplit_once(' ')?;
            match word {
                "obsolete" | "remove-on-upgrade" => path.rsplit_once(' ').map(|(path, _)| (path, word)),
                _ => Some((path, "")),
            }
        })
    }

    /// The kibibytes that it takes when installed, in bytes; none where it does not say.
    pub fn installed_size(&self) -> u64 {
        let kibibytes = self.field("Installed-Size").and_then(|size| size.parse::<u64>().ok());
        kibibytes.unwrap_or_default().saturating_mul(1024)
    }

    /// Whether it says that it replaces the package `name`.
    pub fn replaces(&self, name: &str) -> bool {
        self.names("Replaces", name)
    }

    /// Whether it says that it needs the package `name`, be it as one of several.
    pub fn depends_on(&self, name: &str) -> bool {
        self.names("Depends", name) || self.names("Pre-Depends", name)
    }

    fn names(&self, field: &str, name: &str) -> bool {
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
        assert_eq!((stanza.want(), stanza.state(), stanza.is_installed()), ("hold", "installed", true));
        assert_eq!(stanza.installed_size(), 3072);
        let conffiles: Vec<_> = stanza.conffiles().collect();
        assert_eq!(conffiles, [("/etc/a b", ""), ("/etc/old", "obsolete")]);
        assert!(
            stanza.replaces("a")
                && stanza.replaces("b")
                && stanza.replaces("libz")
                && !stanza.replaces("lib")
        );
    }

    #[test]
    fn names_are_those_of_apt_and_no_paths() {
        let stanza = stanza();
        assert_eq!(stanza.file_name().unwrap(), "libx+y_1%3a2.0~rc1+b1_armhf.deb");
        assert_eq!(stanza.key("arm64").unwrap().to_string(), "libx+y:armhf");
        assert_eq!(stanza.key("armhf").unwrap(), Key::of_apt("libx+y"));
        for (field, bad) in [("Package", "../x"), ("Version", "1/2"), ("Version", ""), ("Package", "-x")] {
            let text = stanza
                .0
                .replace(&format!("{field}: {}", stanza.field(field).unwrap()), &format!("{field}: {bad}"));
            assert!(Stanza(text).file_name().is_err(), "{field} {bad:?} was taken");
        }
        assert!(Stanza("nonsense".into()).file_name().is_err());
    }
}
