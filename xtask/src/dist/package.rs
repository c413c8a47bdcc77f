//! Makes Debian packages with cargo-deb and checks them with lintian.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use host::command::run;
use host::pool::side_by_side;
use host::status::{Step, step};
use host::{cache, directory};
use toml_edit::{DocumentMut, Item, Value};
use xshell::{Shell, cmd};

use super::inputs::Inputs;
use super::job::Job;
use super::linked::Linked;
use super::modules::{Module, Workspace};
use super::sbom::Sbom;
use super::toolchain::Toolchain;
use super::{c_library, copyright, cyclonedx, source};

/// The Debian packages of the programs that are used here.
pub const TOOLS: &[&str] = &["binutils", "lintian", "xz-utils"];

/// The number of processes of lintian.
const LINTIANS: usize = 2;

/// Checks before the build that Debian's changelog of `module` begins with the version of Cargo.toml.
pub fn check_version(workspace: &Workspace, module: &Module) -> Result<()> {
    let changelog = workspace.root.join("debian").join(&module.name).join("changelog");
    let text = fs::read_to_string(&changelog).with_context(|| format!("reading {} failed", changelog.display()))?;
    check_changelog(&text, module).with_context(|| format!("checking {} failed", changelog.display()))
}

/// Checks before the build that the manifest of `module` lists the files of [`Packager::stage`]. If `copyright` is
/// missing, cargo-deb writes one without the linked crates.
pub fn check_assets(workspace: &Workspace, module: &Module) -> Result<()> {
    let path = workspace.root.join("modules").join(&module.name).join("Cargo.toml");
    let manifest = source::manifest(&path)?;
    for asset in assets(module) {
        ensure!(
            lists(&manifest, &asset),
            "invalid manifest: {}: package.metadata.deb.assets has no {}: add [\"{}\", \"{}\", \"644\"]",
            path.display(),
            asset[1],
            asset[0],
            asset[1]
        );
    }
    Ok(())
}

/// The generated files of a package of `module`: the path where cargo-deb reads each, and its path in the package.
fn assets(module: &Module) -> [[String; 2]; 2] {
    let name = &module.debian;
    ["copyright".to_owned(), format!("{name}.spdx.json")]
        .map(|file| [format!("target/release/{file}"), format!("usr/share/doc/{name}/{file}")])
}

/// Whether `manifest` lists `asset`.
fn lists(manifest: &DocumentMut, asset: &[String; 2]) -> bool {
    let path = ["package", "metadata", "deb", "assets"];
    let assets = path.iter().try_fold(manifest.as_item(), |item, key| item.get(key)).and_then(Item::as_array);
    assets.into_iter().flatten().filter_map(Value::as_array).any(|listed| {
        let mut texts = listed.iter().map(Value::as_str);
        asset.iter().all(|part| texts.next().flatten() == Some(part))
    })
}

/// Makes packages: the values that are the same for all of them.
pub struct Packager<'a> {
    /// The work tree.
    pub workspace: &'a Workspace,
    /// Its inputs for packages.
    pub inputs: &'a Inputs,
    /// The path of cargo-deb.
    pub cargo_deb: PathBuf,
}

impl Packager<'_> {
    /// Makes the package of `job` twice, and fails if they differ: then the package would not be reproducible.
    pub fn make(&self, sh: &Shell, job: &Job, linked: &Linked, toolchain: &Toolchain) -> Result<()> {
        step(format!("packaging {} for {}", job.module.debian, job.target.debian), |step| {
            self.stage(sh, job, linked, toolchain)?;
            let again = self.staging(job).join("again.deb");
            for deb in [&job.deb, &again] {
                self.pack(sh, step, job, deb)?;
            }
            let read = |deb: &Path| fs::read(deb).with_context(|| format!("reading {} failed", deb.display()));
            ensure!(
                read(&job.deb)? == read(&again)?,
                "package not reproducible: two runs of cargo-deb differ: compare {} and {} with diffoscope",
                job.deb.display(),
                again.display()
            );
            fs::remove_file(&again).with_context(|| format!("removing {} failed", again.display()))
        })
    }

    /// Writes the files of the package of `job` to the directory of cargo-deb, and the SBOMs beside the package.
    fn stage(&self, sh: &Shell, job: &Job, linked: &Linked, toolchain: &Toolchain) -> Result<()> {
        let executable = toolchain.executable(self.workspace, job.module, job.target);
        let content = fs::read(&executable).with_context(|| format!("reading {} failed", executable.display()))?;
        let sbom = Sbom {
            module: job.module,
            target: job.target,
            linked,
            rust: &toolchain.release,
            libc: toolchain.libc,
            c_library: &c_library::version(sh, job.target, toolchain.libc)?,
            executable: &cache::sha256(&content),
            created: &self.inputs.time(sh)?,
        };
        let context = || format!("making the SBOMs of {} failed", job.deb.display());
        let spdx = sbom.document().with_context(context)?;
        let cyclonedx = cyclonedx::document(&spdx).with_context(context)?;
        let staged = self.staging(job).join(job.target.packaged).join("release");
        directory::empty(&staged).context("creating the directory for the files of the package failed")?;
        directory::write(&staged.join(&job.module.name), content)?;
        directory::write(&staged.join("copyright"), copyright::render(self.workspace, linked, toolchain.libc)?)?;
        directory::write(&staged.join(format!("{}.spdx.json", job.module.debian)), &spdx)?;
        directory::write(&job.spdx, spdx)?;
        directory::write(&job.cyclonedx, cyclonedx)
    }

    /// The target directory of cargo-deb for `job`: several of them run in parallel.
    fn staging(&self, job: &Job) -> PathBuf {
        self.workspace.target.join("package").join(format!("{}-{}", job.module.name, job.target.debian))
    }

    fn pack(&self, sh: &Shell, step: &Step, job: &Job, deb: &Path) -> Result<()> {
        let cargo_deb = &self.cargo_deb;
        let command = cmd!(sh, "{cargo_deb} --no-build --no-strip --no-dbgsym --locked --offline")
            .args(["--package", &job.module.name, "--target", job.target.packaged])
            .args([Path::new("--output"), deb])
            .env("CARGO_TARGET_DIR", self.staging(job))
            .env("SOURCE_DATE_EPOCH", &self.inputs.epoch);
        run(step, command).with_context(|| format!("packaging {} failed", deb.display()))?;
        Ok(())
    }
}

fn check_changelog(changelog: &str, module: &Module) -> Result<()> {
    let expected = format!("{} ({}) ", module.debian, module.version);
    let first = changelog.lines().next().unwrap_or_default();
    ensure!(
        first.starts_with(&expected),
        "the first line is {first:?}: begin it with {expected:?}, or correct the version in Cargo.toml"
    );
    Ok(())
}

/// Checks the packages with lintian and prints its output. Its errors fail, its warnings do not.
pub fn lint(jobs: &[&Job]) -> Result<()> {
    // lintian uses one processor.
    let parts: Vec<_> = jobs.chunks(jobs.len().div_ceil(LINTIANS).max(1)).collect();
    let outputs = step("lintian", |step| {
        side_by_side(parts.len(), &parts, |part| {
            let sh = Shell::new()?;
            let lintian = cmd!(sh, "lintian --fail-on error --profile debian --allow-root");
            run(step, lintian.args(part.iter().map(|job| &job.deb)))
        })
        .into_iter()
        .collect::<Result<Vec<_>>>()
        .context("lintian reports errors: correct them, or override them in debian/ with a reason")
    })?;
    outputs.iter().for_each(|output| eprint!("{output}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module() -> Module {
        Module { name: "m".into(), version: "1.2.3".into(), debian: "a-m".into() }
    }

    #[test]
    fn copyright_and_sbom_must_be_packaged() {
        let manifest = |assets: &str| format!("[package.metadata.deb]\nassets = [{assets}]").parse().unwrap();
        let [copyright, sbom] = assets(&module());
        let both = manifest(
            "[\"target/release/copyright\", \"usr/share/doc/a-m/copyright\", \"644\"], \
             [\"target/release/a-m.spdx.json\", \"usr/share/doc/a-m/a-m.spdx.json\", \"644\"]",
        );
        assert!(lists(&both, &copyright) && lists(&both, &sbom));
        let none = manifest("[\"target/release/m\", \"usr/share/mender/modules/v3/\", \"755\"]");
        assert!(!lists(&none, &copyright) && !lists(&"".parse().unwrap(), &sbom));
    }

    #[test]
    fn changelog_and_manifest_agree() {
        let module = module();
        check_changelog("a-m (1.2.3) unstable; urgency=medium\n", &module).unwrap();
        for bad in ["", "a-m (1.2.4) unstable", "b-m (1.2.3) unstable", "a-m (1.2.3-1) unstable"] {
            assert!(check_changelog(bad, &module).is_err(), "{bad:?} was accepted");
        }
    }
}
