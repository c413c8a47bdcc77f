//! What an artifact says about what runs, in one of three forms, and the units that are made of it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use mender_update_module::FileName;
use serde::{Deserialize, Serialize};

use crate::carried::Carried;
use crate::compose;
use crate::engine::{Engine, Listed};
use crate::image::{ImageId, Reference};
use crate::name::Name;
use crate::project::{File, Service};
use crate::quadlet;
use crate::run::{self, Run};

/// The most files of a definition.
const FILES: usize = 100;

/// One of the forms; the others are absent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Definition {
    /// Services, in the meta-data themselves.
    run: Option<BTreeMap<Name, Run>>,
    /// Files for a compose provider.
    compose: Option<Files>,
    /// Of the compose files, the profiles that are active.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    profiles: Vec<String>,
    /// Files for podman's generator of units.
    quadlet: Option<Vec<FileName>>,
    /// A payload file: a tar archive with files of the definition, and what containers read beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    archive: Option<FileName>,
}

/// One file, or several.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Files {
    One(FileName),
    Many(Vec<FileName>),
}

impl Files {
    fn all(&self) -> &[FileName] {
        match self {
            Files::One(file) => std::slice::from_ref(file),
            Files::Many(files) => files,
        }
    }
}

/// What a definition is made into units with.
pub struct Around<'a> {
    pub project: &'a Name,
    pub engine: &'a Engine,
    /// The artifact's images by the names that the engine lists them by, with the engine's IDs.
    pub images: &'a BTreeMap<Reference, ImageId>,
    /// All images of the device.
    pub listed: &'a [Listed],
    /// Images of the device's that the definition names, and the artifact does not.
    pub others: RefCell<BTreeSet<(ImageId, Reference)>>,
    /// The files that the artifact carries.
    pub carried: &'a Carried,
    /// Where these will be.
    pub directory: &'a Path,
}

/// What came of it.
#[derive(Default)]
pub struct Defined {
    /// What is started.
    pub services: Vec<Service>,
    /// Units.
    pub units: Vec<File>,
    /// Files that units need, beside those that are carried.
    pub files: Vec<File>,
    /// Names of containers and pods that units make.
    pub containers: Vec<String>,
    pub pods: Vec<String>,
}

impl Definition {
    /// Refuses one that is in no form, or in several.
    ///
    /// # Errors
    /// For these.
    pub fn check(&self) -> Result<()> {
        let forms = [self.run.is_some(), self.compose.is_some(), self.quadlet.is_some()];
        ensure!(
            forms.into_iter().filter(|given| *given).count() == 1,
            "the meta-data need exactly one of run, compose and quadlet"
        );
        ensure!(self.files().count() <= FILES, "the meta-data name more than {FILES} files of a definition");
        ensure!(
            self.profiles.is_empty() || self.compose.is_some(),
            "profiles are for compose: leave them out"
        );
        let is_profile = |profile: &String| {
            let known = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
            profile.starts_with(|c: char| c.is_ascii_alphanumeric()) && profile.chars().all(known)
        };
        if let Some(profile) = self.profiles.iter().find(|profile| !is_profile(profile)) {
            anyhow::bail!("{profile:?} is not the name of a profile: letters, digits, _, . and -");
        }
        let mut seen = BTreeSet::new();
        if let Some(file) = self.files().find(|file| !seen.insert(*file)) {
            anyhow::bail!("the meta-data name {file} twice");
        }
        Ok(())
    }

    fn files(&self) -> impl Iterator<Item = &FileName> {
        let compose = self.compose.iter().flat_map(Files::all);
        compose.chain(self.quadlet.iter().flatten())
    }

    /// Whether the payload file `name` is one of its own.
    pub fn has(&self, name: &FileName) -> bool {
        self.files().any(|file| file == name)
    }

    /// The payload file with its archive.
    pub fn archive(&self) -> Option<&FileName> {
        self.archive.as_ref()
    }

    /// Makes units of it.
    ///
    /// # Errors
    /// When it is not what this device's engine can run, or a file is missing.
    pub fn define(&self, around: &Around) -> Result<Defined> {
        let text = |name: &FileName| anyhow::Ok((name.clone(), around.carried.definition(name)?));
        if let Some(services) = &self.run {
            return run::define(services, around);
        }
        if let Some(files) = &self.compose {
            let files: Vec<_> = files.all().iter().map(text).collect::<Result<_>>()?;
            return compose::define(&files, &self.profiles, around);
        }
        let names = self.quadlet.iter().flatten();
        quadlet::define(names.map(text).collect::<Result<_>>()?, around)
    }
}

impl Around<'_> {
    /// The engine's ID of the image `reference`: the artifact's, or one that the device has.
    ///
    /// # Errors
    /// When neither has one.
    pub fn image(&self, reference: &str) -> Result<ImageId> {
        let has_tag = reference.rsplit('/').next().is_some_and(|name| name.contains([':', '@']));
        // What engines and providers take a name without a tag for.
        let reference = if has_tag { reference.to_owned() } else { format!("{reference}:latest") };
        let reference = Reference::try_from(reference)?.as_listed(self.engine.kind);
        if let Some(id) = self.images.get(&reference) {
            return Ok(id.clone());
        }
        let found = self.listed.iter().find(|listed| listed.reference.as_deref() == Some(reference.as_ref()));
        let id = found.map(|listed| listed.id.clone()).with_context(|| {
            format!(
                "the image {reference} is neither in the artifact nor on the device: put it into the artifact"
            )
        })?;
        self.others.borrow_mut().insert((id.clone(), reference));
        Ok(id)
    }

    /// Where the carried file or directory `path` will be.
    pub fn path(&self, path: &str) -> Result<String> {
        let path = if path.is_empty() { self.directory.to_owned() } else { self.directory.join(path) };
        Ok(path.to_str().context("the path of the project is not UTF-8")?.to_owned())
    }

    /// The name of the volume for `target`, a directory of `service` that an image declares as a volume, or that a
    /// definition gives none: it stays for all versions.
    pub fn volume(&self, service: &str, target: &str) -> String {
        let mut name = format!("{}.{service}", self.project);
        for byte in target.bytes() {
            match byte {
                b'/' => name.push('.'),
                b'-' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => name.push(byte.into()),
                _ => name += &format!("_{byte:02x}"),
            }
        }
        name
    }

    /// The directories that the image `id` declares as volumes, without those where `mounted` says that something is.
    ///
    /// # Errors
    /// When the engine fails.
    pub fn open_volumes(&self, id: &ImageId, mounted: &BTreeSet<String>) -> Result<Vec<String>> {
        let mut volumes = self.engine.declared_volumes(id)?;
        volumes.retain(|path| !mounted.contains(path.trim_end_matches('/')));
        Ok(volumes)
    }
}
