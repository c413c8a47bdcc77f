//! The packages of `cargo xtask dist`: static executables of every module for every target, their Debian packages, and
//! source archives.

mod build;
mod c_library;
mod cargo_home;
pub mod copyright;
mod copyright_holders;
mod cyclonedx;
mod debian_rust;
pub mod inputs;
mod job;
pub mod licences;
pub mod linked;
pub mod modules;
mod package;
mod package_cache;
mod processor;
mod record;
pub mod release;
pub mod rust_source;
mod sbom;
pub mod source;
mod table;
mod toolchain;
pub mod tools;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::Args;
use host::command::shell_in;
use host::pool::{both, side_by_side};
use host::{cache, packages};
use xshell::Shell;

use crate::needs::Needs;
use crate::target::{self, TARGETS, Target};
use inputs::{Inputs, SHALLOW, is_shallow};
use job::{Job, stale};
use linked::Linked;
use modules::{Module, Workspace};
use package::Packager;
pub use package::TOOLS;
use package_cache::PackageCache;
use record::Content;
use rust_source::Active;
use source::Source;
use table::Sizes;
pub use table::{Row, released, sums};
use toolchain::{Choice, Toolchain};

/// Builds the modules and writes their Debian packages to dist/
#[derive(Args, Default)]
pub struct Dist {
    /// Builds for this architecture, arm64, armhf or amd64; may be repeated [default: all]
    #[arg(long, value_name = "ARCH", value_parser = target::find)]
    arch: Vec<&'static Target>,
    /// Links this C library: musl or glibc; auto: musl for arm64 and amd64 if rustup has the target, else glibc
    #[arg(long, value_name = "LIBC", default_value = "auto", hide_possible_values = true)]
    libc: Choice,
    /// Builds again also what another work tree of the same sources has built: packages in the cache directory
    #[arg(long)]
    pub rebuild: bool,
}

impl Dist {
    /// The command for the packages of `targets`.
    pub fn of(targets: &[&'static Target]) -> Self {
        Self { arch: targets.to_vec(), ..Self::default() }
    }

    /// The requirements of the command. They depend on the C library, so rustup adds missing musl targets first.
    pub fn needs(&self, sh: &Shell) -> Result<Needs> {
        let targets = self.targets();
        toolchain::add_musl(sh, &targets, self.libc)?;
        let active = Active::find(sh)?;
        let compiling = targets.iter().flat_map(|target| target.needs(toolchain::libc(&active, target, self.libc)));
        Ok(Needs::packages(&compiling.collect::<Vec<_>>()).and(Needs::packages(TOOLS)))
    }

    fn targets(&self) -> Vec<&'static Target> {
        TARGETS.iter().filter(|row| self.arch.is_empty() || self.arch.contains(row)).collect()
    }

    /// Fails if the C library of a target is not that of a release, for example because rustup could not download it.
    pub fn require_libc_of_a_release(&self, sh: &Shell) -> Result<()> {
        let targets = self.targets();
        toolchain::add_musl(sh, &targets, self.libc)?;
        let active = Active::find(sh)?;
        for target in targets {
            let libc = toolchain::libc(&active, target, self.libc);
            ensure!(
                self.libc != Choice::Auto || libc == target.libc,
                "a release for {} is linked with {}: run rustup target add {} and rustup component add rust-src",
                target.debian,
                target.libc.name(),
                target.triple(target.libc)
            );
        }
        Ok(())
    }

    /// Whether packages are made for all architectures, with the C library of a release.
    pub fn is_complete(&self) -> bool {
        self.targets().len() == TARGETS.len() && self.libc == Choice::Auto
    }

    /// The options of the command line that choose the packages.
    pub fn options(&self) -> Vec<&'static str> {
        let architectures = self.arch.iter().flat_map(|target| ["--arch", target.debian]);
        architectures.chain(["--libc", self.libc.name()]).collect()
    }

    /// Updates the packages in `dist/`, prints them as a table, and returns every package with its target.
    pub fn run(self, sh: &Shell) -> Result<Vec<(&'static Target, PathBuf)>> {
        let built = self.build(sh, Needs::default())?;
        built.print(&[])?;
        Ok(built.packages)
    }

    /// Updates the packages in `dist/`. Installs `others`, which the caller needs, together with its own requirements.
    pub fn build(&self, sh: &Shell, others: Needs) -> Result<Built> {
        let workspace = modules::workspace(sh)?;
        let out = workspace.root.join("dist");
        let chosen = self.targets();
        let jobs = Job::all(&out, &workspace, &chosen);
        let inputs = Inputs::read(sh, &workspace.root)?;
        let is_stale = !stale(sh, &workspace, &inputs, &jobs, self.libc, self.rebuild)?.is_empty();
        let needs = if is_stale { self.needs(sh)?.and(others) } else { others };
        needs.check(sh)?;
        let locks = lock(&workspace)?;
        let inputs = Inputs::read(sh, &workspace.root)?;
        let stale = stale(sh, &workspace, &inputs, &jobs, self.libc, self.rebuild)?;
        if is_shallow(sh)? {
            eprintln!("note: {SHALLOW}");
        }
        if !stale.is_empty() {
            // Everything that is made of the packages is outdated.
            workspace.collections().try_for_each(|name| remove(&out.join(name)))?;
            self.update(sh, &workspace, &inputs, &stale, &needs)?;
        } else {
            needs.provide(sh)?;
        }
        let sources = write_sources(sh, &workspace, &out)?;
        remove_outdated(&out, &workspace, &sources)?;
        self.remove_other_inputs(sh, &workspace, &inputs)?;
        sums(&out)?;
        let rows = table::rows(&workspace, &jobs, &sources)?;
        let sizes = table::sizes(&workspace, &jobs)?;
        let packages = jobs.into_iter().map(|job| (job.target, job.deb)).collect();
        Ok(Built { packages, sources, out, epoch: inputs.epoch, workspace, rows, sizes, _locks: locks })
    }

    /// Takes the packages of the jobs `stale` from the cache or builds them, and installs the requirements `needs`
    /// meanwhile.
    fn update(&self, sh: &Shell, workspace: &Workspace, inputs: &Inputs, stale: &[&Job], needs: &Needs) -> Result<()> {
        for module in workspace.modules.iter().chain(&workspace.tools) {
            package::check_version(workspace, module)?;
            package::check_assets(workspace, module)?;
        }
        let targets: Vec<&'static Target> =
            TARGETS.iter().filter(|row| stale.iter().any(|job| job.target == *row)).collect();
        let directory = sh.current_dir();
        // Debian's packages come from the network and are unpacked, while the toolchains use the processors. They are
        // needed when the executables are linked.
        let tools = |sh: &Shell| {
            let (installed, auditable) = both(|| needs.provide(&shell_in(&directory)?), || tools::cargo_auditable(sh));
            installed.and(auditable)
        };
        let (toolchains, auditable) = toolchain::provide(sh, &workspace.target, &targets, self.libc, tools)?;
        fs::create_dir_all(workspace.root.join("dist")).context("creating the directory dist failed")?;
        let cached = PackageCache::of_user()?;
        let key = |job: &Job| -> Result<_> { Ok(inputs.key(toolchain_of(&toolchains, job.target)?, job.target)) };
        let mut missing = Vec::new();
        for job in stale {
            if self.rebuild || !cached.restore(&workspace.target, job.files(), &key(job)?)? {
                missing.push(*job);
            }
        }
        if missing.len() < stale.len() {
            eprintln!("      {} of {} packages are in the cache", stale.len() - missing.len(), stale.len());
        }
        if !missing.is_empty() {
            make(sh, workspace, inputs, &missing, &toolchains, &auditable)?;
            missing.iter().try_for_each(|job| cached.store(&workspace.target, job.files(), &key(job)?))?;
        }
        Ok(())
    }

    /// Removes the packages for other targets that were made of other inputs than the current ones.
    fn remove_other_inputs(&self, sh: &Shell, workspace: &Workspace, inputs: &Inputs) -> Result<()> {
        let chosen = self.targets();
        let others: Vec<_> = TARGETS.iter().filter(|target| !chosen.contains(target)).collect();
        let out = workspace.root.join("dist");
        let jobs = Job::all(&out, workspace, &others);
        let stale = stale(sh, workspace, inputs, &jobs, self.libc, false)?;
        stale.iter().flat_map(|job| job.files()).try_for_each(remove)
    }
}

/// The packages in `dist/`, which no other process changes as long as this value exists.
pub struct Built {
    /// Every package with its target.
    pub packages: Vec<(&'static Target, PathBuf)>,
    /// The source archives.
    pub sources: Vec<PathBuf>,
    /// The directory `dist/`.
    pub out: PathBuf,
    /// The time of the last commit in seconds since 1970, which is the time of all files.
    pub epoch: String,
    /// The work tree.
    pub workspace: Workspace,
    rows: Vec<Row>,
    sizes: Sizes,
    _locks: [File; 2],
}

impl Built {
    /// A row for the table: the file at `path`.
    pub fn row(&self, name: &str, architecture: &str, path: &Path) -> Result<Row> {
        table::row(&self.workspace, name, architecture, path)
    }

    /// Prints the packages and `others` as one table, and the sizes of executables.
    ///
    /// # Errors
    /// The executables are too large together.
    pub fn print(&self, others: &[Row]) -> Result<()> {
        print!("{}", table::render(&[&self.rows[..], others].concat()));
        self.sizes.check()
    }
}

/// The time of the last commit that changed a package, in seconds since 1970.
pub fn epoch(sh: &Shell) -> Result<String> {
    Ok(Inputs::read(sh, &modules::workspace(sh)?.root)?.epoch)
}

/// Writes the source archives of all modules to `out`, without building anything, and returns their paths.
pub fn sources(sh: &Shell, out: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(out).with_context(|| format!("creating {} failed", out.display()))?;
    write_sources(sh, &modules::workspace(sh)?, out)
}

/// Builds the server of the test images for `target`, and returns its path. It is static, as the modules are, because
/// the images contain no other file.
pub fn test_server(sh: &Shell, target: &'static Target) -> Result<PathBuf> {
    executable(sh, target, "tiny-http")
}

/// The executable of the package `name` in the work tree of `sh` for `target`, built like the modules.
pub fn executable(sh: &Shell, target: &'static Target, name: &str) -> Result<PathBuf> {
    let package = || Module { name: name.into(), version: String::new(), debian: String::new() };
    let workspace = Workspace { modules: vec![package()], tools: Vec::new(), ..modules::workspace(sh)? };
    toolchain::add_musl(sh, &[target], Choice::Auto)?;
    let libc = toolchain::libc(&Active::find(sh)?, target, Choice::Auto);
    packages::ensure(sh, &target.needs(libc).collect::<Vec<_>>())?;
    let _locks = lock(&workspace)?;
    let (toolchains, ()) = toolchain::provide(sh, &workspace.target, &[target], Choice::Auto, |_| Ok(()))?;
    build::all(sh, &workspace, &toolchains, None)?;
    Ok(toolchain_of(&toolchains, target)?.executable(&workspace, &package(), target))
}

/// Locks `dist/` of the work tree and the directory of build results, until the value is dropped. Two processes would
/// overwrite each other's incomplete packages in the one, and the compiler's directory in the other; work trees can
/// share it.
fn lock(workspace: &Workspace) -> Result<[File; 2]> {
    Ok([cache::lock(&workspace.root.join("target/dist.lock"))?, cache::lock(&workspace.target.join("dist.lock"))?])
}

/// The number of packages that are made in parallel. cargo-deb uses one processor.
const PACKAGERS: usize = 2;

/// Builds and packages `jobs`, with the cargo-auditable at the path `auditable`.
fn make(
    sh: &Shell,
    workspace: &Workspace,
    inputs: &Inputs,
    jobs: &[&Job],
    toolchains: &[(&'static Target, Toolchain)],
    auditable: &Path,
) -> Result<()> {
    let linked = linked(sh, workspace, jobs)?;
    let directory = sh.current_dir();
    // The last executables leave one processor idle, and cargo-deb is not needed before they are complete.
    let (cargo_deb, built) =
        both(|| tools::cargo_deb(&shell_in(&directory)?), || build::all(sh, workspace, toolchains, Some(auditable)));
    built?;
    let packager = Packager { workspace, inputs, cargo_deb: cargo_deb? };
    // The largest packages first: the last one is made by one processor.
    let mut ordered: Vec<_> = jobs.iter().zip(&linked).collect();
    ordered.sort_by_key(|(job, _)| job.module.is_update_module());
    let made = side_by_side(PACKAGERS, &ordered, |(job, linked)| {
        let sh = &shell_in(&directory)?;
        let toolchain = toolchain_of(toolchains, job.target)?;
        if let Some(processor) = &job.target.processor {
            processor::start(sh, &toolchain.executable(workspace, job.module, job.target), processor)?;
        }
        packager.make(sh, job, linked, toolchain)
    });
    made.into_iter().collect::<Result<()>>()?;
    package::lint(jobs)?;
    ensure!(
        Inputs::read(sh, &workspace.root)?.identity() == inputs.identity(),
        "a file of the work tree was changed during the build: run the command again"
    );
    // A package that lintian rejects has no record, and the next run makes it again.
    for job in jobs {
        let toolchain = toolchain_of(toolchains, job.target)?;
        let executable = toolchain.executable(workspace, job.module, job.target);
        let size = fs::metadata(&executable).with_context(|| format!("reading {} failed", executable.display()))?.len();
        let content = Content { size, libc: toolchain.libc.name().to_owned() };
        record::write(&workspace.target, job.files(), &inputs.key(toolchain, job.target), &content)?;
    }
    Ok(())
}

/// The linked crates of the module of each of `jobs`. They are read once for each module.
fn linked(sh: &Shell, workspace: &Workspace, jobs: &[&Job]) -> Result<Vec<Arc<Linked>>> {
    let mut known: BTreeMap<&str, Arc<Linked>> = BTreeMap::new();
    let mut all = Vec::new();
    for job in jobs {
        let name = job.module.name.as_str();
        if !known.contains_key(name) {
            known.insert(name, Arc::new(Linked::of(sh, workspace, job.module)?));
        }
        all.extend(known.get(name).cloned());
    }
    Ok(all)
}

fn toolchain_of<'a>(toolchains: &'a [(&Target, Toolchain)], target: &Target) -> Result<&'a Toolchain> {
    let found = toolchains.iter().find(|(row, _)| *row == target);
    Ok(&found.with_context(|| format!("no toolchain for {}", target.debian))?.1)
}

/// Writes the source archives of all modules, and returns their paths in the order of the modules.
fn write_sources(sh: &Shell, workspace: &Workspace, out: &Path) -> Result<Vec<PathBuf>> {
    let write = |module| {
        let source = Source::of(sh, workspace, module)?;
        let path = out.join(source.file_name());
        fs::write(&path, source.archive()?).with_context(|| format!("writing {} failed", path.display()))?;
        Ok(path)
    };
    workspace.modules.iter().map(write).collect()
}

/// Removes the files of earlier versions and of removed modules, so that `dist/` has only the files of this work tree.
fn remove_outdated(out: &Path, workspace: &Workspace, sources: &[PathBuf]) -> Result<()> {
    let all = workspace.packaged(&TARGETS.iter().collect::<Vec<_>>()).into_iter();
    let packages = all.flat_map(|(module, target)| module.file_names(target)).chain(workspace.collections());
    let known: Vec<PathBuf> = packages.map(|name| out.join(name)).chain(sources.iter().cloned()).collect();
    released(out)?.iter().filter(|path| !known.contains(path)).try_for_each(|path| remove(path))
}

/// Removes an outdated file or directory, if it exists.
fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result.with_context(|| format!("removing the outdated {} failed", path.display())),
    }
}
