//! The check of an artifact before it is packed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use mender_update_module::{ArtifactContent, PayloadFile};

use crate::checks::restorable::require_regular_conffiles;
use crate::dpkg::stanza::Stanza;
use crate::options::{MetaData, Settings};
use crate::payload::deb::{self, Control};
use crate::payload::staging::{Format, TAR_HEADER, each_package, require_packages};
use crate::relations;

/// A package that an artifact would install.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture; `all` for one that fits every device.
    pub architecture: String,
}

/// What an artifact would change.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// The packages that it installs.
    pub packages: Vec<Package>,
    /// The packages that it removes.
    pub removed: Vec<String>,
    /// The dependencies that no package of the artifact satisfies: the device has to have them. Sorted.
    pub needs: Vec<String>,
}

/// Checks `content` as Download and ArtifactInstall do, as far as that does not depend on the device. It needs dpkg-deb
/// and dpkg. Packages of tar archives are unpacked in the directory `scratch`.
///
/// # Errors
/// What every device with default settings would refuse, and the remedy; and dependencies and conflicts between the
/// packages.
pub fn check(content: &ArtifactContent, scratch: &Path) -> Result<Checked> {
    content.check_common()?;
    let meta_data: MetaData = content.meta_data()?.unwrap_or_default();
    let mut debs = Vec::new();
    for file in &content.files {
        debs.extend(packages(file, scratch)?);
    }
    require_packages(debs.len(), !meta_data.remove.is_empty())?;
    let mut stanzas = Vec::new();
    let (mut seen, mut files) = (BTreeSet::new(), Settings::default().max_files);
    for path in &debs {
        let Control { stanza, conffiles, .. } = deb::control(path)?;
        stanza.file_name()?;
        let name = stanza.dpkg_name()?;
        ensure!(
            seen.insert(name.clone()),
            "invalid artifact: package {} is there twice: keep one of them",
            stanza.required("Package")?
        );
        let (items, _) = deb::items(path, files, u64::MAX).with_context(|| format!("package {name} refused"))?;
        files -= items.len();
        require_regular_conffiles(stanza.required("Package")?, &conffiles, &items)?;
        stanzas.push(stanza);
    }
    let needs = relations::check(&stanzas)?;
    let removed = meta_data.remove.into_iter().map(|name| name.0).collect();
    Ok(Checked { packages: stanzas.iter().map(package).collect::<Result<_>>()?, removed, needs })
}

fn package(stanza: &Stanza) -> Result<Package> {
    let field = |name: &str| stanza.required(name).map(str::to_owned);
    Ok(Package { name: field("Package")?, version: field("Version")?, architecture: field("Architecture")? })
}

/// The paths of the packages in a payload file, which is a package or a tar archive of some.
fn packages(file: &PayloadFile, scratch: &Path) -> Result<Vec<PathBuf>> {
    let reading = || format!("reading the payload file {} failed", file.name);
    let mut content = file.open()?;
    let mut head = Vec::new();
    (&mut content).take(TAR_HEADER as u64).read_to_end(&mut head).with_context(reading)?;
    if Format::of(&head, &file.name)? == Format::Package {
        return Ok(vec![file.path.clone()]);
    }
    content.seek(SeekFrom::Start(0)).with_context(reading)?;
    let directory = unpacking_directory(scratch, file)?;
    let mut paths = Vec::new();
    each_package(content, |shown, size, content| {
        let path = directory.join(format!("{}.deb", paths.len()));
        let unpacking = || format!("unpacking {shown} to {} failed", path.display());
        let read = File::create(&path).and_then(|mut to| io::copy(content, &mut to)).with_context(unpacking)?;
        ensure!(read == size, "invalid archive: {shown}: truncated");
        paths.push(path);
        Ok(())
    })
    .with_context(reading)?;
    Ok(paths)
}

/// A directory in `scratch` for the packages of `file`.
fn unpacking_directory(scratch: &Path, file: &PayloadFile) -> Result<PathBuf> {
    let mut name = Path::new("packages-of-").as_os_str().to_owned();
    name.push(file.name.as_ref());
    let directory = scratch.join(name);
    std::fs::create_dir(&directory).with_context(|| format!("creating {} failed", directory.display()))?;
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use mender_update_module::FileName;
    use mender_update_module_test::debian;
    use tar::EntryType;

    use super::*;
    use crate::test_device::{deb_of, error, tar};

    /// Checks payload files with these contents, and the meta-data `meta_data`.
    fn checked(contents: &[Vec<u8>], meta_data: &str) -> Result<Checked> {
        let directory = tempfile::tempdir()?;
        let mut files = Vec::new();
        for (number, content) in contents.iter().enumerate() {
            let path = directory.path().join(number.to_string());
            fs::write(&path, content)?;
            files.push(PayloadFile { name: FileName::new(format!("file-{number}"))?, path });
        }
        check(&ArtifactContent { meta_data: Some(meta_data.into()), files }, directory.path())
    }

    #[test]
    fn the_packages_of_all_payload_files_are_found() {
        let [a, b, c] =
            ["a", "b", "c"].map(|name| debian::Package::new(name, "1").field("Depends", "libx").build().unwrap());
        let archive = tar(&[(EntryType::Regular, "d/x.deb", &b), (EntryType::Regular, "y.deb", &c)]);
        let Checked { packages, removed, needs } = checked(&[a.clone(), archive], r#"{"remove": ["old"]}"#).unwrap();
        let shown: Vec<_> = packages.iter().map(|it| [&it.name[..], &it.version, &it.architecture].join(" ")).collect();
        assert_eq!(
            (shown.join(", "), removed, needs),
            ("a 1 all, b 1 all, c 1 all".into(), vec!["old".into()], vec!["libx".into()])
        );
        assert!(error(checked(&[a.clone(), a], "null")).contains("package a is there twice"));
    }

    #[test]
    fn an_artifact_needs_a_package_to_install_or_remove() {
        assert!(error(checked(&[], "null")).contains("no packages"));
        assert_eq!(checked(&[], r#"{"remove": ["old"]}"#).unwrap().packages, []);
        assert!(error(checked(&[b"text".to_vec()], "null")).contains("file-0"));
    }

    #[test]
    fn all_packages_share_the_limit_of_files() {
        let package = |name: &str, files| {
            let control = format!("Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\n");
            deb_of(
                &tar(&[(EntryType::Regular, "control", control.as_bytes())]),
                &tar(&[(EntryType::Regular, "x", b"")]).repeat(files),
            )
        };
        checked(&[package("a", 10_001), package("b", 9_999)], "null").unwrap();
        assert!(
            error(checked(&[package("a", 10_001), package("b", 10_000)], "null")).contains("package b:all refused")
        );
    }
}
