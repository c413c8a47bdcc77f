//! The definition of what a project runs, in one of three forms, and the build of units from it.

pub mod build_context;
pub mod built_project;
pub mod compose;
pub mod quadlet;
mod run;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail, ensure};
use mender_update_module::FileName;
use serde::{Deserialize, Serialize};

use crate::name::Name;
use crate::project::File;
use build_context::BuildContext;
use built_project::BuiltProject;
use run::Run;

/// The most files of a definition.
const FILES: usize = 100;

/// A definition in one of the forms; the fields of the others are absent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Definition {
    /// Services, in the meta-data themselves.
    run: Option<BTreeMap<Name, Run>>,
    /// Compose files.
    compose: Option<Files>,
    /// The active profiles of the compose files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    profiles: Vec<String>,
    /// Quadlet files for podman's generator.
    quadlet: Option<Vec<FileName>>,
    /// A payload file: a tar archive with files of the definition, and files that containers read.
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

impl Definition {
    /// Refuses a definition in no form or in several, and invalid profiles and files.
    ///
    /// # Errors
    /// What is invalid, and the remedy.
    pub fn check(&self) -> Result<()> {
        let forms = [self.run.is_some(), self.compose.is_some(), self.quadlet.is_some()];
        ensure!(
            forms.into_iter().filter(|given| *given).count() == 1,
            "invalid meta-data: use exactly one of run, compose and quadlet"
        );
        ensure!(self.files().count() <= FILES, "invalid meta-data: more than {FILES} files of the definition");
        ensure!(
            self.profiles.is_empty() || self.compose.is_some(),
            "invalid meta-data: profiles without compose: remove profiles"
        );
        let is_profile = |profile: &String| {
            let is_allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
            profile.starts_with(|c: char| c.is_ascii_alphanumeric()) && profile.chars().all(is_allowed)
        };
        if let Some(profile) = self.profiles.iter().find(|profile| !is_profile(profile)) {
            bail!(
                "invalid meta-data: profiles: {profile:?}: use letters, digits, '_', '.' and '-', a letter or digit \
                 first"
            );
        }
        let mut seen = BTreeSet::new();
        if let Some(file) = self.files().find(|file| !seen.insert(*file)) {
            bail!("invalid meta-data: duplicate file {file}: name it once");
        }
        Ok(())
    }

    fn files(&self) -> impl Iterator<Item = &FileName> {
        let compose = self.compose.iter().flat_map(Files::all);
        compose.chain(self.quadlet.iter().flatten())
    }

    /// Whether the payload file `name` belongs to the definition.
    pub fn has(&self, name: &FileName) -> bool {
        self.files().any(|file| file == name)
    }

    /// The payload file that is an archive of files.
    pub fn archive(&self) -> Option<&FileName> {
        self.archive.as_ref()
    }

    /// Builds the units.
    ///
    /// # Errors
    /// When a file is missing, or this device's engine cannot run or roll back the definition.
    pub fn build(&self, context: &BuildContext) -> Result<BuiltProject> {
        match &self.run {
            Some(services) => run::build(services, context),
            None if self.compose.is_some() => compose::build(&self.read(context)?, &self.profiles, context),
            None => quadlet::build(self.read(context)?, context),
        }
    }

    /// Checks what [`build`](Self::build) checks, without the programs of the device: the compose provider, and
    /// podman's generator.
    ///
    /// # Errors
    /// When a file is missing, or no device can run or roll back the definition.
    pub fn check_files(&self, context: &BuildContext) -> Result<()> {
        match &self.run {
            Some(services) => run::build(services, context).map(drop),
            None if self.compose.is_some() => {
                compose::assemble(&self.read(context)?, &self.profiles, context).map(drop)
            }
            None => quadlet::check(self.read(context)?, context),
        }
    }

    /// The names and contents of the files.
    fn read(&self, context: &BuildContext) -> Result<Vec<File>> {
        self.files().map(|name| Ok((name.clone(), context.files.definition(name)?))).collect()
    }
}
