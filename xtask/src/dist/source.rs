//! The source archive of one module, from which the recipes of the Yocto layer build. It is a workspace of the module
//! and the crates of this project that it depends on, with a `Cargo.lock` of only their dependencies: BitBake builds
//! without a network, and downloads every crate in that file before.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use host::{cache, directory};
use tar::{Builder, EntryType, Header};
use toml_edit::{Array, DocumentMut, Item, value};
use xshell::{Shell, cmd};

use super::modules::{Module, Workspace};

/// The time of every file in an archive, in seconds, so that archives of the same content are identical. Cargo uses
/// the same time for its packages; some tools treat 0 as an error.
const TIME: u64 = 1_153_704_088;

/// A source, as files by their relative path.
pub struct Source {
    /// The name of the archive without its extension, and of the top directory in it: `PACKAGE-VERSION`.
    pub name: String,
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl Source {
    /// The source of `module`.
    pub fn of(sh: &Shell, workspace: &Workspace, module: &Module) -> Result<Self> {
        let root = &workspace.root;
        let manifest = manifest(&root.join("Cargo.toml"))?;
        let members = members(root, &manifest, &format!("modules/{}", module.name))?;
        let debian = format!("debian/{}", module.name);
        let mut files = BTreeMap::new();
        for path in tracked(sh, &members.iter().chain([&debian]).collect::<Vec<_>>())? {
            if members.iter().any(|member| path.starts_with(Path::new(member).join("tests"))) {
                continue;
            }
            let full = root.join(&path);
            let content = fs::read(&full).with_context(|| format!("reading {} failed", full.display()))?;
            files.insert(path, content);
        }
        for path in ["LICENSE", "debian/copyright"] {
            let content = fs::read(root.join(path)).with_context(|| format!("reading {path} failed"))?;
            files.insert(path.into(), content);
        }
        for member in &members {
            let path = Path::new(member).join("Cargo.toml");
            files.insert(path.clone(), without_tests(&root.join(path))?.into());
        }
        files.insert("Cargo.toml".into(), reduced(manifest, &members, root)?.into());
        let mut source = Self { name: format!("{}-{}", module.debian, module.version), files };
        let lock = source.lock(sh, workspace)?;
        source.files.insert("Cargo.lock".into(), lock);
        Ok(source)
    }

    /// The `Cargo.lock` of this source: cargo reduces the file of the work tree, and the versions remain the same.
    fn lock(&self, sh: &Shell, workspace: &Workspace) -> Result<Vec<u8>> {
        let sources = workspace.target.join("sources");
        // Commands that run at the same time make the same source.
        let _lock = cache::lock(&sources.join("lock"))?;
        let directory = sources.join(&self.name);
        directory::remove(&directory)?;
        self.write_to(&directory)?;
        let lock = directory.join("Cargo.lock");
        fs::copy(workspace.root.join("Cargo.lock"), &lock).context("copying Cargo.lock failed")?;
        update_lock(sh, &directory).context("reducing Cargo.lock to the crates of one module failed")?;
        fs::read(&lock).with_context(|| format!("reading {} failed", lock.display()))
    }

    /// Writes all files to `directory`.
    pub fn write_to(&self, directory: &Path) -> Result<()> {
        for (path, content) in &self.files {
            directory::write(&directory.join(path), content)?;
        }
        Ok(())
    }

    /// The content of its `Cargo.lock`.
    pub fn cargo_lock(&self) -> Result<&str> {
        let lock = self.files.get(Path::new("Cargo.lock")).context("no Cargo.lock in the source")?;
        std::str::from_utf8(lock).context("reading Cargo.lock as UTF-8 failed")
    }

    /// The file name of its archive.
    pub fn file_name(&self) -> String {
        format!("{}.tar.gz", self.name)
    }

    /// The content of the archive. It is reproducible: the same files give the same bytes.
    pub fn archive(&self) -> Result<Vec<u8>> {
        let mut tar = Builder::new(GzBuilder::new().write(Vec::new(), Compression::best()));
        for (path, content) in &self.files {
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Regular);
            header.set_mode(0o644);
            header.set_mtime(TIME);
            header.set_size(content.len() as u64);
            let path = Path::new(&self.name).join(path);
            tar.append_data(&mut header, &path, content.as_slice())
                .with_context(|| format!("adding {} to the archive failed", path.display()))?;
        }
        tar.into_inner().and_then(|gzip| gzip.finish()).context("compressing the archive failed")
    }
}

/// Updates the `Cargo.lock` of the workspace in `directory` for its members, and leaves all other versions unchanged.
pub fn update_lock(sh: &Shell, directory: &Path) -> Result<()> {
    let manifest = directory.join("Cargo.toml");
    let update = || cmd!(sh, "cargo update --workspace --quiet --manifest-path {manifest}").quiet();
    // After a build of the work tree, cargo has every index entry. Before it, cargo needs the network.
    let offline = update().arg("--offline").ignore_stderr().run();
    Ok(offline.or_else(|_| update().run())?)
}

/// The files below `paths` that git tracks or does not ignore.
pub fn tracked(sh: &Shell, paths: &[impl AsRef<OsStr>]) -> Result<Vec<PathBuf>> {
    let names = cmd!(sh, "git ls-files -z --cached --others --exclude-standard -- {paths...}")
        .quiet()
        .read()
        .context("listing the work tree with git failed: install git, and run the command in a clone")?;
    // git also lists a file that is deleted without a commit.
    let exists = |path: &PathBuf| sh.current_dir().join(path).is_file();
    Ok(names.split_terminator('\0').map(PathBuf::from).filter(exists).collect())
}

/// Reads a manifest, or another TOML file of cargo, at `path`.
pub fn manifest(path: &Path) -> Result<DocumentMut> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {} failed", path.display()))?;
    text.parse().with_context(|| format!("parsing {} failed", path.display()))
}

/// `member` and the crates of the workspace that it depends on, directly or not, as paths relative to `root`.
fn members(root: &Path, workspace: &DocumentMut, member: &str) -> Result<Vec<String>> {
    let mut members = vec![member.to_owned()];
    let mut done = 0;
    while let Some(member) = members.get(done) {
        let manifest = manifest(&root.join(member).join("Cargo.toml"))?;
        for name in dependencies(&manifest) {
            let path = workspace["workspace"]["dependencies"].get(name).and_then(|item| item.get("path"));
            if let Some(path) = path.and_then(Item::as_str).filter(|path| !members.iter().any(|m| m == path)) {
                members.push(path.to_owned());
            }
        }
        done += 1;
    }
    members.sort();
    Ok(members)
}

fn dependencies(manifest: &DocumentMut) -> Vec<&str> {
    let table = manifest.get("dependencies").and_then(Item::as_table_like);
    table.map(|table| table.iter().map(|(name, _)| name).collect()).unwrap_or_default()
}

/// The manifest at `path` without dependencies and targets of tests.
fn without_tests(path: &Path) -> Result<String> {
    let mut manifest = manifest(path)?;
    // Cargo requires the files of targets in the manifest, and the archive has no tests.
    for part in ["dev-dependencies", "test", "bench"] {
        manifest.remove(part);
    }
    Ok(manifest.to_string())
}

/// The manifest of the workspace for `members` alone, with only their dependencies.
fn reduced(mut workspace: DocumentMut, members: &[String], root: &Path) -> Result<String> {
    let mut used = Vec::new();
    for member in members {
        let manifest = manifest(&root.join(member).join("Cargo.toml"))?;
        used.extend(dependencies(&manifest).into_iter().map(str::to_owned));
    }
    workspace["workspace"]["members"] = value(members.iter().collect::<Array>());
    let table = workspace["workspace"]["dependencies"].as_table_like_mut();
    let table = table.context("no table workspace.dependencies in Cargo.toml")?;
    let unused: Vec<_> = table.iter().map(|(name, _)| name.to_owned()).filter(|name| !used.contains(name)).collect();
    unused.iter().for_each(|name| drop(table.remove(name)));
    Ok(workspace.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workspace of a library, a module that uses it, and a tool.
    fn workspace(root: &Path) -> DocumentMut {
        let write = |path: &str, text: &str| {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), text).unwrap();
        };
        write("modules/library/Cargo.toml", "[dependencies]\ntar.workspace = true\n");
        write(
            "modules/module/Cargo.toml",
            "[dependencies]\nlibrary.workspace = true\n\n[dev-dependencies]\ntool.workspace = true\n\n\
             [[test]]\nname = \"t\"\n",
        );
        write("tool/Cargo.toml", "[dependencies]\nclap.workspace = true\n");
        "[workspace]\nmembers = [\"modules/*\", \"tool\"]\n\n[workspace.dependencies]\nclap = \"4\" # typed\n\
         library = { path = \"modules/library\" }\ntar = \"0.4\"\ntool = { path = \"tool\" }\n"
            .parse()
            .unwrap()
    }

    #[test]
    fn a_source_has_the_dependencies_of_its_module_and_no_tests() {
        let root = tempfile::tempdir().unwrap();
        let manifest = workspace(root.path());
        let members = members(root.path(), &manifest, "modules/module").unwrap();
        assert_eq!(members, ["modules/library", "modules/module"]);
        let reduced = reduced(manifest, &members, root.path()).unwrap();
        let expected = "[workspace]\nmembers = [\"modules/library\", \"modules/module\"]\n\n\
                        [workspace.dependencies]\n\
                        library = { path = \"modules/library\" }\ntar = \"0.4\"\n";
        assert_eq!(reduced, expected);
        let module = without_tests(&root.path().join("modules/module/Cargo.toml")).unwrap();
        assert_eq!(module, "[dependencies]\nlibrary.workspace = true\n");
    }

    #[test]
    fn archives_are_reproducible() {
        let source = |content: &str| Source {
            name: "module-1.0".to_owned(),
            files: [("src/main.rs", content), ("Cargo.toml", "")]
                .map(|(path, content)| (PathBuf::from(path), content.as_bytes().to_vec()))
                .into(),
        };
        let archive = source("fn main() {}").archive().unwrap();
        assert_eq!(archive, source("fn main() {}").archive().unwrap());
        assert_ne!(archive, source("fn main() {").archive().unwrap());
        let mut names = Vec::new();
        for entry in tar::Archive::new(flate2::read::GzDecoder::new(archive.as_slice())).entries().unwrap() {
            names.push(entry.unwrap().path().unwrap().into_owned());
        }
        assert_eq!(names, [Path::new("module-1.0/Cargo.toml"), Path::new("module-1.0/src/main.rs")]);
    }
}
