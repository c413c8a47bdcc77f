//! `cargo xtask dist`: everything that a release publishes: packages, an APT repository of them, archives of
//! executables, the Yocto layer, checksums, and signatures.

pub mod archive;
mod check;
mod metapackage;
pub mod repository;
mod scan;
pub mod signature;

use anyhow::Result;
use clap::Args;
use host::directory;
use host::status::step;
use xshell::Shell;

use crate::dist::modules::{APT, COLLECTION, SUMS};
use crate::dist::{self, Built, Dist};
use crate::needs::Needs;
use crate::target::{TARGETS, Target};
use repository::Repository;
use signature::Signer;

/// Writes all files of a release to dist/: packages, an APT repository, archives, checksums, signatures
///
/// Takes 4 to 9 minutes on 2 cores the first time, 20 seconds when nothing has changed. Packages of the same sources
/// that another work tree has built are taken from the cache directory. --check takes 15 minutes.
#[derive(Args, Default)]
pub struct Distribution {
    #[command(flatten)]
    dist: Dist,
    /// Signs the repository and SHA256SUMS with this key of gpg [default: a throw-away key]
    #[arg(long, value_name = "ID")]
    signing_key: Option<String>,
    /// Names this URL of the repository in its file for apt's sources [default: the project's]
    #[arg(long, value_name = "URL")]
    apt_url: Option<String>,
    /// Builds the last commit twice, in other directories and environments, compares the files, and scans the
    /// executables
    #[arg(long)]
    check: bool,
    /// Whether what is made of the packages is not written to dist/, which may have a signed release.
    #[arg(skip)]
    is_trial: bool,
}

impl Distribution {
    /// The command for the packages of `dist`, as a test: a signed repository in `dist/` is not replaced.
    pub fn trial(dist: Dist) -> Self {
        Self { dist, is_trial: true, ..Self::default() }
    }

    /// The command for a release that is signed with `signing_key`, and whose APT repository has the URL `apt_url`.
    pub fn signed(signing_key: Option<String>, apt_url: Option<String>) -> Self {
        Self { signing_key, apt_url, ..Self::default() }
    }

    /// The options of the command line that choose what a build makes.
    fn options(&self) -> Vec<&str> {
        let url = self.apt_url.iter().flat_map(|url| ["--apt-url", url]);
        self.dist.options().into_iter().chain(url).collect()
    }

    /// The requirements of the command.
    pub fn needs(&self, sh: &Shell) -> Result<Needs> {
        let check = if self.check { check::TOOLS } else { &[] };
        Ok(self.dist.needs(sh)?.and(Needs::packages(&[repository::TOOLS, signature::TOOLS, check].concat())))
    }

    /// Updates `dist/`, prints its content as a table, and returns a summary.
    pub fn run(mut self, sh: &Shell) -> Result<String> {
        // What is signed for users is built from its sources.
        self.dist.rebuild |= self.signing_key.is_some();
        if self.check {
            self.needs(sh)?.provide(sh)?;
            return check::check(sh, &self);
        }
        if self.signing_key.is_some() {
            self.dist.require_libc_of_a_release(sh)?;
        }
        // All requirements at once: a user who cannot install them must not meet the last ones after the build.
        let others = Needs::packages(&[repository::TOOLS, signature::TOOLS, dist::TOOLS].concat());
        let mut built = self.dist.build(sh, others)?;
        if self.is_trial {
            built.out = built.workspace.target.join("trial");
            directory::empty(&built.out)?;
        }
        let signer = match &self.signing_key {
            Some(key) => Signer::of_user(sh, key, &built.epoch)?,
            None => Signer::throw_away(sh, &built.epoch)?,
        };
        self.complete(sh, &built, &signer)?;
        if signer.is_throw_away() && !self.is_trial {
            eprintln!(
                "warning: signed with a throw-away key: dist/{APT} and dist/{SUMS}: use --signing-key ID for a release"
            );
        }
        Ok(format!("{} packages", built.packages.len() + 1))
    }

    /// Makes everything that is made of packages.
    fn complete(&self, sh: &Shell, built: &Built, signer: &Signer) -> Result<()> {
        let metapackage = metapackage::make(sh, built)?;
        let mut rows = vec![built.row(COLLECTION, "all", &metapackage)?];
        let has = |target: &&Target| built.packages.iter().any(|(of, _)| of == target);
        let targets: Vec<&Target> = TARGETS.iter().filter(has).collect();
        for target in &targets {
            rows.push(built.row(COLLECTION, target.debian, &archive::executables(sh, built, target)?)?);
        }
        if self.dist.is_complete() {
            rows.push(built.row("meta-rust-modules", "layer", &archive::layer(sh, built)?)?);
        } else {
            eprintln!(
                "      no archive of the Yocto layer: it needs the packages of all architectures and --libc auto"
            );
        }
        let directory = built.out.join(APT);
        let modules = built.packages.iter().map(|(_, package)| package.as_path());
        let repository = Repository {
            directory: &directory,
            architectures: targets.iter().map(|target| target.debian).collect(),
            packages: modules.chain([metapackage.as_path()]).collect(),
            url: self.apt_url.as_deref().unwrap_or(repository::URL),
            time: &built.epoch,
        };
        repository.make(sh, signer)?;
        rows.push(built.row("APT repository", "signature", &directory.join(repository::SIGNATURE))?);
        dist::sums(&built.out)?;
        let sums = built.out.join(SUMS);
        let signature = built.out.join(format!("{SUMS}.asc"));
        step(format!("signing {SUMS}"), |step| signer.detach_sign(step, &sums, &signature))?;
        rows.push(built.row("checksums", "", &sums)?);
        built.print(&rows)
    }
}
