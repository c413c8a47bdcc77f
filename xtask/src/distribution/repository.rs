//! An APT repository of packages, made by apt-ftparchive and signed by gpg. apt then reads it, as it would on a device.
//!
//! It has one suite, `stable`, with the component `main`. The file of the source contains the public key.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use flate2::{Compression, GzBuilder};
use host::apt::Root;
use host::command::run;
use host::directory;
use host::status::{Step, step};
use xshell::{Shell, cmd};

use super::signature::Signer;

/// The Debian packages of the programs that are used here.
pub const TOOLS: &[&str] = &["apt-utils"];

/// The URL of the repository in the file of the source, if the command line names no other.
pub const URL: &str = "https://mender-rust-modules.github.io/mender-rust-modules/apt";

/// The name of the file of the source, without its extension, and of the file with the key.
const NAME: &str = "mender-rust-modules";

/// The path of the signed release file in a repository.
pub const SIGNATURE: &str = "dists/stable/InRelease";

const SUITE: &str = "stable";
const COMPONENT: &str = "main";

/// A repository to be made.
pub struct Repository<'a> {
    /// Its directory. Existing content is removed.
    pub directory: &'a Path,
    /// Debian's names of its architectures.
    pub architectures: BTreeSet<&'a str>,
    /// Its packages.
    pub packages: Vec<&'a Path>,
    /// The URL in the file of the source.
    pub url: &'a str,
    /// The time of the release file in seconds since 1970.
    pub time: &'a str,
}

impl Repository<'_> {
    /// Makes the repository, and checks that apt reads it.
    pub fn make(&self, sh: &Shell, signer: &Signer) -> Result<()> {
        let context = || format!("making the APT repository {} failed", self.directory.display());
        let made = step(format!("making the APT repository {}", self.directory.display()), |step| {
            self.make_files(sh, step, signer).with_context(context)?;
            self.verify(sh, step)
                .with_context(|| format!("apt does not read the repository {}", self.directory.display()))
        });
        if made.is_err() {
            directory::remove(self.directory)?; // an incomplete repository must not be published
        }
        made
    }

    fn make_files(&self, sh: &Shell, step: &Step, signer: &Signer) -> Result<()> {
        directory::empty(self.directory)?;
        let pool = self.directory.join("pool");
        fs::create_dir_all(&pool).with_context(|| format!("creating {} failed", pool.display()))?;
        for package in &self.packages {
            let copy = pool.join(package.file_name().unwrap_or_default());
            fs::copy(package, &copy).with_context(|| format!("copying {} failed", package.display()))?;
        }
        let suite = self.directory.join("dists").join(SUITE);
        for architecture in &self.architectures {
            let list = self.list(sh, step, architecture)?;
            let directory = suite.join(COMPONENT).join(format!("binary-{architecture}"));
            let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
            gzip.write_all(list.as_bytes()).context("compressing the list of packages failed")?;
            let compressed = gzip.finish().context("compressing the list of packages failed")?;
            directory::write(&directory.join("Packages"), list)?;
            directory::write(&directory.join("Packages.gz"), compressed)?;
        }
        let release = self.release(sh, step, &suite)?;
        let path = suite.join("Release");
        directory::write(&path, release)?;
        signer.sign(step, &path, &suite.join("InRelease"))?;
        signer.detach_sign(step, &path, &suite.join("Release.gpg"))?;
        let key = signer.public_key(step)?;
        directory::write(&self.directory.join(format!("{NAME}.sources")), source(self.url, &key))?;
        directory::write(&self.directory.join(format!("{NAME}.asc")), key)
    }

    /// The list of the packages for `architecture`, sorted.
    fn list(&self, sh: &Shell, step: &Step, architecture: &str) -> Result<String> {
        let _here = sh.push_dir(self.directory);
        let list = cmd!(sh, "apt-ftparchive --arch {architecture} packages pool").env("LC_ALL", "C");
        Ok(sorted(&run(step, list)?))
    }

    /// The content of the release file, with the checksums of the lists in `suite`.
    fn release(&self, sh: &Shell, step: &Step, suite: &Path) -> Result<String> {
        let architectures: Vec<_> = self.architectures.iter().copied().collect();
        let at = format!("--date=@{}", self.time);
        let date = cmd!(sh, "date --utc {at}").arg("+%a, %d %b %Y %H:%M:%S UTC").env("LC_ALL", "C").quiet().read()?;
        let fields = [
            ("Origin", "Mender Rust Modules"),
            ("Label", "Mender Rust Modules"),
            ("Suite", SUITE),
            ("Codename", SUITE),
            ("Architectures", &architectures.join(" ")),
            ("Components", COMPONENT),
            ("Description", "Mender Update Modules in Rust"),
            ("Date", &date),
        ];
        let options = fields.map(|(field, value)| format!("APT::FTPArchive::Release::{field}={value}"));
        let command = cmd!(sh, "apt-ftparchive").args(options.iter().flat_map(|option| ["-o", option]));
        let command = command.arg("release").arg(suite).env("LC_ALL", "C");
        let release = run(step, command)?;
        ensure!(
            release.lines().any(|line| line == format!("Date: {date}")),
            "apt-ftparchive ignores the date {date}: use apt 2.6 or later"
        );
        Ok(release)
    }

    /// Checks with a private apt that the signature is valid and that every package is found.
    fn verify(&self, sh: &Shell, step: &Step) -> Result<()> {
        let path = self.directory.join(format!("{NAME}.sources"));
        let text = fs::read_to_string(&path).with_context(|| format!("reading {} failed", path.display()))?;
        let text = text.replace(&format!("URIs: {}\n", self.url), &format!("URIs: {}\n", file_uri(self.directory)));
        for architecture in &self.architectures {
            let directory = tempfile::tempdir().context("creating a directory for apt failed")?;
            let apt = Root::with_source(sh, step, directory.path(), &text, architecture)?;
            for (name, version) in self.packages_for(architecture) {
                let versions = apt.versions(&name)?;
                ensure!(versions.contains(&version), "no {name} {version}: it has the versions {versions:?}");
            }
        }
        Ok(())
    }

    /// The names and versions of the packages that can be installed on `architecture`.
    fn packages_for(&self, architecture: &str) -> Vec<(String, String)> {
        let parts = |path: &&Path| {
            let stem = path.file_stem()?.to_str()?;
            let [name, version, of] = stem.split('_').collect::<Vec<_>>().try_into().ok()?;
            [architecture, "all"].contains(&of).then(|| (name.to_owned(), version.to_owned()))
        };
        self.packages.iter().filter_map(parts).collect()
    }
}

/// The URI of the directory `path`. apt separates URIs by white space, and decodes percent signs.
fn file_uri(path: &Path) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-~".contains(&byte);
    let encoded = |byte: &u8| if is_plain(*byte) { char::from(*byte).into() } else { format!("%{byte:02x}") };
    let path: String = path.as_os_str().as_encoded_bytes().iter().map(encoded).collect();
    format!("file:{path}")
}

/// The paragraphs of `list` in the order of their first lines, the names of packages.
fn sorted(list: &str) -> String {
    let mut paragraphs: Vec<_> = list.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty()).collect();
    paragraphs.sort_unstable();
    paragraphs.iter().map(|paragraph| format!("{paragraph}\n\n")).collect()
}

/// The file of the source for apt, in deb822: it contains the public key.
fn source(url: &str, key: &str) -> String {
    let line = |line: &str| if line.is_empty() { " .\n".to_owned() } else { format!(" {line}\n") };
    let key: String = key.trim_end().lines().map(line).collect();
    format!("Types: deb\nURIs: {url}\nSuites: {SUITE}\nComponents: {COMPONENT}\nSigned-By:\n{key}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_sorted() {
        let list = "Package: b\nVersion: 1\n\nPackage: a\nVersion: 2\n\n";
        assert_eq!(sorted(list), "Package: a\nVersion: 2\n\nPackage: b\nVersion: 1\n\n");
        assert_eq!(sorted(""), "");
    }

    #[test]
    fn the_source_contains_the_key() {
        let key = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabc\n-----END PGP PUBLIC KEY BLOCK-----\n";
        let expected = "Types: deb\nURIs: https://example.org/apt\nSuites: stable\nComponents: main\nSigned-By:\n \
                        -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n -----END PGP PUBLIC KEY BLOCK-----\n";
        assert_eq!(source("https://example.org/apt", key), expected);
    }

    #[test]
    fn a_path_with_spaces_is_one_uri() {
        assert_eq!(file_uri(Path::new("/home/me/My 100%/apt_1.0-~")), "file:/home/me/My%20100%25/apt_1.0-~");
    }

    #[test]
    fn packages_of_an_architecture_are_its_own_and_those_of_all() {
        let packages = ["d/a_1_arm64.deb", "d/b_1_armhf.deb", "d/c_1_all.deb"].map(Path::new);
        let architectures = ["arm64", "armhf"].into();
        let repository =
            Repository { directory: Path::new(""), architectures, packages: packages.into(), url: "", time: "" };
        assert_eq!(repository.packages_for("arm64"), [("a".into(), "1".into()), ("c".into(), "1".into())]);
    }
}
