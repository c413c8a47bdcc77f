//! Debian's control data, which describe a package in its `.deb` and in dpkg's database.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::str;

use anyhow::{Context, Result, ensure};
use mender_update_module::durable::NAME_MAX;
use serde::{Deserialize, Serialize};

use crate::path_json;

/// The fields that describe one package, without the empty line after them. dpkg keeps them as bytes: a field such as
/// `Maintainer` may be in any encoding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stanza(#[serde(with = "path_json::text")] pub Vec<u8>);

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

    /// The key of this package on a device of architecture `native`, which the name need not leave out. `native` is
    /// also apt's word for it.
    pub fn on_device(self, native: &str) -> Self {
        let is_foreign = |architecture: &String| ![native, "native", "all"].contains(&architecture.as_str());
        Self { foreign: self.foreign.filter(is_foreign), ..self }
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
    /// Every stanza of `text`. Empty lines separate them.
    pub fn all(text: &[u8]) -> Vec<Self> {
        let lines: Vec<_> = text.split(|byte| *byte == b'\n').collect();
        let stanzas = lines.split(|line| line.is_empty()).filter(|stanza| !stanza.is_empty());
        stanzas.map(|lines| Self(lines.join(&b'\n'))).collect()
    }

    /// The value of the field `name`, with the space at the beginning of each further line; `None` where it is absent,
    /// or is not UTF-8: dpkg refuses that in every field with names, versions or states of packages.
    pub fn field(&self, name: &str) -> Option<&str> {
        str::from_utf8(self.bytes_of(name)?).ok()
    }

    fn bytes_of(&self, name: &str) -> Option<&[u8]> {
        self.fields().find_map(|field| {
            let colon = field.iter().position(|byte| *byte == b':')?;
            let (found, value) = (&field[..colon], &field[colon + 1..]);
            let begin = value.iter().position(|byte| !matches!(byte, b' ' | b'\t')).unwrap_or(value.len());
            found.eq_ignore_ascii_case(name.as_bytes()).then(|| value[begin..].trim_ascii_end())
        })
    }

    /// The value of the field `name`.
    ///
    /// # Errors
    /// Where it is absent or empty.
    pub fn required(&self, name: &str) -> Result<&str> {
        let value = self.field(name).filter(|value| !value.is_empty());
        value.with_context(|| {
            let first = self.0.split(|byte| *byte == b'\n').next().map(String::from_utf8_lossy).unwrap_or_default();
            format!("invalid control data of a package: {first:?}: field {name} is missing")
        })
    }

    /// Every field with all its lines.
    pub fn fields(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let ends_field = |at: &usize| rest[*at] == b'\n' && !matches!(rest.get(at + 1), Some(b' ' | b'\t'));
            let end = (0..rest.len()).find(ends_field).unwrap_or(rest.len());
            let field = &rest[..end];
            rest = rest.get(end + 1..).unwrap_or_default();
            Some(field)
        })
    }

    /// The key of the package on a device of architecture `native`.
    pub fn key(&self, native: &str) -> Result<PackageKey> {
        let foreign = Some(self.required("Architecture")?.to_owned());
        Ok(PackageKey { name: self.required("Package")?.to_owned(), foreign }.on_device(native))
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

    /// Whether dpkg knows more of the package than its selection.
    pub fn is_known(&self) -> bool {
        self.state() != "not-installed"
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
    pub fn conffiles(&self) -> impl Iterator<Item = (&Path, &str)> {
        // The path may contain spaces. The checksum and the flag after it do not.
        self.bytes_of("Conffiles").unwrap_or_default().split(|byte| *byte == b'\n').filter_map(|line| {
            let (path, last) = split_at_last_space(line.trim_ascii())?;
            let (path, flag) = match str::from_utf8(last) {
                Ok(flag @ ("obsolete" | "remove-on-upgrade")) => (split_at_last_space(path)?.0, flag),
                _ => (path, ""),
            };
            Some((Path::new(OsStr::from_bytes(path)), flag))
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

fn split_at_last_space(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().rposition(|byte| *byte == b' ')?;
    Some((&text[..at], &text[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_is_not_utf_8_stays_and_other_fields_are_found() {
        let stanza = Stanza(
            b"Package: a\nMaintainer: Ren\xe9\nVersion: 1\nConffiles:\n /etc/caf\xe9 01\n /etc/\xe9 02 obsolete".into(),
        );
        assert_eq!((stanza.field("Maintainer"), stanza.field("Version")), (None, Some("1")));
        let conffiles: Vec<_> = stanza.conffiles().map(|(path, flag)| (path.as_os_str().as_bytes(), flag)).collect();
        assert_eq!(conffiles, [(&b"/etc/caf\xe9"[..], ""), (b"/etc/\xe9", "obsolete")]);
        let read = |json: &str| serde_json::from_str::<Stanza>(json).unwrap();
        assert_eq!(read(&serde_json::to_string(&stanza).unwrap()), stanza);
        assert_eq!(read("\"Package: a\""), Stanza("Package: a".into()), "the form in all journals so far");
        assert_eq!(serde_json::to_string(&Stanza("Package: a".into())).unwrap(), "\"Package: a\"");
    }

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
        assert_eq!(conffiles, [(Path::new("/etc/a b"), ""), (Path::new("/etc/old"), "obsolete")]);
        assert!(stanza.replaces("a") && stanza.replaces("b") && stanza.replaces("libz") && !stanza.replaces("lib"));
    }

    #[test]
    fn file_names_are_those_of_apt_and_never_paths() {
        let stanza = stanza();
        assert_eq!(stanza.file_name().unwrap(), "libx+y_1%3a2.0~rc1+b1_armhf.deb");
        assert_eq!(stanza.key("arm64").unwrap().to_string(), "libx+y:armhf");
        assert_eq!(stanza.key("armhf").unwrap(), PackageKey::from_apt("libx+y"));
        let on_device = |text| PackageKey::from_apt(text).on_device("armhf").to_string();
        assert_eq!(["a", "a:armhf", "a:all", "a:native", "a:arm64"].map(on_device), ["a", "a", "a", "a", "a:arm64"]);
        for (field, bad) in [("Package", "../x"), ("Version", "1/2"), ("Version", ""), ("Package", "-x")] {
            let (text, good) = (str::from_utf8(&stanza.0).unwrap(), stanza.field(field).unwrap());
            let text = text.replace(&format!("{field}: {good}"), &format!("{field}: {bad}"));
            assert!(Stanza(text.into()).file_name().is_err(), "{field} {bad:?} was accepted");
        }
        assert!(Stanza("nonsense".into()).file_name().is_err());
    }

    #[test]
    fn states_are_classified() {
        let states = [
            // installed, known, finished, with files, unpacked, configured
            ("install ok installed", "ikfw c"),
            ("hold ok config-files", " kf   "),
            ("install ok not-installed", "  f   "),
            ("install ok unpacked", " k wu "),
            ("install ok half-configured", " k wu "),
            ("install ok triggers-awaited", " k wuc"),
            ("install ok triggers-pending", " k wuc"),
            ("install ok half-installed", " k w  "),
            ("install reinstreq installed", " k w c"),
            ("install reinstreq unpacked", " k w  "),
            ("", " k    "),
        ];
        for (status, expected) in states {
            let stanza = Stanza(format!("Package: a\nStatus: {status}").into());
            let found = [
                stanza.is_installed(),
                stanza.is_known(),
                stanza.is_finished(),
                stanza.has_files(),
                stanza.is_unpacked(),
                stanza.is_configured(),
            ];
            let shown: String = found.iter().zip("ikfwuc".chars()).map(|(is, c)| if *is { c } else { ' ' }).collect();
            assert_eq!(shown, expected, "{status}");
        }
    }

    #[test]
    fn essential_and_protected_packages_are_found() {
        for (field, expected) in
            [("Essential: yes", true), ("Protected: YES", true), ("Essential: no", false), ("X: yes", false)]
        {
            assert_eq!(Stanza(format!("Package: a\n{field}").into()).is_essential(), expected, "{field}");
        }
    }

    #[test]
    fn dependencies_are_those_of_both_fields() {
        let package = Stanza("Package: a\nDepends: b (>= 1) | c\nPre-Depends: d:any, e\nRecommends: f".into());
        let depends = |name: &&str| package.depends_on(name);
        assert_eq!(["b", "c", "d", "e", "f", "a", ""].iter().filter(|name| depends(name)).count(), 4);
        assert!(["b", "c", "d", "e"].iter().all(depends));
    }

    #[test]
    fn names_are_those_of_dpkg_and_a_missing_field_is_named_with_its_package() {
        assert_eq!(stanza().dpkg_name().unwrap(), "libx+y:armhf");
        let error =
            Stanza("Package: a\nVersion:\nArchitecture: all".into()).required("Version").unwrap_err().to_string();
        assert!(error.contains("\"Package: a\"") && error.contains("Version is missing"), "{error}");
    }
}
