//! `cargo xtask layer`: updates the generated files of the Yocto layer, and tests the layer.

mod checkouts;
mod generated;
pub mod levels;
pub mod prebuilt;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;
use generated::LAYER;
use host::{cache, directory};
use prebuilt::Compared;
use xshell::{Shell, cmd};

use crate::dist::copyright;
use crate::dist::linked::Linked;
use crate::dist::modules::{self, Module, Workspace};
use crate::dist::source::{self, Source};
use crate::summary::Summary;
use crate::target::Libc;
pub use checkouts::Checkouts;

/// The directory in the layer of the files that all recipes share.
const SHARED: &str = "recipes-mender/update-modules";

/// Updates the generated files of the Yocto layer, checks them, or tests the layer
///
/// The update takes seconds. --test takes a minute at level 1, and 20 minutes for each release with OE-Core.
#[derive(Args, Default)]
pub struct Layer {
    /// Writes nothing, and fails if a file is outdated
    #[arg(long)]
    check: bool,
    /// Also builds the packages and writes their checksums for the prebuilt recipes: a step of a release
    #[arg(long, conflicts_with = "check")]
    prebuilt: bool,
    /// Tests the layer instead: with BitBake's engine and linters, and with the real BitBake if there is a checkout
    /// of OE-Core
    #[arg(long, conflicts_with_all = ["check", "prebuilt"])]
    test: bool,
    #[command(flatten)]
    checkouts: Checkouts,
    /// Runs only the suites with TEXT in their names, such as "wrynose qemuarm64"
    #[arg(long, value_name = "TEXT", requires = "test")]
    only: Option<String>,
}

/// The file with the checksums of prebuilt packages.
pub const PREBUILT: &str = "meta-rust-modules/recipes-mender/update-modules/prebuilt.inc";

/// The file with the checksums of source archives, and what it says about them.
const SOURCES: &str = "sources.inc";
const SOURCES_NOTE: &str = "The archives of sources that `cargo xtask dist` makes.";

/// A generated file of the layer with its correct content.
struct Generated {
    path: PathBuf,
    content: String,
}

impl Layer {
    /// The command that checks the generated files.
    pub const CHECK: Self = Self { check: true, prebuilt: false, test: false, checkouts: Checkouts::NONE, only: None };

    /// The command that writes the checksums of the packages.
    pub const PREBUILT: Self =
        Self { check: false, prebuilt: true, test: false, checkouts: Checkouts::NONE, only: None };

    /// Writes, checks or tests, and returns a summary.
    pub fn run(self, sh: &Shell) -> Result<String> {
        if self.test {
            let summary = Summary::new(None);
            levels::run(sh, &self.checkouts, self.only.as_deref(), &summary)?;
            return summary.close().1;
        }
        let workspace = modules::workspace(sh)?;
        let mut files = generated_files(sh, &workspace)?;
        let path = workspace.root.join(PREBUILT);
        let content =
            if self.prebuilt { prebuilt::release(sh, &workspace)? } else { prebuilt::current(sh, &workspace, &path)? };
        files.push(Generated { path, content });
        let outdated: Vec<_> =
            files.iter().filter(|file| fs::read(&file.path).ok().as_deref() != Some(file.content.as_bytes())).collect();
        let names = outdated.iter().map(|file| format!("\n    {}", file.path.display())).collect::<String>();
        ensure!(
            !self.check || outdated.is_empty(),
            "generated files are outdated: run cargo xtask layer and commit them:{names}"
        );
        for Generated { path, content } in &outdated {
            directory::write(path, content)?;
        }
        println!("{} generated files in {LAYER}, {} of them written{names}", files.len(), outdated.len());
        let summary = format!("{} generated files are up to date", files.len());
        let prebuilt = match prebuilt::compare(sh, &workspace.root.join(PREBUILT))? {
            Compared::Agree(of) => format!("checksums of prebuilt packages agree with dist/: {of}"),
            Compared::NotCompared(why) => format!("checksums of prebuilt packages not compared: {why}"),
        };
        println!("{prebuilt}");
        Ok(summary)
    }
}

/// The files of the layer by their path in it, with the checksums of the packages in `dist/` and of the archives
/// `sources`, in the order of the modules.
///
/// # Errors
/// A package is missing or outdated, or the layer has no recipes for this version.
pub fn released(sh: &Shell, workspace: &Workspace, sources: &[PathBuf]) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let root = &workspace.root;
    let mut sums = Vec::new();
    for (module, source) in workspace.modules.iter().zip(sources) {
        recipe(&root.join(LAYER), module)?;
        let content = fs::read(source).with_context(|| format!("reading {} failed", source.display()))?;
        sums.push((module.debian.clone(), cache::sha256(&content)));
    }
    let own = [
        (Path::new(PREBUILT).to_owned(), prebuilt::content(sh, workspace)?),
        (Path::new(LAYER).join(SHARED).join(SOURCES), generated::sums(SOURCES_NOTE, &sums)),
    ];
    let file = |path: PathBuf| {
        let full = root.join(&path);
        let context = || format!("reading {} failed", full.display());
        let content = match own.iter().find(|(own, _)| *own == path) {
            Some((_, content)) => content.clone().into_bytes(),
            None => fs::read(&full).with_context(context)?,
        };
        Ok((path.strip_prefix(LAYER).map(Path::to_owned).with_context(context)?, content))
    };
    source::tracked(sh, &[LAYER])?.into_iter().map(file).collect()
}

/// Adds to `summary` whether the checksums of prebuilt packages agree with `dist/`.
pub fn compare_prebuilt(sh: &Shell, summary: &Summary) {
    const NAME: &str = "layer: prebuilt checksums";
    let start = Instant::now();
    match prebuilt::compare(sh, &sh.current_dir().join(PREBUILT)) {
        Ok(Compared::Agree(of)) => summary.ended(NAME, start, Ok(of)),
        Ok(Compared::NotCompared(why)) => summary.skipped(NAME, why),
        Err(error) => summary.ended(NAME, start, Err(error)),
    }
}

/// All generated files that depend on the work tree alone.
fn generated_files(sh: &Shell, workspace: &Workspace) -> Result<Vec<Generated>> {
    let layer = workspace.root.join(LAYER);
    let (mut files, mut sums, mut licences) = (Vec::new(), Vec::new(), Vec::new());
    for module in &workspace.modules {
        let source = Source::of(sh, workspace, module)?;
        let crates = format!("{}-crates.inc", module.debian);
        files.push(Generated {
            path: recipe(&layer, module)?.with_file_name(crates),
            content: generated::crates(source.cargo_lock()?)?,
        });
        sums.push((module.debian.clone(), cache::sha256(&source.archive()?)));
        licences.push(licence(sh, workspace, module)?);
    }
    files.push(Generated { path: layer.join(SHARED).join("licences.inc"), content: generated::licences(&licences) });
    let lock = workspace.root.join("Cargo.lock");
    let lock = fs::read_to_string(&lock).with_context(|| format!("reading {} failed", lock.display()))?;
    let path = layer.join(SHARED).join("mender-update-module-git-crates.inc");
    files.push(Generated { path, content: generated::crates(&lock)? });
    files.push(Generated { path: layer.join(SHARED).join(SOURCES), content: generated::sums(SOURCES_NOTE, &sums) });
    let names = workspace.modules.iter().map(|module| module.debian.as_str());
    files.push(Generated { path: layer.join("conf/from-source.inc"), content: generated::providers(names) });
    Ok(files)
}

/// The licences of `module`, for its recipes.
fn licence(sh: &Shell, workspace: &Workspace, module: &Module) -> Result<generated::Licence> {
    let linked = Linked::of(sh, workspace, module)?;
    let copyright = |libc: Libc| {
        let copyright = copyright::render(workspace, &linked, libc)?;
        let sum = cmd!(sh, "md5sum").stdin(copyright).quiet().read();
        let sum = sum.context("hashing the file copyright with md5sum failed")?;
        Ok((libc.name(), sum.split(' ').next().unwrap_or_default().to_owned()))
    };
    Ok(generated::Licence {
        module: module.name.clone(),
        licences: linked.licences().iter().map(|licence| licence.spdx).collect::<Vec<_>>().join(" & "),
        copyright: Libc::ALL.into_iter().map(copyright).collect::<Result<_>>()?,
    })
}

/// The path of the recipe that builds `module`. Its name contains the version.
fn recipe(layer: &Path, module: &Module) -> Result<PathBuf> {
    let name = format!("{}_{}.bb", module.debian, module.version);
    let directories = [SHARED.into(), format!("dynamic-layers/virtualization-layer/{SHARED}")];
    let found = directories.iter().map(|directory| layer.join(directory).join(&name)).find(|path| path.is_file());
    found.with_context(|| format!("no recipe {name} in {LAYER}: add it"))
}
