//! `cargo xtask new --standalone`: a crate outside this repository, with its tests.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use host::{directory, script};
use xshell::Shell;

use super::{MODEL, Module, SAMPLE, TEMPLATE, fill_in, read, remove};

/// The files of the crate that the module in the workspace does not have.
const STANDALONE: &str = "xtask/standalone";

/// Makes the crate of `module` in the absolute path `directory`.
///
/// # Errors
/// When the name is invalid, the directory is not empty or is inside this repository, or a file cannot be written. Then
/// nothing is left behind.
pub fn make(sh: &Shell, module: &Module, directory: &Path) -> Result<()> {
    let root = sh.current_dir();
    module.check_name(&root)?;
    let directory =
        destination(directory, &root).with_context(|| format!("making the crate failed: {}", directory.display()))?;
    write(&directory, &files(sh, module, &root)?).context("making the crate failed, and its files are removed")?;
    println!(
        "The module {} replaces one file. Change it, and test it with\n    cd {}\n    cargo test\nREADME.md there describes how it \
         is installed on a device.",
        module.name,
        quoted(&directory.to_string_lossy())
    );
    Ok(())
}

/// The path of `directory` without symlinks, if a crate can be made there.
fn destination(directory: &Path, root: &Path) -> Result<PathBuf> {
    let directory = resolved(directory);
    if directory.starts_with(resolved(root)) {
        bail!(
            "inside the repository: name a directory outside it; `cargo xtask new NAME` adds a module to the workspace"
        );
    }
    // Also a symlink without target.
    if directory.symlink_metadata().is_ok() {
        ensure!(directory.is_dir(), "not a directory: name a new or an empty directory");
        ensure!(directory::entries(&directory)?.is_empty(), "not empty: name a new or an empty directory");
    }
    Ok(directory)
}

/// `path` without symlinks and `..`. Its last components may be missing.
fn resolved(path: &Path) -> PathBuf {
    let existing = path.ancestors().find_map(|ancestor| Some((ancestor, ancestor.canonicalize().ok()?)));
    let Some((ancestor, mut resolved)) = existing else { return path.to_owned() };
    let mut has_parent = false;
    for component in path.strip_prefix(ancestor).unwrap_or(path).components() {
        has_parent |= component == Component::ParentDir;
        match component {
            Component::ParentDir => drop(resolved.pop()),
            component => resolved.push(component),
        }
    }
    // What follows `..` can be a symlink.
    if has_parent { self::resolved(&resolved) } else { resolved }
}

/// Writes `files` in `directory`. If that fails, removes them, and the directories that it has made.
fn write(directory: &Path, files: &BTreeMap<PathBuf, String>) -> Result<()> {
    let made = directory.ancestors().take_while(|path| path.symlink_metadata().is_err()).last();
    for (path, content) in files {
        if let Err(error) = directory::write(&directory.join(path), content) {
            match made {
                Some(made) => directory::remove(made)?,
                None => directory::entries(directory)?.iter().for_each(|entry| drop(remove(entry))),
            }
            return Err(error);
        }
    }
    Ok(())
}

/// `text` as one word of a shell command.
fn quoted(text: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+@%:,=".contains(letter);
    if text.chars().all(is_plain) { text.to_owned() } else { script::quoted(text) }
}

/// The crate's files, by their paths in it.
fn files(sh: &Shell, module: &Module, root: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let name = &module.name;
    let mut words = vec![("@SETTINGS@", format!("{name}.toml")), ("@CHECK@", "cargo test --test suite".to_owned())];
    // These values replace those of a module in the workspace. The path comes last: it can contain any other word.
    let repository = root.to_str().context("the path of this repository is not UTF-8")?;
    let of_workspace = module.words(sh, root)?;
    let (sample, others) = of_workspace.split_first().context("the template has no words")?;
    words.insert(0, sample.clone());
    words.extend_from_slice(others);
    words.push(("@REPOSITORY@", repository.replace('\\', r"\\").replace('"', r#"\""#)));
    let template = root.join(TEMPLATE);
    let mut files = BTreeMap::new();
    for part in [&template.join("modules").join(SAMPLE), &template.join("debian").join(SAMPLE), &root.join(STANDALONE)]
    {
        add(&mut files, fill_in(part, &words)?)?;
    }
    files.retain(|path, _| !path.ends_with("changelog"));
    let ignore = files.remove(Path::new("gitignore")).context("the template has no gitignore")?;
    let unit = format!("mender-update-module-{MODEL}-recover.service");
    let unit_of_model = read(&root.join("debian").join(MODEL).join(&unit))?;
    let more = [
        (".gitignore".into(), ignore),
        ("rustfmt.toml".into(), read(&root.join("rustfmt.toml"))?),
        // The versions with which this repository is tested.
        ("Cargo.lock".into(), read(&root.join("Cargo.lock"))?),
        (unit.replace(MODEL, name).into(), unit_of_model.replace(MODEL, name)),
    ];
    add(&mut files, more.into())?;
    Ok(files)
}

/// Adds `more` to `files`. Only the manifest replaces another file.
fn add(files: &mut BTreeMap<PathBuf, String>, more: BTreeMap<PathBuf, String>) -> Result<()> {
    for (path, content) in more {
        let is_manifest = path.as_os_str() == "Cargo.toml";
        let twice = files.contains_key(&path) && !is_manifest;
        ensure!(!twice, "making the crate failed: it has two files {}: choose another name", path.display());
        files.insert(path, content);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
    }

    fn refused(directory: &Path) -> String {
        format!("{:#}", destination(directory, root()).expect_err("the directory was accepted"))
    }

    #[test]
    fn a_directory_inside_the_repository_is_refused() {
        let outside = tempfile::tempdir().unwrap();
        symlink(root(), outside.path().join("link")).unwrap();
        let missing = outside.path().join("missing");
        for path in ["link", "link/xtask/new", "missing/../link/a", "link/docs/../a"] {
            assert!(refused(&outside.path().join(path)).contains("inside the repository"), "{path}");
        }
        assert!(refused(&root().join("a/b")).contains("inside the repository"));
        assert_eq!(destination(&missing.join("a"), root()).unwrap(), resolved(outside.path()).join("missing/a"));
    }

    #[test]
    fn only_a_new_or_an_empty_directory_is_accepted() {
        let outside = tempfile::tempdir().unwrap();
        assert!(destination(outside.path(), root()).is_ok());
        let file = outside.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(refused(outside.path()).contains("not empty: name"));
        let dangling = outside.path().join("dangling");
        symlink("/missing", &dangling).unwrap();
        for path in [&file, &dangling] {
            assert!(refused(path).contains("not a directory: name"), "{}", path.display());
        }
    }

    #[test]
    fn a_crate_that_cannot_be_written_leaves_nothing() {
        let outside = tempfile::tempdir().unwrap();
        // A file has the name of a directory.
        let files = [("a", "a"), ("a/b", "b")].map(|(path, content)| (path.into(), content.to_owned())).into();
        for directory in [outside.path().join("x/y"), outside.path().to_owned()] {
            assert!(write(&directory, &files).is_err());
            assert_eq!(directory::entries(outside.path()).unwrap(), Vec::<PathBuf>::new());
        }
    }

    #[test]
    fn paths_are_quoted_for_the_shell() {
        assert_eq!(quoted("/srv/my-crate_2"), "/srv/my-crate_2");
        assert_eq!(quoted("/srv/my crate"), "'/srv/my crate'");
        assert_eq!(quoted("a'b"), r"'a'\''b'");
        assert_eq!(quoted("$(x)"), "'$(x)'");
    }

    #[test]
    fn the_path_of_the_repository_is_not_changed() {
        let outside = tempfile::tempdir().unwrap();
        let repository = outside.path().join(format!("{SAMPLE}s/\"@VERSION@"));
        for part in ["xtask", "debian", "Cargo.toml", "Cargo.lock", "rustfmt.toml"] {
            directory::write(&repository.join("made"), "").unwrap();
            symlink(root().join(part), repository.join(part)).unwrap();
        }
        let module = Module { name: "heat-pump".to_owned() };
        let files = files(&Shell::new().unwrap(), &module, &repository).unwrap();
        let manifest: toml_edit::DocumentMut = files[Path::new("Cargo.toml")].parse().unwrap();
        let path = manifest["dependencies"]["mender-update-module"]["path"].as_str().unwrap();
        assert_eq!(path, repository.join("modules/mender-update-module").to_str().unwrap());
    }

    #[test]
    fn a_file_is_never_replaced_by_another() {
        let suite = Module { name: "suite".to_owned() };
        let error = files(&Shell::new().unwrap(), &suite, root()).unwrap_err();
        assert!(error.to_string().contains("two files tests/suite.rs"), "{error}");
    }
}
