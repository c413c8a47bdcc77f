//! Build directories of BitBake, and commands in them.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use host::command::run;
use host::status::Step;
use host::{cache, directory};
use xshell::{Cmd, Shell, cmd};

use crate::{Layer, Release};

/// Debian packages of the host that BitBake and the test layer need.
pub const HOST_PACKAGES: &[&str] = &[
    "apt-utils",
    "chrpath",
    "cmake",
    "cpio",
    "createrepo-c",
    "diffstat",
    "dnf",
    "file",
    "g++",
    "g++-aarch64-linux-gnu",
    "g++-arm-linux-gnueabihf",
    "gawk",
    "gcc-aarch64-linux-gnu",
    "gcc-arm-linux-gnueabihf",
    "locales",
    "lz4",
    "make",
    "mender-artifact",
    "openssl",
    "ninja-build",
    "patch",
    "perl",
    "pseudo",
    "qemu-user-static",
    "rpcsvc-proto",
    "rpm",
    "texinfo",
    "unzip",
    "wget",
    "xz-utils",
    "zstd",
];

/// The locale that BitBake requires.
const LOCALE: &str = "en_US.UTF-8";

/// A build directory for one release and one machine.
pub struct BuildDirectory<'a> {
    sh: &'a Shell,
    layer: &'a Layer,
    release: &'a Release,
    /// Its path.
    pub path: PathBuf,
    locales: PathBuf,
}

impl<'a> BuildDirectory<'a> {
    /// Makes the build directory `name` of `release`, with OE-Core and `layers`, and with `settings` in its
    /// `local.conf`.
    pub fn new(
        sh: &'a Shell,
        layer: &'a Layer,
        release: &'a Release,
        name: &str,
        layers: &[PathBuf],
        settings: &str,
    ) -> Result<Self> {
        let path = layer.scratch.join(&release.series).join(name);
        directory::remove(&path)?;
        let list: String = layers.iter().map(|layer| format!("    {} \\\n", layer.display())).collect();
        directory::write(
            &path.join("conf/bblayers.conf"),
            format!(
                "BBPATH = \"${{TOPDIR}}\"\nBBFILES ?= \"\"\nBBLAYERS ?= \" \\\n    {}/meta \\\n{list}\"\n",
                release.oe_core.display()
            ),
        )?;
        let downloads = layer.scratch.join("downloads");
        // Without a hash equivalence server, build directories share the results of their tasks.
        let local = format!(
            "DL_DIR = \"{}\"\nSSTATE_DIR = \"{}\"\nDEPLOY_DIR = \"${{TOPDIR}}/deploy\"\nBB_NO_NETWORK = \"1\"\n\
             BB_SERVER_TIMEOUT = \"0\"\nBB_SIGNATURE_HANDLER = \"OEBasicHash\"\nBB_HASHSERVE = \"\"\n{settings}",
            downloads.display(),
            state(sh, layer)?.display()
        );
        directory::write(&path.join("conf/local.conf"), &local)?;
        tools(layer)?;
        let locales = layer.scratch.join("locales");
        Ok(Self { sh, layer, release, path, locales })
    }

    /// Runs `command` in the directory, with the test's tools and BitBake first in PATH, and returns its output.
    pub fn run(&self, step: &Step, machine: &str, command: &[&str]) -> Result<String> {
        self.locales(step)?;
        let directories =
            [self.layer.scratch.join("tools"), self.release.oe_core.join("scripts"), self.release.bitbake.join("bin")];
        let inherited = env::var_os("PATH").unwrap_or_default();
        let path =
            env::join_paths(directories.into_iter().chain(env::split_paths(&inherited))).context("joining PATH")?;
        let _here = self.sh.push_dir(&self.path);
        let command = self
            .unprivileged()?
            .args(command)
            .env("PATH", path)
            .env("BUILDDIR", &self.path)
            .env("HOME", self.layer.scratch.join("home"))
            .env("LC_ALL", LOCALE)
            .env("LOCPATH", &self.locales)
            .env("MACHINE", machine)
            .env("BB_ENV_PASSTHROUGH_ADDITIONS", "LOCPATH MACHINE");
        run(step, command)
    }

    /// The work directory of the recipe `name`. BitBake's work directory has one level for the architecture. Older
    /// releases append the C library to the name of the directory tmp.
    pub fn work(&self, name: &str) -> Result<PathBuf> {
        let work = ["tmp/work", "tmp-glibc/work"].map(|directory| self.path.join(directory));
        let work = work.iter().find(|directory| directory.is_dir()).context("no work directory of BitBake")?;
        let architectures = directory::entries(work)?;
        let found = architectures.iter().map(|architecture| architecture.join(name)).find(|path| path.is_dir());
        let versions = directory::entries(&found.with_context(|| format!("no work directory of the recipe {name}"))?)?;
        versions.into_iter().next().with_context(|| format!("empty work directory of the recipe {name}"))
    }

    /// BitBake refuses to run as root. Root therefore runs it in a user namespace with another user ID. The files
    /// belong to root outside of it.
    fn unprivileged(&self) -> Result<Cmd<'a>> {
        let id = cmd!(self.sh, "id -u").quiet().read().context("reading the user ID failed")?;
        Ok(match id.as_str() {
            "0" => cmd!(self.sh, "unshare --map-user=1000 --map-group=1000 --"),
            _ => cmd!(self.sh, "env"),
        })
    }

    /// Makes the locale in a directory of the tests, because the host may not have it.
    fn locales(&self, step: &Step) -> Result<()> {
        let made = self.locales.join(LOCALE);
        if made.exists() {
            return Ok(());
        }
        fs::create_dir_all(&self.locales).with_context(|| format!("creating {} failed", self.locales.display()))?;
        run(step, cmd!(self.sh, "localedef --inputfile en_US --charmap UTF-8 {made}")).map(drop)
    }
}

/// Makes the directory with the tools that replace those of OE-Core, and with the host's compiler. BitBake has another
/// home directory, in which rustup's proxies find no toolchain.
fn tools(layer: &Layer) -> Result<()> {
    let directory = layer.scratch.join("tools");
    directory::empty(&directory)?;
    fs::create_dir_all(layer.scratch.join("home")).context("creating a home directory for BitBake failed")?;
    let compiler = ["rustc", "cargo"].map(|name| layer.toolchain.join(name));
    for tool in compiler.iter().chain(&scripts(layer)?) {
        link(tool, &directory.join(tool.file_name().unwrap_or_default()))?;
    }
    layer.opkg.iter().try_for_each(|opkg| link(opkg, &directory.join("opkg")))
}

/// The scripts that replace programs of OE-Core.
fn scripts(layer: &Layer) -> Result<Vec<PathBuf>> {
    directory::entries(&layer.tests.join("meta-debian-tools/scripts"))
}

fn link(tool: &Path, link: &Path) -> Result<()> {
    std::os::unix::fs::symlink(tool, link).with_context(|| format!("creating the symlink {} failed", link.display()))
}

/// BitBake's shared state cache. BitBake's keys depend on the recipes and not on the host's tools, so there is one
/// cache for each set of tools.
fn state(sh: &Shell, layer: &Layer) -> Result<PathBuf> {
    let format = "${Package} ${Version}\n";
    let host = cmd!(sh, "dpkg-query --show --showformat {format} {HOST_PACKAGES...}").quiet().read();
    let rustc = layer.toolchain.join("rustc");
    let rust = cmd!(sh, "{rustc} --version").quiet().read().context("reading the version of rustc failed")?;
    let mut parts =
        vec![host.context("reading package versions with dpkg-query failed")?.into_bytes(), rust.into_bytes()];
    for script in scripts(layer)? {
        parts.push(fs::read(&script).with_context(|| format!("reading {} failed", script.display()))?);
    }
    cache::entry("bitbake", &cache::key(parts.iter().map(Vec::as_slice))[..16], |_| Ok(()))
}
