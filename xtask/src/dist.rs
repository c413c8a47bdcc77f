//! `cargo xtask dist`: static executables of every module for every target, their Debian packages, their sources, and a table.

mod build;
mod c_library;
pub mod copyright;
mod debian_rust;
mod inputs;
pub mod licences;
pub mod linked;
pub mod modules;
mod package;
mod processor;
mod record;
pub mod release;
mod rust_source;
mod sbom;
pub mod source;
mod table;
mod toolchain;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result};
use clap::Args;
use host::{cache, packages};
use xshell::Shell;

use crate::needs::Needs;
use crate::target::{self, TARGETS, Target};
use inputs::Inputs;
use linked::Linked;
use modules::{Module, Workspace};
use package::{Packager, TOOLS};
use source::Source;
pub use table::released;
use toolchain::Toolchain;

/// Builds the modules and packages them for Debian, into dist/
///
/// Takes about 5 minutes on 2 cores the first time, seconds when nothing has changed.
#[derive(Args, Default)]
pub struct Dist {
    /// Debian's name of an architecture, arm64, armhf or amd64; may be repeated [default: all]
    #[arg(long, value_name = "ARCH", value_parser = target::find)]
    arch: Vec<&'static Target>,
}

/// One package to be: a module for a target.
struct Job<'a> {
    module: &'a Module,
    target: &'static Target,
    deb: PathBuf,
    sbom: PathBuf,
}

impl Dist {
    /// The packages for `targets`.
    pub fn of(targets: &[&'static Target]) -> Self {
        Self { arch: targets.to_vec() }
    }

    /// What it needs of this machine.
    pub fn needs(&self) -> Needs {
        let building = self.targets().into_iter().flat_map(Target::needs);
        Needs::packages(&building.chain(TOOLS.iter().copied()).collect::<Vec<_>>())
    }

    fn targets(&self) -> Vec<&'static Target> {
        TARGETS.iter().filter(|row| self.arch.is_empty() || self.arch.contains(row)).collect()
    }

    /// Brings `dist/` up to date, prints what is in it, and returns every package with its target.
    ///
    /// # Errors
    /// When a toolchain or package cannot be had, or a module does not build or is not fit for Debian.
    pub fn run(self, sh: &Shell) -> Result<Vec<(&'static Target, PathBuf)>> {
        self.needs().provide(sh)?;
        let workspace = modules::workspace(sh)?;
        let out = workspace.root.join("dist");
        let chosen = self.targets();
        let jobs: Vec<Job> = chosen
            .iter()
            .flat_map(|target| workspace.modules.iter().map(|module| Job::new(&out, module, target)))
            .collect();
        // Two at once in the same work tree would overwrite each other's packages half-way.
        let _lock = cache::lock(&workspace.target.join("dist.lock"))?;
        let inputs = Inputs::read(sh, &workspace.root)?;
        let stale = stale(sh, &workspace, &inputs, &jobs)?;
        if !stale.is_empty() {
            bring_up_to_date(sh, &workspace, &inputs, &stale)?;
        }
        let sources = write_sources(sh, &workspace, &out)?;
        forget_others(&out, &workspace.modules, &sources)?;
        table::sums(&out)?;
        print!("{}", table::render(&table::rows(&workspace.root, &jobs, &sources)?));
        Ok(jobs.into_iter().map(|job| (job.target, job.deb)).collect())
    }
}

/// Writes the archives of every module's source into `out`, without building anything, and returns their paths.
pub fn sources(sh: &Shell, out: &Path) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    write_sources(sh, &modules::workspace(sh)?, out)
}

/// Builds the server of the tests' images for `target`, as modules are built: static, for it is alone in its image.
///
/// # Errors
/// When a toolchain cannot be had, or it does not build.
pub fn test_server(sh: &Shell, target: &'static Target) -> Result<PathBuf> {
    const NAME: &str = "tiny-http";
    let server = || Module { name: NAME.into(), version: String::new(), debian: String::new() };
    let workspace = Workspace { modules: vec![server()], ..modules::workspace(sh)? };
    packages::ensure(sh, target.packages)?;
    let _lock = cache::lock(&workspace.target.join("dist.lock"))?;
    let toolchains = toolchain::provide(sh, &workspace.target, &[target])?;
    build::all(sh, &workspace, &toolchains)?;
    Ok(of(&toolchains, target)?.executable(&workspace, &server(), target))
}

impl<'a> Job<'a> {
    fn new(out: &Path, module: &'a Module, target: &'static Target) -> Self {
        let (deb, sbom) = (out.join(module.deb_name(target)), out.join(module.sbom_name(target)));
        Job { module, target, deb, sbom }
    }
}

/// The jobs whose package is missing, altered, or made of other inputs than those that are there now.
fn stale<'a>(
    sh: &Shell,
    workspace: &Workspace,
    inputs: &Inputs,
    jobs: &'a [Job<'a>],
) -> Result<Vec<&'a Job<'a>>> {
    let mut stale = Vec::new();
    for job in jobs {
        let key = toolchain::present(sh, &workspace.target, job.target)?
            .map(|toolchain| inputs.key(&toolchain, job.target));
        if !key.is_some_and(|key| record::holds(&workspace.target, &job.deb, &job.sbom, &key)) {
            stale.push(job);
        }
    }
    Ok(stale)
}

fn bring_up_to_date(sh: &Shell, workspace: &Workspace, inputs: &Inputs, stale: &[&Job]) -> Result<()> {
    for module in &workspace.modules {
        package::check_version(workspace, module)?;
        package::check_assets(workspace, module)?;
    }
    let targets: Vec<&'static Target> =
        TARGETS.iter().filter(|row| stale.iter().any(|job| job.target == *row)).collect();
    let wanted: Vec<&str> = targets.iter().flat_map(|row| row.needs()).collect();
    packages::ensure(sh, &[&wanted[..], TOOLS].concat())?;
    let toolchains = toolchain::provide(sh, &workspace.target, &targets)?;
    let packager = Packager { sh, workspace, inputs, cargo_deb: package::cargo_deb(sh)? };
    let linked = linked(sh, workspace, stale)?;
    build::all(sh, workspace, &toolchains)?;
    let out = workspace.root.join("dist");
    fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
    for (job, linked) in stale.iter().zip(&linked) {
        let toolchain = of(&toolchains, job.target)?;
        if let Some(processor) = &job.target.processor {
            processor::start(sh, &toolchain.executable(workspace, job.module, job.target), processor)?;
        }
        packager.make(job, linked, toolchain)?;
    }
    package::lint(sh, stale)?;
    // Only what lintian has passed counts as made.
    for job in stale {
        let toolchain = of(&toolchains, job.target)?;
        record::write(&workspace.target, &job.deb, &job.sbom, &inputs.key(toolchain, job.target))?;
    }
    Ok(())
}

/// What is linked into the module of each of `jobs`, looked for once for each module.
fn linked(sh: &Shell, workspace: &Workspace, jobs: &[&Job]) -> Result<Vec<Rc<Linked>>> {
    let mut known: BTreeMap<&str, Rc<Linked>> = BTreeMap::new();
    let mut all = Vec::new();
    for job in jobs {
        let name = job.module.name.as_str();
        if !known.contains_key(name) {
            known.insert(name, Rc::new(Linked::of(sh, workspace, job.module)?));
        }
        all.extend(known.get(name).cloned());
    }
    Ok(all)
}

fn of<'a>(toolchains: &'a [(&Target, Toolchain)], target: &Target) -> Result<&'a Toolchain> {
    let found = toolchains.iter().find(|(row, _)| *row == target);
    Ok(&found.with_context(|| format!("no toolchain was set up for {}", target.debian))?.1)
}

/// Writes the archive of every module's source, and returns them in the modules' order.
fn write_sources(sh: &Shell, workspace: &Workspace, out: &Path) -> Result<Vec<PathBuf>> {
    let write = |module| {
        let source = Source::of(sh, workspace, module)?;
        let path = out.join(source.file_name());
        fs::write(&path, source.archive()?).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    };
    workspace.modules.iter().map(write).collect()
}

/// Removes what is of earlier versions and of modules that are no more, so that `dist/` holds what this work tree makes.
fn forget_others(out: &Path, modules: &[Module], sources: &[PathBuf]) -> Result<()> {
    let all = TARGETS.iter().flat_map(|target| modules.iter().map(move |module| (module, target)));
    let packages = all.flat_map(|(module, target)| [module.deb_name(target), module.sbom_name(target)]);
    let known: Vec<PathBuf> = packages.map(|name| out.join(name)).chain(sources.iter().cloned()).collect();
    for path in released(out)?.iter().filter(|path| !known.contains(path)) {
        fs::remove_file(path).with_context(|| format!("removing the outdated {}", path.display()))?;
    }
    Ok(())
}
