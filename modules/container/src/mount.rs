//! What a mount has for a source, and what of that would be lost with the next version.

use anyhow::{Result, bail, ensure};

use crate::carried::Carried;

/// A mount's source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A volume without a name, which goes with its container.
    Anonymous,
    /// A volume with one, which stays.
    Volume(String),
    /// A path of the device's.
    Host(String),
    /// A file or directory of the artifact's: its path without `.`; the empty one is all of them.
    Carried(String),
}

/// A mount in the short form, `SOURCE:TARGET:OPTIONS`.
#[derive(Debug, PartialEq, Eq)]
pub struct Short<'a> {
    pub source: &'a str,
    pub target: &'a str,
    pub options: &'a str,
}

impl<'a> Short<'a> {
    /// Takes `text` apart.
    ///
    /// # Errors
    /// When it has too many parts.
    pub fn parse(text: &'a str) -> Result<Self> {
        let parts: Vec<_> = text.split(':').collect();
        Ok(match parts[..] {
            [target] => Self { source: "", target, options: "" },
            [source, target] => Self { source, target, options: "" },
            [source, target, options] => Self { source, target, options },
            _ => bail!("the mount {text:?} is not SOURCE:TARGET:OPTIONS: write it so"),
        })
    }

    /// Whether containers may not write to it.
    pub fn is_read_only(&self) -> bool {
        self.options.split(',').any(|option| matches!(option, "ro" | "readonly"))
    }
}

/// What `source` is. One that is relative has to be a file or directory that the artifact carries, and to be mounted
/// read-only: what a container would write there would go with the next version.
///
/// # Errors
/// For every other one that is relative, and one whose meaning is not known before it starts.
pub fn source(source: &str, read_only: bool, carried: &Carried) -> Result<Source> {
    if source.is_empty() {
        return Ok(Source::Anonymous);
    }
    ensure!(
        !source.contains('$'),
        "the path {source:?} has a variable, whose value is not known before it starts: write the path itself"
    );
    ensure!(!source.starts_with('~'), "the path {source:?} depends on who starts it: write an absolute path");
    if source.starts_with('/') {
        return Ok(Source::Host(source.to_owned()));
    }
    if !source.starts_with('.') && !source.contains('/') {
        return Ok(Source::Volume(source.to_owned()));
    }
    self::carried(source, carried)?;
    ensure!(
        read_only,
        "the path {source:?} is mounted writable and goes with the next version: use a named volume for data, or mount \
         it read-only"
    );
    Ok(Source::Carried(plain(source)?))
}

/// The path that the artifact carries and calls `path`.
///
/// # Errors
/// When it carries none.
pub fn carried(path: &str, carried: &Carried) -> Result<String> {
    ensure!(
        !path.contains('$') && !path.starts_with('~'),
        "the path {path:?} is not known before it starts: write the path itself"
    );
    let plain = plain(path)?;
    ensure!(
        carried.has(&plain),
        "the path {path:?} is beside the definition and not in the artifact: put it into the archive that meta-data \
         name as archive, and for data that containers write use a named volume"
    );
    Ok(plain)
}

/// Options of an engine's `run` with their values: those that mount something, or read a file of the device's.
pub fn options(words: &[String]) -> Vec<(&str, &str)> {
    const LONG: [&str; 5] = ["--volume", "--mount", "--tmpfs", "--env-file", "--label-file"];
    let mut found = Vec::new();
    let mut words = words.iter().map(String::as_str).peekable();
    while let Some(word) = words.next() {
        if let Some((option, value)) = word.split_once('=').filter(|(option, _)| LONG.contains(option)) {
            found.push((option, value));
        } else if LONG.contains(&word) || word == "-v" {
            found.extend(words.next().map(|value| (word, value)));
        } else if let Some(value) = word.strip_prefix("-v").filter(|_| !word.starts_with("--")) {
            found.push(("-v", value.trim_start_matches('=')));
        }
    }
    found
}

/// Checks one of [`options`], and returns where it mounts something.
///
/// # Errors
/// When it mounts a path that is not absolute, or a volume without a name, or reads a file that is not absolute.
pub fn option(option: &str, value: &str, carried: &Carried) -> Result<Option<String>> {
    let (from, target) = match option {
        "--volume" | "-v" => {
            let short = Short::parse(value)?;
            (short.source.to_owned(), short.target.to_owned())
        }
        "--mount" => {
            let fields: Vec<_> =
                value.split(',').map(|field| field.split_once('=').unwrap_or((field, ""))).collect();
            let field = |names: &[&str]| {
                let found = fields.iter().find(|(name, _)| names.contains(name));
                found.map(|(_, value)| (*value).to_owned()).unwrap_or_default()
            };
            let target = field(&["target", "destination", "dst"]);
            let from = field(&["source", "src"]);
            match field(&["type"]).as_str() {
                "tmpfs" | "ramfs" | "devpts" | "image" | "glob" => return Ok(Some(target)),
                "bind" if !from.starts_with(['/', '.', '~', '$']) => (format!("./{from}"), target),
                _ => (from, target),
            }
        }
        "--tmpfs" => return Ok(value.split(':').next().map(str::to_owned)),
        _ => {
            ensure!(value.starts_with('/'), "the path {value:?} is not absolute: write an absolute path");
            return Ok(None);
        }
    };
    match source(&from, false, carried)? {
        Source::Anonymous => {
            bail!("the volume at {target:?} has no name, and goes with its container: give it one")
        }
        Source::Carried(_) => bail!("the path {from:?} is not absolute: name it among the volumes"),
        Source::Volume(_) | Source::Host(_) => Ok(Some(target)),
    }
}

/// `path` without what says nothing.
fn plain(path: &str) -> Result<String> {
    let parts: Vec<_> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    ensure!(!parts.contains(&".."), "the path {path:?} leads out of the project: write an absolute path");
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_relative_path_is_found() {
        let none = Carried::new("/nowhere".into(), 0);
        for relative in [
            ".", "./", "./data", "..", "../data", "data/x", "$PWD/d", "${PWD}/d", "~", "~/d", "./a/../b",
            ".hidden",
        ] {
            assert!(source(relative, true, &none).is_err(), "{relative} was taken");
        }
        assert_eq!(source("", false, &none).unwrap(), Source::Anonymous);
        assert_eq!(source("data", false, &none).unwrap(), Source::Volume("data".into()));
        assert_eq!(source("/srv/data", false, &none).unwrap(), Source::Host("/srv/data".into()));
    }

    #[test]
    fn short_mounts_are_taken_apart() {
        let all = Short::parse("./a:/b:z,ro").unwrap();
        assert_eq!((all.source, all.target, all.is_read_only()), ("./a", "/b", true));
        assert_eq!(Short::parse("/data").unwrap().source, "");
        assert!(!Short::parse("a:/b:rw").unwrap().is_read_only());
        assert!(Short::parse("a:b:c:d").is_err());
    }

    #[test]
    fn mounts_among_options_are_found() {
        let none = Carried::new("/nowhere".into(), 0);
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let check = |text: &str| {
            let words = words(text);
            options(&words)
                .into_iter()
                .map(|(name, value)| option(name, value, &none))
                .collect::<Result<Vec<_>>>()
        };
        for bad in [
            "-v ./d:/d",
            "-v=./d:/d",
            "-v./d:/d",
            "--volume=/data",
            "--volume d/e:/d",
            "--mount type=bind,source=d,target=/d",
            "--mount=type=volume,target=/d",
            "--env-file app.env",
            "--env-file=./app.env",
        ] {
            assert!(check(bad).is_err(), "{bad} was taken");
        }
        let good = "--privileged -v /d:/d -v data:/e --mount type=tmpfs,dst=/t --tmpfs=/u:size=1m --env-file /etc/e -it";
        let targets: Vec<_> = check(good).unwrap().into_iter().flatten().collect();
        assert_eq!(targets, ["/d", "/e", "/t", "/u"]);
    }
}
