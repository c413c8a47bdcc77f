//! Artifacts, made by the real mender-artifact.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use xshell::{Shell, cmd};

/// An artifact with one payload.
pub struct Artifact<'a> {
    /// The payload type: the module's name.
    pub module: &'a str,
    /// The artifact's name.
    pub name: &'a str,
    /// The device type that it is for.
    pub device_type: &'a str,
    /// Names and contents of the payload's files.
    pub files: Vec<(&'a str, Vec<u8>)>,
    /// JSON for the module.
    pub meta_data: Option<String>,
}

impl Artifact<'_> {
    /// Writes it to `directory` and returns its path.
    ///
    /// # Errors
    /// When mender-artifact fails.
    pub fn write(&self, sh: &Shell, directory: &Path) -> Result<PathBuf> {
        let Self { module, name, device_type, files, meta_data } = self;
        let payload = directory.join(format!("{name}.payload"));
        fs::create_dir_all(&payload).with_context(|| format!("making {}", payload.display()))?;
        let put = |path: &Path, content: &[u8]| {
            fs::write(path, content).with_context(|| format!("writing {}", path.display()))
        };
        let mut arguments = Vec::new();
        for (name, content) in files {
            let path = payload.join(name);
            put(&path, content)?;
            arguments.extend(["--file".into(), path.into_os_string()]);
        }
        if let Some(json) = meta_data {
            let path = directory.join(format!("{name}.meta-data"));
            put(&path, json.as_bytes())?;
            arguments.extend(["--meta-data".into(), path.into_os_string()]);
        }
        let artifact = directory.join(format!("{name}.mender"));
        cmd!(sh, "mender-artifact write module-image --type {module} --artifact-name {name} --device-type {device_type}")
            .args(["--software-filesystem", "data-partition"])
            .arg("--output-path")
            .arg(&artifact)
            .args(arguments)
            .quiet()
            .ignore_stdout()
            .run()
            .with_context(|| format!("making the artifact {}", artifact.display()))?;
        Ok(artifact)
    }
}

/// An archive of the `files`, made by the real tar as Mender's generator calls it, but with fixed owners.
///
/// # Errors
/// When tar fails.
pub fn archive(sh: &Shell, directory: &Path, files: &[(&str, &str)]) -> Result<Vec<u8>> {
    let tree = directory.join("tree");
    for (name, content) in files {
        let path = tree.join(name);
        sh.write_file(&path, content).with_context(|| format!("writing {}", path.display()))?;
        if content.starts_with("#!") {
            cmd!(sh, "chmod 755 {path}").quiet().run()?;
        }
    }
    let tar = cmd!(
        sh,
        "tar --create --format=posix --sort=name --owner=root:0 --group=root:0 --directory {tree} ."
    );
    let archive = tar.quiet().output().context("making an archive")?.stdout;
    sh.remove_path(&tree).context("removing the tree that the archive was made of")?;
    Ok(archive)
}

/// The package `deb` with a version that is a little newer and everything else unchanged, taken apart in `directory`.
///
/// # Errors
/// When dpkg-deb fails.
pub fn newer(sh: &Shell, deb: &Path, directory: &Path) -> Result<Vec<u8>> {
    cmd!(sh, "dpkg-deb --raw-extract {deb} {directory}").quiet().run()?;
    let control = directory.join("DEBIAN/control");
    let newer = |line: &str| {
        if line.starts_with("Version: ") { format!("{line}+newer\n") } else { format!("{line}\n") }
    };
    let text: String = sh.read_file(&control)?.lines().map(newer).collect();
    sh.write_file(&control, text)?;
    let packed = directory.with_extension("deb");
    // gzip: an emulated CPU takes a minute for what xz saves.
    cmd!(sh, "dpkg-deb --root-owner-group -Zgzip --build {directory} {packed}")
        .quiet()
        .ignore_stdout()
        .run()?;
    fs::read(&packed).with_context(|| format!("reading {}", packed.display()))
}
