//! Sources of mounts, and those of them that would be lost with the next version.

use anyhow::{Result, bail, ensure};

use crate::artifact_files::ArtifactFiles;

/// The source of a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A volume without a name, which the engine removes with its container.
    Anonymous,
    /// A volume with a name, which is kept.
    Volume(String),
    /// A path on the device.
    Host(String),
    /// A file or directory of the artifact: its path without `.`; the empty one is the top directory.
    Artifact(String),
}

/// A mount in the short form, `SOURCE:TARGET:OPTIONS`.
#[derive(Debug, PartialEq, Eq)]
pub struct Short<'a> {
    pub source: &'a str,
    pub target: &'a str,
    pub options: &'a str,
}

impl<'a> Short<'a> {
    /// Splits `text`.
    ///
    /// # Errors
    /// When it has too many parts.
    pub fn parse(text: &'a str) -> Result<Self> {
        let parts: Vec<_> = text.split(':').collect();
        Ok(match parts[..] {
            [target] => Self { source: "", target, options: "" },
            [source, target] => Self { source, target, options: "" },
            [source, target, options] => Self { source, target, options },
            _ => bail!("invalid mount: {text:?}: use SOURCE:TARGET:OPTIONS"),
        })
    }

    pub fn is_read_only(&self) -> bool {
        self.options.split(',').any(|option| matches!(option, "ro" | "readonly"))
    }
}

/// Parses `source`. A relative path has to be a file or directory of the artifact, and be mounted read-only: what a
/// container writes there would be lost with the next version.
///
/// # Errors
/// For any other relative path, and a path with a variable or `~`.
pub fn source(source: &str, read_only: bool, files: &ArtifactFiles) -> Result<Source> {
    if source.is_empty() {
        return Ok(Source::Anonymous);
    }
    ensure!(!source.contains('$'), "path {source:?}: it has a variable: write the path without one");
    ensure!(!source.starts_with('~'), "path {source:?}: it depends on the user: write an absolute path");
    if source.starts_with('/') {
        files.record_host_path(source);
        return Ok(Source::Host(source.to_owned()));
    }
    if !source.starts_with('.') && !source.contains('/') {
        return Ok(Source::Volume(source.to_owned()));
    }
    let path = artifact_path(source, files)?;
    ensure!(
        read_only,
        "path {source:?}: it is mounted writable, and is lost with the next version: use a named volume \
         for data, or mount it read-only"
    );
    Ok(Source::Artifact(path))
}

/// The path of the artifact's file or directory `path`, without `.`.
///
/// # Errors
/// When the artifact does not have it.
pub fn artifact_path(path: &str, files: &ArtifactFiles) -> Result<String> {
    ensure!(
        !path.contains('$') && !path.starts_with('~'),
        "path {path:?}: it has a variable or '~': write the path without one"
    );
    let plain = normalize(path)?;
    ensure!(
        files.has(&plain),
        "path {path:?}: not in the artifact: add it to the archive that the meta-data name as \
         archive, or, for data that containers write, use a named volume"
    );
    Ok(plain)
}

/// The options of an engine's `run` that mount something or read a file, with their values.
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

/// Checks one of [`options`], and returns its mount target, if it has one.
///
/// # Errors
/// For a path that is not absolute, and a volume without a name.
pub fn option(option: &str, value: &str, files: &ArtifactFiles) -> Result<Option<String>> {
    let (from, target) = match option {
        "--volume" | "-v" => {
            let short = Short::parse(value)?;
            (short.source.to_owned(), short.target.to_owned())
        }
        "--mount" => match mount_option(value)? {
            (Some(from), target) => (from, target),
            (None, target) => return Ok(Some(target)),
        },
        "--tmpfs" => return Ok(value.split(':').next().map(str::to_owned)),
        _ => {
            ensure!(value.starts_with('/'), "path {value:?}: it is relative: write an absolute path");
            files.record_host_path(value);
            return Ok(None);
        }
    };
    match source(&from, false, files)? {
        Source::Anonymous => {
            bail!("volume at {target:?}: it has no name, and is lost with its container: give it a name")
        }
        Source::Artifact(_) => bail!("path {from:?}: it is in an option: move the mount to volumes"),
        Source::Volume(_) | Source::Host(_) => Ok(Some(target)),
    }
}

/// Refuses the mount of an image: it would not be pinned, so that a rollback would mount another version of it.
///
/// # Errors
/// For `mount_type` `image`: with the remedy.
pub fn refuse_image(mount_type: &str) -> Result<()> {
    ensure!(
        mount_type != "image",
        "a mount of an image is not supported, because a rollback could not restore it: copy the files into the image \
         of the service"
    );
    Ok(())
}

/// Source and target of the value of `--mount`; no source where the type needs none.
fn mount_option(value: &str) -> Result<(Option<String>, String)> {
    let fields: Vec<_> = value.split(',').map(|field| field.split_once('=').unwrap_or((field, ""))).collect();
    let field = |names: &[&str]| {
        let found = fields.iter().find(|(name, _)| names.contains(name));
        found.map(|(_, value)| (*value).to_owned()).unwrap_or_default()
    };
    let target = field(&["target", "destination", "dst"]);
    let from = field(&["source", "src"]);
    let mount_type = field(&["type"]);
    refuse_image(&mount_type)?;
    Ok(match mount_type.as_str() {
        "tmpfs" | "ramfs" | "devpts" | "glob" => (None, target),
        "bind" if !from.starts_with(['/', '.', '~', '$']) => (Some(format!("./{from}")), target),
        _ => (Some(from), target),
    })
}

/// `path` without `.` and repeated slashes.
fn normalize(path: &str) -> Result<String> {
    let parts: Vec<_> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    ensure!(!parts.contains(&".."), "path {path:?}: it leads out of the project: write an absolute path");
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_are_refused_in_every_form() {
        let none = ArtifactFiles::new("/nowhere".into(), 0);
        for relative in
            [".", "./", "./data", "..", "../data", "data/x", "$PWD/d", "${PWD}/d", "~", "~/d", "./a/../b", ".hidden"]
        {
            assert!(source(relative, true, &none).is_err(), "{relative} was accepted");
        }
        assert_eq!(source("", false, &none).unwrap(), Source::Anonymous);
        assert_eq!(source("data", false, &none).unwrap(), Source::Volume("data".into()));
        assert_eq!(source("/srv/data", false, &none).unwrap(), Source::Host("/srv/data".into()));
    }

    #[test]
    fn short_mounts_are_parsed() {
        let all = Short::parse("./a:/b:z,ro").unwrap();
        assert_eq!((all.source, all.target, all.is_read_only()), ("./a", "/b", true));
        assert_eq!(Short::parse("/data").unwrap().source, "");
        assert!(!Short::parse("a:/b:rw").unwrap().is_read_only());
        assert!(Short::parse("a:b:c:d").is_err());
    }

    #[test]
    fn mounts_among_options_are_found() {
        let none = ArtifactFiles::new("/nowhere".into(), 0);
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let check = |text: &str| {
            let words = words(text);
            options(&words).into_iter().map(|(name, value)| option(name, value, &none)).collect::<Result<Vec<_>>>()
        };
        for bad in [
            "-v ./d:/d",
            "-v=./d:/d",
            "-v./d:/d",
            "--volume=/data",
            "--volume d/e:/d",
            "--mount type=bind,source=d,target=/d",
            "--mount=type=volume,target=/d",
            "--mount type=image,source=localhost/a:1,target=/d",
            "--env-file app.env",
            "--env-file=./app.env",
        ] {
            assert!(check(bad).is_err(), "{bad} was accepted");
        }
        let good = "--privileged -v /d:/d -v data:/e --mount type=tmpfs,dst=/t --tmpfs=/u:size=1m \
                    --env-file /etc/e -it";
        let targets: Vec<_> = check(good).unwrap().into_iter().flatten().collect();
        assert_eq!(targets, ["/d", "/e", "/t", "/u"]);
    }
}
