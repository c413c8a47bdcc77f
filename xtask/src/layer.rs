//! `cargo xtask layer`: keeps the Yocto layer in step with the work tree, and tests it.

mod generated;
pub mod levels;
mod places;
pub mod prebuilt;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use host::{cache, directory};
use prebuilt::Compared;
use xshell::{Shell, cmd};

use crate::dist::copyright;
use crate::dist::linked::Linked;
use crate::dist::modules::{self, Module, Workspace};
use crate::dist::source::Source;
use crate::summary::Summary;
pub use places::Places;

/// The layer's directory in the work tree.
const LAYER: &str = "meta-rust-modules";

/// Where in the layer the files lie that all recipes share.
const SHARED: &str = "recipes-mender/update-modules";

/// Updates the generated files of the Yocto layer, checks them, or tests the layer
///
/// The update takes seconds. --test takes a minute at level 1, and 20 minutes for each release with OE-Core.
#[derive(Args, Default)]
pub struct Layer {
    /// Writes nothing, and fails where a file does not agree with the work tree
    #[arg(long)]
    check: bool,
    /// Builds the packages and writes their checksums for the prebuilt recipes too: a step of a release
    #[arg(long, conflicts_with = "check")]
    prebuilt: bool,
    /// Tests the layer instead: BitBake's engine and linters, and the real BitBake with --oe-core
    #[arg(long, conflicts_with_all = ["check", "prebuilt"])]
    test: bool,
    #[command(flatten)]
    places: Places,
    /// Runs only the suites with TEXT in their names, such as "wrynose qemuarm64"
    #[arg(long, value_name = "TEXT", requires = "test")]
    only: Option<String>,
}

/// The file with the checksums of prebuilt packages.
const PREBUILT: &str = "meta-rust-modules/recipes-mender/update-modules/prebuilt.inc";

/// A file of the layer as it has to be.
struct Made {
    path: PathBuf,
    content: String,
}

impl Layer {
    /// That every generated file agrees with the work tree.
    pub const CHECK: Self =
        Self { check: true, prebuilt: false, test: false, places: Places::NONE, only: None };

    /// Writes, checks or tests, and says what there was.
    ///
    /// # Errors
    /// When a file cannot be made, has drifted, or a test fails.
    pub fn run(self, sh: &Shell) -> Result<String> {
        if self.test {
            let mut summary = Summary::default();
            levels::run(sh, &self.places, self.only.as_deref(), &mut summary)?;
            return summary.close();
        }
        let workspace = modules::workspace(sh)?;
        let mut made = made(sh, &workspace)?;
        let path = workspace.root.join(PREBUILT);
        let content = if self.prebuilt {
            prebuilt::release(sh, &workspace)?
        } else {
            prebuilt::kept(sh, &workspace, &path)?
        };
        made.push(Made { path, content });
        let drifted: Vec<_> = made
            .iter()
            .filter(|made| fs::read(&made.path).ok().as_deref() != Some(made.content.as_bytes()))
            .collect();
        let names = drifted.iter().map(|made| format!("\n    {}", made.path.display())).collect::<String>();
        ensure!(
            !self.check || drifted.is_empty(),
            "generated files do not agree with the work tree: run cargo xtask layer and commit them:{names}"
        );
        for Made { path, content } in &drifted {
            directory::write(path, content)?;
        }
        println!("{} generated files of {LAYER}, {} of them written{names}", made.len(), drifted.len());
        let agree = format!("{} generated files agree with the work tree", made.len());
        let prebuilt = match prebuilt::compare(sh, &workspace.root.join(PREBUILT))? {
            Compared::Agree(of) => format!("checksums of prebuilt packages agree with dist/: {of}"),
            Compared::NotCompared(why) => format!("checksums of prebuilt packages not compared: {why}"),
        };
        println!("{prebuilt}");
        Ok(agree)
    }
}

/// Notes in `summary` whether the checksums of prebuilt packages are those of `dist/`.
pub fn compare_prebuilt(sh: &Shell, summary: &mut Summary) {
    const NAME: &str = "layer: prebuilt checksums";
    match prebuilt::compare(sh, Path::new(PREBUILT)) {
        Ok(Compared::Agree(of)) => summary.ended(NAME, Ok(of)),
        Ok(Compared::NotCompared(why)) => summary.skipped(NAME, why),
        Err(error) => summary.ended(NAME, Err(error)),
    }
}

/// Every generated file that depends on the work tree alone.
fn made(sh: &Shell, workspace: &Workspace) -> Result<Vec<Made>> {
    let layer = workspace.root.join(LAYER);
    let (mut made, mut sums, mut licences) = (Vec::new(), Vec::new(), Vec::new());
    for module in &workspace.modules {
        let source = Source::of(sh, workspace, module)?;
        let crates = format!("{}-crates.inc", module.debian);
        made.push(Made {
            path: recipe(&layer, module)?.with_file_name(crates),
            content: generated::crates(source.cargo_lock()?)?,
        });
        sums.push((module.debian.clone(), cache::sha256(&source.archive()?)));
        licences.push(licence(sh, workspace, module)?);
    }
    made.push(Made {
        path: layer.join(SHARED).join("licences.inc"),
        content: generated::licences(&licences),
    });
    let lock = workspace.root.join("Cargo.lock");
    let lock = fs::read_to_string(&lock).with_context(|| format!("reading {}", lock.display()))?;
    let path = layer.join(SHARED).join("mender-update-module-git-crates.inc");
    made.push(Made { path, content: generated::crates(&lock)? });
    let content = generated::sums("The archives of sources that `cargo xtask dist` makes.", &sums);
    made.push(Made { path: layer.join(SHARED).join("sources.inc"), content });
    let names = workspace.modules.iter().map(|module| module.debian.as_str());
    made.push(Made { path: layer.join("conf/from-source.inc"), content: generated::providers(names) });
    Ok(made)
}

/// What the recipes of `module` say of licences.
fn licence(sh: &Shell, workspace: &Workspace, module: &Module) -> Result<generated::Licence> {
    let linked = Linked::of(sh, workspace, module)?;
    let copyright = copyright::render(workspace, &linked)?;
    let sum =
        cmd!(sh, "md5sum").stdin(copyright).quiet().read().context("hashing debian/copyright with md5sum")?;
    Ok(generated::Licence {
        module: module.name.clone(),
        licences: linked.licences().iter().map(|licence| licence.spdx).collect::<Vec<_>>().join(" & "),
        copyright: sum.split(' ').next().unwrap_or_default().to_owned(),
    })
}

/// The recipe that builds `module`, whose name carries its version.
fn recipe(layer: &Path, module: &Module) -> Result<PathBuf> {
    let name = format!("{}_{}.bb", module.debian, module.version);
    let directories = [SHARED.into(), format!("dynamic-layers/virtualization-layer/{SHARED}")];
    let found =
        directories.iter().map(|directory| layer.join(directory).join(&name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} is nowhere in {LAYER}: every module has a recipe"))
}
