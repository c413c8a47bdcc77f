//! A private apt: downloads packages of any release and architecture from the host's mirror. It installs nothing on the
//! host and changes none of its settings.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use xshell::{Cmd, Shell, cmd};

use crate::command::run;
use crate::directory;
use crate::status::Step;

/// The keys of Debian's archive.
pub const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A release and architecture of Debian, with package lists of its own.
pub struct Root<'a> {
    sh: &'a Shell,
    directory: PathBuf,
    architecture: String,
}

impl<'a> Root<'a> {
    /// Downloads the package lists of `release` (a code name) for `architecture` (Debian's name) into `directory`.
    pub fn new(sh: &'a Shell, step: &Step, directory: &Path, release: &str, architecture: &str) -> Result<Self> {
        let source =
            format!("Types: deb\nURIs: {}\nSuites: {release}\nComponents: main\nSigned-By: {KEYRING}\n", mirror(sh)?);
        Self::with_source(sh, step, directory, &source, architecture).with_context(|| {
            format!(
                "downloading Debian's package lists for {release} {architecture}: check the network; \
                     while the mirror is updated, try again later"
            )
        })
    }

    /// Downloads the package lists of `source`, in the format deb822, for `architecture` (Debian's name) into
    /// `directory`.
    ///
    /// # Errors
    /// A list is missing, or its signature is not valid.
    pub fn with_source(sh: &'a Shell, step: &Step, directory: &Path, source: &str, architecture: &str) -> Result<Self> {
        for part in ["lists/partial", "archives/partial", "sources"] {
            let part = directory.join(part);
            fs::create_dir_all(&part).with_context(|| format!("creating {} failed", part.display()))?;
        }
        fs::write(directory.join("sources/private.sources"), source)
            .context("writing the sources of the private apt failed")?;
        fs::write(directory.join("status"), "").context("writing an empty dpkg status failed")?;
        let root = Root { sh, directory: directory.to_owned(), architecture: architecture.to_owned() };
        // Without this option, a failed download of the lists is only a warning, and no package is found later.
        run(step, root.apt("apt-get").args(["-o", "APT::Update::Error-Mode=any", "update"]))?;
        Ok(root)
    }

    /// The available versions of `package`, newest first.
    pub fn versions(&self, package: &str) -> Result<Vec<String>> {
        let table = self.apt("apt-cache").args(["madison", package]).quiet().ignore_stderr().read()?;
        Ok(table.lines().filter_map(|line| line.split('|').nth(1)).map(|version| version.trim().to_owned()).collect())
    }

    /// Downloads `packages` (`name` or `name=version`) and returns their `.deb` files.
    pub fn download(&self, step: &Step, packages: &[&str]) -> Result<Vec<PathBuf>> {
        let archives = self.directory.join("archives");
        let _here = self.sh.push_dir(&archives);
        run(step, self.apt("apt-get").arg("download").args(packages))
            .with_context(|| format!("downloading {} for {}", packages.join(" "), self.architecture))?;
        packages.iter().map(|package| downloaded(&archives, package)).collect()
    }

    fn apt(&self, program: &str) -> Cmd<'a> {
        let directory = self.directory.display();
        let architecture = &self.architecture;
        let options = [
            format!("Dir::State::lists={directory}/lists"),
            format!("Dir::State::status={directory}/status"),
            format!("Dir::Cache={directory}"),
            "Dir::Etc::sourcelist=/dev/null".to_owned(),
            format!("Dir::Etc::sourceparts={directory}/sources"),
            format!("APT::Architecture={architecture}"),
            format!("APT::Architectures={architecture}"),
            "APT::Sandbox::User=".to_owned(), // the user _apt has no access to root's cache directory
        ];
        options.iter().fold(cmd!(self.sh, "{program}"), |command, option| command.args(["-o", option]))
    }
}

/// The file that `apt-get download` wrote for `package`: `name_version_arch.deb`, with the version's colon escaped.
fn downloaded(archives: &Path, package: &str) -> Result<PathBuf> {
    let name = package.split('=').next().unwrap_or(package);
    let version = package.split_once('=').map(|(_, version)| version.replace(':', "%3a"));
    let prefix = format!("{name}_{}", version.unwrap_or_default());
    let mut found = directory::entries(archives)?;
    found.retain(|path| {
        path.extension().is_some_and(|extension| extension == "deb")
            && path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&prefix))
    });
    found.pop().with_context(|| format!("no {prefix}*.deb in {} after apt-get download", archives.display()))
}

/// The mirror of Debian's main archive in the host's apt settings.
///
/// # Errors
/// apt has no such source, as on a derivative of Debian.
pub fn mirror(sh: &Shell) -> Result<String> {
    let format = "$(ORIGIN) $(LABEL) $(COMPONENT) $(REPO_URI)";
    let targets =
        cmd!(sh, "apt-get indextargets --format {format}").quiet().read().context("reading apt's sources failed")?;
    let mirror = targets.lines().find_map(|line| line.strip_prefix("Debian Debian main ")).map(str::to_owned);
    ensure!(
        mirror.is_some(),
        "no source for Debian's main archive: add one to /etc/apt/sources.list and run apt-get update"
    );
    Ok(mirror.unwrap_or_default())
}

/// The code name of the host's release.
pub fn codename() -> Result<String> {
    let release = fs::read_to_string("/etc/os-release").context("reading /etc/os-release failed")?;
    let name = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(name.context("no VERSION_CODENAME in /etc/os-release: use Debian 12 or 13")?.to_owned())
}
