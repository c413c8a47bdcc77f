//! Makes Debian packages with cargo-deb and has lintian look at them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use host::command::run;
use host::status::{Step, step};
use host::{cache, folder};
use xshell::{Shell, cmd};

use super::Job;
use super::inputs::Inputs;
use super::modules::{Module, Workspace};

/// Debian packages of the programs used here.
pub const TOOLS: &[&str] = &["binutils", "lintian", "xz-utils"];

/// Pinned: what packages look like must not change by itself.
const CARGO_DEB: &str = "3.8.0";

/// The path of cargo-deb, compiled on first use: as a library of xtask, it would double the time until a newcomer's
/// first command runs, and nothing but `dist` needs it.
pub fn cargo_deb(sh: &Shell) -> Result<PathBuf> {
    let key = cache::key([CARGO_DEB.as_bytes()]);
    let root = cache::entry("cargo-deb", &key, |root| {
        step(format!("compiling cargo-deb {CARGO_DEB}, once"), |step| {
            let objects = root.join("build");
            // It packs a few files: compile quickly, and leave compression to Debian's xz.
            let install = cmd!(sh, "cargo install --locked --debug --no-default-features --no-track")
                .args(["--version", CARGO_DEB, "cargo-deb"])
                .args([Path::new("--root"), root, Path::new("--target-dir"), &objects])
                .env("CARGO_PROFILE_DEV_DEBUG", "false");
            run(step, install).context(
                "installing cargo-deb from crates.io into the cache folder: is the network up, and the disk not full?",
            )?;
            folder::remove(&objects)
        })
    })?;
    Ok(root.join("bin/cargo-deb"))
}

/// Sees to it, before anything is built, that Debian's changelog of `module` begins with Cargo.toml's version.
pub fn check_version(workspace: &Workspace, module: &Module) -> Result<()> {
    let changelog = workspace.root.join("debian").join(&module.name).join("changelog");
    let text = fs::read_to_string(&changelog).with_context(|| format!("reading {}", changelog.display()))?;
    check_changelog(&text, module).with_context(|| format!("checking {}", changelog.display()))
}

/// Packages `job` twice and keeps one: what two runs make differently cannot be checked by anybody else.
pub fn make(sh: &Shell, workspace: &Workspace, inputs: &Inputs, cargo_deb: &Path, job: &Job) -> Result<()> {
    step(format!("packaging {} for {}", job.module.debian, job.target.debian), |step| {
        stage(workspace, job)?;
        let again = workspace.target.join("again.deb");
        for deb in [&job.deb, &again] {
            pack(sh, step, workspace, inputs, cargo_deb, job, deb)?;
        }
        let read = |deb: &Path| fs::read(deb).with_context(|| format!("reading {}", deb.display()));
        ensure!(
            read(&job.deb)? == read(&again)?,
            "two runs of cargo-deb differ: compare {} and {} with diffoscope",
            job.deb.display(),
            again.display()
        );
        fs::remove_file(&again).with_context(|| format!("removing {}", again.display()))
    })
}

/// Lays out what goes into the package of `job` where cargo-deb looks for it.
fn stage(workspace: &Workspace, job: &Job) -> Result<()> {
    let executable = workspace.executable(job.module, job.target);
    let staged = staging(workspace).join(job.target.packaged).join("release");
    folder::empty(&staged).context("making a place for the package's files")?;
    fs::copy(&executable, staged.join(&job.module.name))
        .with_context(|| format!("copying {}", executable.display()))?;
    Ok(())
}

/// The target folder that cargo-deb is told.
fn staging(workspace: &Workspace) -> PathBuf {
    workspace.target.join("package")
}

fn pack(
    sh: &Shell,
    step: &Step,
    workspace: &Workspace,
    inputs: &Inputs,
    cargo_deb: &Path,
    job: &Job,
    deb: &Path,
) -> Result<()> {
    let command = cmd!(sh, "{cargo_deb} --no-build --no-strip --no-dbgsym --locked --offline")
        .args(["--package", &job.module.name, "--target", job.target.packaged])
        .args([Path::new("--output"), deb])
        .env("CARGO_TARGET_DIR", staging(workspace))
        .env("SOURCE_DATE_EPOCH", &inputs.epoch);
    run(step, command).with_context(|| format!("packaging {}", deb.display()))?;
    Ok(())
}

fn check_changelog(changelog: &str, module: &Module) -> Result<()> {
    let expected = format!("{} ({}) ", module.debian, module.version);
    let first = changelog.lines().next().unwrap_or_default();
    ensure!(
        first.starts_with(&expected),
        "it begins with {first:?}, but Cargo.toml's version calls for an entry {expected:?}: add it, or correct either"
    );
    Ok(())
}

/// Shows what lintian says of the packages; errors fail.
pub fn lint(sh: &Shell, jobs: &[&Job]) -> Result<()> {
    let debs = jobs.iter().map(|job| &job.deb);
    let said = step("lintian", |step| {
        let lintian = cmd!(sh, "lintian --fail-on error --profile debian --allow-root").args(debs);
        run(step, lintian)
            .context("lintian finds errors: mend them, or override them under debian/ with a reason")
    })?;
    eprint!("{said}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changelog_and_manifest_agree() {
        let module = Module { name: "m".into(), version: "1.2.3".into(), debian: "a-m".into() };
        check_changelog("a-m (1.2.3) unstable; urgency=medium\n", &module).unwrap();
        for bad in ["", "a-m (1.2.4) unstable", "b-m (1.2.3) unstable", "a-m (1.2.3-1) unstable"] {
            assert!(check_changelog(bad, &module).is_err(), "{bad:?} was taken");
        }
    }
}
