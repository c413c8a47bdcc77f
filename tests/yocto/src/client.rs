//! A mirror of the Mender client's git repository, from which BitBake fetches the source of meta-mender's recipes
//! without a network.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use host::command::run;
use host::status::{Step, step};
use host::{cache, directory};
use xshell::{Shell, cmd};

use crate::Layer;

/// BitBake's name of the mirror of the client's repository.
const MIRROR: &str = "git2/github.com.mendersoftware.mender";

/// The directory of the client's recipes in meta-mender-core.
const RECIPES: &str = "recipes-mender/mender-client";

/// The versions of the client that are tested: the newest recipe in `meta_mender` of every major version.
///
/// # Errors
/// No recipe was found.
pub fn versions(meta_mender: &Path) -> Result<Vec<String>> {
    let mut newest: BTreeMap<u32, (Vec<u32>, String)> = BTreeMap::new();
    for recipe in directory::entries(&meta_mender.join(RECIPES))? {
        let name = recipe.file_name().unwrap_or_default().to_string_lossy();
        let version = name.strip_prefix("mender_").and_then(|rest| rest.strip_suffix(".bb")).unwrap_or_default();
        let Ok(parts) = version.split('.').map(str::parse).collect::<Result<Vec<u32>, _>>() else { continue };
        let Some(&major) = parts.first() else { continue };
        let found = (parts, version.to_owned());
        let known = newest.entry(major).or_insert_with(|| found.clone());
        if *known < found {
            *known = found;
        }
    }
    ensure!(!newest.is_empty(), "no recipe of the Mender client in {}", meta_mender.display());
    Ok(newest.into_values().map(|(_, version)| version).collect())
}

/// The reason why the client's source is not available, or `None`.
pub fn obstacle(sh: &Shell, layer: &Layer, meta_mender: &Path) -> Result<Option<String>> {
    if let Some(downloads) = &layer.downloads {
        let missing = !downloads.join(MIRROR).is_dir();
        return Ok(missing
            .then(|| format!("no {MIRROR} in {}: use --downloads with a DL_DIR that has it", downloads.display())));
    }
    let fetched = step("fetching the source of the Mender client", |step| fetched(sh, step, meta_mender));
    Ok(fetched.err().map(|error| {
        let error = format!("{error:#}");
        let cause = error.lines().last().unwrap_or_default();
        format!(
            "fetching the source of the Mender client failed: {cause}: run cargo xtask layer --test --downloads DIR"
        )
    }))
}

/// Puts a mirror of the client's repository into the DL_DIR of the tests.
pub fn provide(sh: &Shell, layer: &Layer, meta_mender: &Path) -> Result<()> {
    step("mirror of the Mender client's repository", |step| {
        let source = match &layer.downloads {
            Some(downloads) => downloads.join(MIRROR),
            None => fetched(sh, step, meta_mender)?,
        };
        let mirror = layer.scratch.join("downloads").join(MIRROR);
        directory::remove(&mirror)?;
        run(step, cmd!(sh, "git clone --quiet --mirror {source} {mirror}")).map(drop)
    })
}

/// A clone of the client's repository from the network, cached until a recipe of the client changes.
fn fetched(sh: &Shell, step: &Step, meta_mender: &Path) -> Result<PathBuf> {
    let mut recipes = Vec::new();
    for recipe in directory::entries(&meta_mender.join(RECIPES))?.iter().filter(|path| path.is_file()) {
        recipes.push(fs::read_to_string(recipe).with_context(|| format!("reading {} failed", recipe.display()))?);
    }
    let address = recipes.iter().find_map(|recipe| {
        let address = recipe.split_once("gitsm://")?.1.split(';').next()?;
        Some(format!("https://{address}"))
    });
    let address = address.with_context(|| format!("no repository in the recipes in {}", meta_mender.display()))?;
    let key = cache::key(recipes.iter().map(String::as_bytes));
    cache::entry("mender-client", &key[..16], |directory| {
        let clone = cmd!(sh, "git clone --quiet --mirror {address} {directory}").env("GIT_TERMINAL_PROMPT", "0");
        run(step, clone).map(drop)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_client_of_every_major_version_is_tested() {
        let directory = tempfile::tempdir().unwrap();
        assert!(versions(directory.path()).is_err());
        for name in
            ["mender_4.0.7.bb", "mender_5.0.9.bb", "mender_5.0.10.bb", "mender_git.bb", "mender-client_3.5.3.bb"]
        {
            directory::write(&directory.path().join(RECIPES).join(name), "").unwrap();
        }
        assert_eq!(versions(directory.path()).unwrap(), ["4.0.7", "5.0.10"]);
    }
}
