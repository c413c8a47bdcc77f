//! `cargo xtask new --standalone`: a crate outside this repository, with its tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use host::directory;
use xshell::Shell;

use super::{MODEL, Module, SAMPLE, TEMPLATE, fill_in, read};

/// The files of the crate that the module in the workspace does not have.
const STANDALONE: &str = "xtask/standalone";

/// Makes the crate of `module` in `directory`.
///
/// # Errors
/// When the name is invalid, or the directory is not empty. Then nothing is written.
pub fn make(sh: &Shell, module: &Module, directory: &Path) -> Result<()> {
    let root = sh.current_dir();
    module.check_name(&root)?;
    let is_empty = !directory.exists() || directory::entries(directory)?.is_empty();
    ensure!(is_empty, "making the crate failed: {} is not empty: choose another directory", directory.display());
    for (path, content) in files(sh, module, &root)? {
        directory::write(&directory.join(path), content)?;
    }
    println!(
        "The module {} replaces one file. Change it, and test it with\n    cd {}\n    cargo test\nREADME.md there describes how it \
         is installed on a device.",
        module.name,
        directory.display()
    );
    Ok(())
}

/// The crate's files, by their paths in it.
fn files(sh: &Shell, module: &Module, root: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let name = &module.name;
    let mut words = vec![
        ("@CHECK@", "cargo test --test suite".to_owned()),
        ("@SETTINGS@", format!("{name}.toml")),
        ("@REPOSITORY@", root.to_str().context("the path of this repository is not UTF-8")?.to_owned()),
    ];
    words.extend(module.words(sh, root)?);
    let template = root.join(TEMPLATE);
    let mut files = fill_in(&template.join("modules").join(SAMPLE), &words)?;
    files.extend(fill_in(&template.join("debian").join(SAMPLE), &words)?);
    files.retain(|path, _| !path.ends_with("changelog"));
    files.extend(fill_in(&root.join(STANDALONE), &words)?);
    let ignore = files.remove(Path::new("gitignore")).context("the template has no gitignore")?;
    files.insert(".gitignore".into(), ignore);
    files.insert("rustfmt.toml".into(), read(&root.join("rustfmt.toml"))?);
    // The versions with which this repository is tested.
    files.insert("Cargo.lock".into(), read(&root.join("Cargo.lock"))?);
    let unit = format!("mender-update-module-{MODEL}-recover.service");
    let unit_of_model = read(&root.join("debian").join(MODEL).join(&unit))?;
    files.insert(unit.replace(MODEL, name).into(), unit_of_model.replace(MODEL, name));
    Ok(files)
}
