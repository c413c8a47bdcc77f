//! The metapackage, which recommends the packages of all Update Modules. Its files are in
//! `debian/mender-update-modules`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use flate2::{Compression, GzBuilder};
use host::command::run;
use host::directory;
use host::status::step;
use std::io::Write;
use xshell::{Shell, cmd};

use crate::dist::Built;
use crate::dist::modules::{COLLECTION, Workspace};

/// Makes the metapackage in `dist/`, checks it with lintian if it has changed, and returns its path.
pub fn make(sh: &Shell, built: &Built) -> Result<PathBuf> {
    let workspace = &built.workspace;
    let source = workspace.root.join("debian").join(COLLECTION);
    let tree = workspace.target.join("metapackage/tree");
    directory::empty(&tree)?;
    let documents = tree.join("usr/share/doc").join(COLLECTION);
    directory::write(&documents.join("copyright"), read(&workspace.root.join("debian/copyright"))?)?;
    let changelog = read(&source.join("changelog"))?;
    check_changelog(&changelog, workspace.version()?)?;
    directory::write(&documents.join("changelog.gz"), compressed(&changelog)?)?;
    let size = directory::files(&tree)?.len(); // each is smaller than the unit, a KiB
    let control = control(&read(&source.join("control"))?, workspace, size)?;
    directory::write(&tree.join("DEBIAN/control"), control)?;
    let sums = cmd!(sh, "md5sum").args(relative(&tree, &documents)?);
    let there = sh.push_dir(&tree);
    let sums = sums.quiet().read().context("hashing the files of the metapackage with md5sum failed")?;
    drop(there);
    directory::write(&tree.join("DEBIAN/md5sums"), sums + "\n")?;
    set_permissions(&tree)?;
    let deb = built.out.join(workspace.metapackage());
    let new = workspace.target.join("metapackage").join(workspace.metapackage());
    step("packaging the metapackage", |step| {
        let pack = cmd!(sh, "dpkg-deb --root-owner-group -Zxz --threads-max=1 --build {tree} {new}");
        run(step, pack.env("SOURCE_DATE_EPOCH", &built.epoch))
    })?;
    if fs::read(&deb).ok() != Some(fs::read(&new).with_context(|| format!("reading {} failed", new.display()))?) {
        let lint = |step: &_| run(step, cmd!(sh, "lintian --fail-on error --profile debian --allow-root {new}"));
        eprint!("{}", step("lintian: the metapackage", lint).context("lintian reports errors: correct them")?);
        fs::copy(&new, &deb).with_context(|| format!("copying the metapackage to {} failed", deb.display()))?;
    }
    Ok(deb)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {} failed", path.display()))
}

/// The paths of the files in `directory`, relative to `tree`.
fn relative(tree: &Path, directory: &Path) -> Result<Vec<PathBuf>> {
    let relative = |path: PathBuf| path.strip_prefix(tree).map(Path::to_owned).context("a file outside of its package");
    directory::files(directory)?.into_iter().map(relative).collect()
}

/// Gives all files in `tree` the permissions of a package, whatever the umask is.
fn set_permissions(tree: &Path) -> Result<()> {
    for path in directory::entries(tree)? {
        let mode = if path.is_dir() { 0o755 } else { 0o644 };
        fs::set_permissions(&path, Permissions::from_mode(mode))
            .with_context(|| format!("setting the permissions of {} failed", path.display()))?;
        if path.is_dir() {
            set_permissions(&path)?;
        }
    }
    fs::set_permissions(tree, Permissions::from_mode(0o755))
        .with_context(|| format!("setting the permissions of {} failed", tree.display()))
}

/// `text` as a changelog in a package: compressed without a time.
fn compressed(text: &str) -> Result<Vec<u8>> {
    let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
    gzip.write_all(text.as_bytes()).and_then(|()| gzip.finish()).context("compressing the changelog failed")
}

/// The content of `control` with the values of this work tree instead of its variables.
fn control(template: &str, workspace: &Workspace, size: usize) -> Result<String> {
    let modules = workspace.modules.iter();
    let mut modules: Vec<_> = modules.map(|module| module.debian.as_str()).collect();
    modules.sort_unstable();
    let text = template
        .replace("${version}", workspace.version()?)
        .replace("${maintainer}", env!("CARGO_PKG_AUTHORS"))
        .replace("${homepage}", env!("CARGO_PKG_REPOSITORY"))
        .replace("${modules}", &modules.join(", "))
        .replace("${size}", &size.to_string());
    let unknown = text.split_once("${").map(|(_, rest)| rest.split('}').next().unwrap_or(rest));
    ensure!(
        unknown.is_none(),
        "unknown variable in debian/{COLLECTION}/control: ${{{}}}: use version, maintainer, homepage, modules or size",
        unknown.unwrap_or_default()
    );
    Ok(text)
}

fn check_changelog(changelog: &str, version: &str) -> Result<()> {
    let expected = format!("{COLLECTION} ({version}) ");
    let first = changelog.lines().next().unwrap_or_default();
    ensure!(
        first.starts_with(&expected),
        "wrong version in debian/{COLLECTION}/changelog: the first line is {first:?}: begin it with {expected:?}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dist::modules::Module;

    fn workspace() -> Workspace {
        let module = |name: &str| Module { name: name.into(), version: "1.2.3".into(), debian: name.into() };
        let modules = ["mender-update-module-b", "mender-update-module-a"].map(module).into();
        Workspace { root: PathBuf::new(), target: PathBuf::new(), modules, tools: vec![module("generator")] }
    }

    #[test]
    fn update_modules_are_recommended() {
        let text = control("Version: ${version}\nRecommends: ${modules}\n", &workspace(), 2).unwrap();
        assert_eq!(text, "Version: 1.2.3\nRecommends: mender-update-module-a, mender-update-module-b\n");
        let error = control("Depends: ${shlibs}\n", &workspace(), 2).unwrap_err().to_string();
        assert!(error.contains("${shlibs}"), "{error}");
    }

    #[test]
    fn the_changelog_begins_with_the_version() {
        check_changelog("mender-update-modules (1.2.3) unstable", "1.2.3").unwrap();
        assert!(check_changelog("mender-update-modules (1.2.4) unstable", "1.2.3").is_err());
    }

    #[test]
    fn permissions_do_not_depend_on_the_umask() {
        let tree = tempfile::tempdir().unwrap();
        directory::write(&tree.path().join("a/b"), "").unwrap();
        fs::set_permissions(tree.path().join("a/b"), Permissions::from_mode(0o600)).unwrap();
        set_permissions(tree.path()).unwrap();
        let mode = |path: &str| tree.path().join(path).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(""), mode("a"), mode("a/b")), (0o755, 0o755, 0o644));
    }
}
