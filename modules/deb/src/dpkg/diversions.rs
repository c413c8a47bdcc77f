//! dpkg's diversions.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const DIVERSIONS: &str = "/var/lib/dpkg/diversions";

/// Files that dpkg installs under another path, because another package or the administrator needs their own.
pub struct Diversions(Vec<Diversion>);

/// One diversion.
pub struct Diversion {
    pub from: PathBuf,
    pub to: PathBuf,
    /// The package that has made it; `:` for the administrator.
    pub owner: String,
}

impl Diversions {
    /// Reads dpkg's file of diversions.
    pub fn read() -> Result<Self> {
        match fs::read(DIVERSIONS) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self(Vec::new())),
            Err(error) => Err(error).with_context(|| format!("reading {DIVERSIONS} failed")),
        }
    }

    /// Three lines each: from, to, and the owner.
    pub fn parse(text: &[u8]) -> Self {
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let lines: Vec<_> = text.split(|byte| *byte == b'\n').collect();
        let diversions = lines.chunks_exact(3).map(|lines| Diversion {
            from: OsStr::from_bytes(lines[0]).into(),
            to: OsStr::from_bytes(lines[1]).into(),
            owner: String::from_utf8_lossy(lines[2]).into_owned(), // the name of a package, which is ASCII
        });
        Self(diversions.collect())
    }

    pub fn all(&self) -> &[Diversion] {
        &self.0
    }

    /// The path that dpkg installs the file `path` of `package` under.
    pub fn installed_path<'a>(&'a self, path: &'a Path, package: &str) -> &'a Path {
        let diversion = self.0.iter().find(|diversion| diversion.from == path && diversion.owner != package);
        diversion.map_or(path, |diversion| &diversion.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_device::{error, on_device, write};

    #[test]
    fn a_file_is_diverted_except_for_the_owner_of_the_diversion() {
        let diversions = Diversions::parse(b"/bin/sh\n/bin/sh.distrib\ndash\n/etc/x\n/etc/x.local\n:\n/half\n");
        let path = |path, name| diversions.installed_path(Path::new(path), name).to_owned();
        assert_eq!(path("/bin/sh", "bash"), Path::new("/bin/sh.distrib"));
        assert_eq!(path("/bin/sh", "dash"), Path::new("/bin/sh"));
        assert_eq!(path("/etc/x", "any"), Path::new("/etc/x.local"));
        assert_eq!(path("/half", "any"), Path::new("/half"));
    }

    #[test]
    fn no_file_of_diversions_is_none() {
        on_device(|| {
            assert!(Diversions::read().unwrap().all().is_empty());
            write(DIVERSIONS, "/srv/a\n/srv/b\n:\n");
            let diversions = Diversions::read().unwrap();
            let [diversion] = diversions.all() else { panic!("{}", diversions.all().len()) };
            assert_eq!((diversion.from.as_path(), diversion.to.as_path()), (Path::new("/srv/a"), Path::new("/srv/b")));
            assert_eq!(diversion.owner, ":");
            fs::remove_file(DIVERSIONS).unwrap();
            fs::create_dir(DIVERSIONS).unwrap();
            assert!(error(Diversions::read()).contains(DIVERSIONS));
        });
    }
}
