//! Artifacts, made by the real mender-artifact, and their payloads.

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
    /// The compatible device type.
    pub device_type: &'a str,
    /// Names and contents of the payload's files.
    pub files: Vec<(&'a str, Vec<u8>)>,
    /// The meta-data for the module, as JSON.
    pub meta_data: Option<String>,
}

impl Artifact<'_> {
    /// Writes the artifact to `directory` and returns its path.
    pub fn write(&self, sh: &Shell, directory: &Path) -> Result<PathBuf> {
        let Self { module, name, device_type, files, meta_data } = self;
        let mut arguments = Vec::new();
        for path in write_files(&directory.join(format!("{name}.payload")), files)? {
            arguments.extend(["--file".into(), path.into_os_string()]);
        }
        if let Some(json) = meta_data {
            let path = directory.join(format!("{name}.meta-data"));
            write_file(&path, json.as_bytes())?;
            arguments.extend(["--meta-data".into(), path.into_os_string()]);
        }
        let artifact = directory.join(format!("{name}.mender"));
        cmd!(sh, "mender-artifact write module-image --type {module} --artifact-name {name}")
            .args(["--device-type", device_type, "--software-filesystem", "data-partition"])
            .arg("--output-path")
            .arg(&artifact)
            .args(arguments)
            .quiet()
            .ignore_stdout()
            .run()
            .with_context(|| format!("writing the artifact {} failed", artifact.display()))?;
        Ok(artifact)
    }
}

/// An artifact with one payload, made by the project's generator for its module.
pub struct Generated<'a> {
    /// The module's name.
    pub module: &'a str,
    /// The artifact's name.
    pub name: &'a str,
    /// The compatible device type.
    pub device_type: &'a str,
    /// The options of the generator.
    pub options: &'a [&'a str],
    /// Names and contents of the files that the generator gets.
    pub files: Vec<(&'a str, Vec<u8>)>,
}

impl Generated<'_> {
    /// Runs the executable `generator`, which writes the artifact to `directory`, and returns its path.
    pub fn write(&self, sh: &Shell, generator: &Path, directory: &Path) -> Result<PathBuf> {
        let Self { module, name, device_type, options, files } = self;
        let paths = write_files(&directory.join(format!("{name}.input")), files)?;
        let artifact = directory.join(format!("{name}.mender"));
        cmd!(sh, "{generator} {module} --artifact-name {name} --device-type {device_type} --output-path {artifact}")
            .args(options.iter())
            .args(paths)
            .quiet()
            .ignore_stdout()
            .run()
            .with_context(|| format!("generating the artifact {} failed", artifact.display()))?;
        Ok(artifact)
    }
}

/// Writes `files`, names and contents, to `directory`, which is made, and returns their paths.
fn write_files(directory: &Path, files: &[(&str, Vec<u8>)]) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(directory).with_context(|| format!("creating {} failed", directory.display()))?;
    let write = |(name, content): &(&str, Vec<u8>)| {
        let path = directory.join(name);
        write_file(&path, content)?;
        Ok(path)
    };
    files.iter().map(write).collect()
}

fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content).with_context(|| format!("writing {} failed", path.display()))
}

/// A tar archive of `files`, made by tar as Mender's generator runs it, but with fixed owners. A file that starts with
/// `#!` is executable.
pub fn archive(sh: &Shell, directory: &Path, files: &[(&str, &str)]) -> Result<Vec<u8>> {
    let tree = directory.join("tree");
    for (name, content) in files {
        let path = tree.join(name);
        sh.write_file(&path, content).with_context(|| format!("writing {} failed", path.display()))?;
        if content.starts_with("#!") {
            cmd!(sh, "chmod 755 {path}").quiet().run()?;
        }
    }
    let tar = cmd!(sh, "tar --create --format=posix --sort=name --owner=root:0 --group=root:0 --directory {tree} .");
    let archive = tar.quiet().output().context("creating an archive failed")?.stdout;
    sh.remove_path(&tree).context("removing the files of the archive failed")?;
    Ok(archive)
}

/// Writes the package `deb` with another version and no other change, and returns its path. `version` gets the present
/// version. The package is unpacked in `directory`.
pub fn with_version(sh: &Shell, deb: &Path, directory: &Path, version: impl Fn(&str) -> String) -> Result<PathBuf> {
    cmd!(sh, "dpkg-deb --raw-extract {deb} {directory}").quiet().run()?;
    let control = directory.join("DEBIAN/control");
    let line = |line: &str| match line.strip_prefix("Version: ") {
        Some(present) => format!("Version: {}\n", version(present)),
        None => format!("{line}\n"),
    };
    let text: String = sh.read_file(&control)?.lines().map(line).collect();
    sh.write_file(&control, text)?;
    let packed = directory.with_extension("deb");
    // gzip, because an emulated CPU takes a minute longer to decompress xz.
    cmd!(sh, "dpkg-deb --root-owner-group -Zgzip --build {directory} {packed}").quiet().ignore_stdout().run()?;
    Ok(packed)
}
