//! Another client than the one in the image: its Debian packages, which replace that one.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use host::directory;
use xshell::{Shell, cmd};

use crate::client::{CLIENTS, Client};

/// The packages of a client.
#[derive(Debug)]
pub struct Packages {
    /// Its generation.
    pub client: &'static Client,
    /// The package with its command.
    pub main: PathBuf,
    /// The other packages.
    pub others: Vec<PathBuf>,
}

impl Packages {
    /// The packages in `directory` for `architecture` (Debian's name), and those for every architecture.
    ///
    /// # Errors
    /// No package has the command of a known client.
    pub fn find(sh: &Shell, directory: &Path, architecture: &str) -> Result<Self> {
        let (mut known, mut others) = (Vec::new(), Vec::new());
        for deb in directory::entries(directory)? {
            if deb.extension().is_none_or(|extension| extension != "deb") {
                continue;
            }
            let field = |name: &str| cmd!(sh, "dpkg-deb --field {deb} {name}").quiet().read();
            if ![architecture, "all"].contains(&field("Architecture")?.as_str()) {
                continue;
            }
            let name = field("Package")?;
            match CLIENTS.iter().find(|client| client.package == name) {
                Some(client) => known.push((client, deb)),
                None => others.push(deb),
            }
        }
        let names: Vec<_> = CLIENTS.iter().map(|client| client.package).collect();
        let names = names.join(" or ");
        match (known.pop(), known.len()) {
            (Some((client, main)), 0) => Ok(Self { client, main, others }),
            (None, _) => bail!("no package {names} for {architecture} in {}", directory.display()),
            _ => bail!("several packages {names} for {architecture} in {}: leave one", directory.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use mender_update_module_test::debian::Package;

    use super::*;

    #[test]
    fn the_client_is_that_of_the_packages() {
        let sh = Shell::new().unwrap();
        let temporary = sh.create_temp_dir().unwrap();
        let directory = temporary.path();
        let find = || Packages::find(&sh, directory, "arm64");
        let write = |file: &str, name: &str, architecture: &str| {
            let package = Package::new(name, "1").field("Architecture", architecture).build().unwrap();
            fs::write(directory.join(file), package).unwrap();
        };
        fs::write(directory.join("README"), "").unwrap();
        write("b.deb", "mender-auth", "all");
        write("c.deb", "mender-update", "armhf");
        let error = find().unwrap_err().to_string();
        assert!(error.contains("no package mender-client or mender-update for arm64 in /"), "{error}");
        write("d.deb", "mender-update", "arm64");
        let found = find().unwrap();
        assert_eq!((found.client.command, found.main), ("mender-update", directory.join("d.deb")));
        assert_eq!(found.others, [directory.join("b.deb")]);
        write("e.deb", "mender-client", "arm64");
        assert!(find().unwrap_err().to_string().contains("several packages"));
    }
}
