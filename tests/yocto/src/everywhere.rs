//! Level 1, with packages from registries only: BitBake's engine, a PyPI package, parses every recipe with small
//! replacements of OE-Core's classes, and fetches and unpacks its source. oelint-adv and kas' schema report no
//! finding. The source archives are needed, and no compiled package.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use host::command::run as run_command;
use host::status::step;
use host::{cache, directory, packages};
use xshell::{Shell, cmd};

use crate::{Layer, downloads};

/// The Python packages, with fixed versions.
const REQUIREMENTS: &str = include_str!("../python/requirements.txt");

/// Runs all checks and returns a summary.
pub fn run(sh: &Shell, layer: &Layer) -> Result<String> {
    let python = python(sh)?;
    let recipes = &files(&layer.directory, "bb")?;
    require_recipes(recipes, &layer.modules)?;
    let mirror = downloads::mirror(sh, layer)?;
    let build = layer.scratch.join("engine");
    directory::remove(&build)?;
    let documented = &documented(&layer.directory.join("README.md"), &build.join("readme"))?;
    let layers = [layer.tests.join("meta-core"), layer.directory.clone()].map(|path| path.display().to_string());
    directory::write(
        &build.join("conf/bblayers.conf"),
        format!(
            "BBPATH = \"${{TOPDIR}}\"\nDL_DIR = \"{}\"\nBBLAYERS = \"{}\"\n{}",
            mirror.display(),
            layers.join(" "),
            repository(sh)?
        ),
    )?;
    let script = layer.tests.join("python/parse.py");
    step(format!("BitBake's engine: {} recipes", recipes.len() + documented.len()), |step| {
        run_command(step, cmd!(sh, "{python} {script} {build} {recipes...} {documented...}"))
    })?;
    let linted =
        &[recipes.clone(), files(&layer.directory, "bbclass")?, vec![layer.directory.join("conf/layer.conf")]].concat();
    step(format!("oelint-adv: {} files", linted.len()), |step| {
        let _here = sh.push_dir(&layer.directory); // which has oelint-adv's settings
        run_command(step, cmd!(sh, "{python} -m oelint_adv --quiet --mode=all {linted...}"))
    })?;
    let kas = &files(&layer.directory.join("kas"), "yml")?;
    let script = layer.tests.join("python/kas_schema.py");
    step(format!("kas' schema: {} files", kas.len()), |step| {
        run_command(step, cmd!(sh, "{python} {script} {kas...}"))
    })?;
    Ok(format!(
        "{} recipes of the layer and {} of its README parsed, sources unpacked; oelint-adv: {} files; \
         kas' schema: {} files",
        recipes.len(),
        documented.len(),
        linted.len(),
        kas.len()
    ))
}

/// The Debian packages that the host needs for this level.
pub const EVERYWHERE_PACKAGES: &[&str] = &["python3-venv"];

/// The Python of a virtual environment with the packages, from the cache.
fn python(sh: &Shell) -> Result<PathBuf> {
    packages::ensure(sh, EVERYWHERE_PACKAGES)?;
    let directory = cache::entry("python", &cache::key([REQUIREMENTS.as_bytes()])[..16], |directory| {
        step("Python packages: BitBake's engine, oelint-adv, kas", |step| {
            run_command(step, cmd!(sh, "python3 -m venv {directory}"))?;
            let requirements = directory.join("requirements.txt");
            directory::write(&requirements, REQUIREMENTS)?;
            let python = directory.join("bin/python");
            run_command(step, cmd!(sh, "{python} -m pip install --quiet --requirement {requirements}"))
                .context("installing Python packages: check the network")
        })?;
        Ok(())
    })?;
    Ok(directory.join("bin/python"))
}

/// Fails unless each of `modules` has one recipe that builds from source and one with the prebuilt package.
fn require_recipes(recipes: &[PathBuf], modules: &[String]) -> Result<()> {
    let names: Vec<_> = recipes.iter().filter_map(|path| path.file_name()?.to_str()).collect();
    for module in modules {
        for kind in ["", "-bin"] {
            let recipe = format!("mender-update-module-{module}{kind}_");
            let versions = names.iter().filter(|name| name.starts_with(&recipe) && !name.ends_with("_git.bb"));
            ensure!(versions.count() == 1, "not exactly one recipe {recipe}VERSION.bb in the layer");
        }
    }
    Ok(())
}

/// Settings with which the recipes from git use the last commit of this clone.
fn repository(sh: &Shell) -> Result<String> {
    let rev_parse =
        |argument: &str| cmd!(sh, "git rev-parse {argument}").quiet().read().context("reading the last commit failed");
    let (root, commit) = (rev_parse("--show-toplevel")?, rev_parse("HEAD")?);
    Ok(format!("RUST_MODULES_GIT = \"git://{root};protocol=file;nobranch=1\"\nRUST_MODULES_SRCREV = \"{commit}\"\n"))
}

/// Writes the recipes in the README `readme` into `directory`, and returns their paths. The first line of a recipe's
/// code block is a comment with its name.
fn documented(readme: &Path, directory: &Path) -> Result<Vec<PathBuf>> {
    let text = fs::read_to_string(readme).with_context(|| format!("reading {} failed", readme.display()))?;
    let mut paths = Vec::new();
    for block in text.split("```").skip(1).step_by(2) {
        let Some(name) = block.trim_start().strip_prefix("# ").and_then(|rest| rest.lines().next()) else {
            continue;
        };
        if name.ends_with(".bb") {
            let path = directory.join(name);
            directory::write(&path, block.trim_start())?;
            paths.push(path);
        }
    }
    ensure!(!paths.is_empty(), "no recipe in {}: start its code block with a line # NAME_VERSION.bb", readme.display());
    Ok(paths)
}

/// The files below `directory` with the extension `extension`, sorted.
fn files(directory: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut files = directory::files(directory)?;
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_recipe_is_an_error() {
        let recipes = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let modules = ["deb".to_owned()];
        let all = ["r/mender-update-module-deb_0.1.0.bb", "r/mender-update-module-deb-bin_0.1.0.bb"];
        require_recipes(&recipes(&all), &modules).unwrap();
        let git = "r/mender-update-module-deb_git.bb";
        for left in [&[all[0], git][..], &[all[1], git]] {
            let error = require_recipes(&recipes(left), &modules).unwrap_err().to_string();
            assert!(error.contains("mender-update-module-deb"), "{error}");
        }
    }
}
