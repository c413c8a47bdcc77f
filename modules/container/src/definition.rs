//! What an artifact says about what runs, in one of three forms, and the units that are made of it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use update_module::FileName;

use crate::compose;
use crate::engine::Engine;
use crate::image::{Image, ImageId, Reference};
use crate::name::Name;
use crate::project::{File, Service};
use crate::quadlet;
use crate::run::{self, Run};

/// One of the forms; the others are absent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Definition {
    /// Services, in the meta-data themselves.
    run: Option<BTreeMap<Name, Run>>,
    /// A payload file for a compose provider.
    compose: Option<FileName>,
    /// Payload files for podman's generator of units.
    quadlet: Option<Vec<FileName>>,
}

/// What a definition is made into units with.
pub struct Around<'a> {
    pub project: &'a Name,
    pub engine: &'a Engine,
    pub images: &'a [Image],
}

/// What came of it.
#[derive(Default)]
pub struct Defined {
    /// What is started.
    pub services: Vec<Service>,
    /// Units.
    pub units: Vec<File>,
    /// Files that units need.
    pub files: Vec<File>,
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
        Ok(())
    }

    /// Whether the payload file `name` is one of its own.
    pub fn has(&self, name: &FileName) -> bool {
        self.compose.iter().chain(self.quadlet.iter().flatten()).any(|file| file == name)
    }

    /// Makes units of it and its `files`; `folder` is where the project will be.
    ///
    /// # Errors
    /// When it is not what this device's engine can run, or a file is missing.
    pub fn define(
        &self,
        around: &Around,
        files: &BTreeMap<FileName, String>,
        folder: &std::path::Path,
    ) -> Result<Defined> {
        let file = |name: &FileName| {
            let text = files.get(name).with_context(|| format!("the artifact has no file {name}"))?;
            anyhow::Ok((name.clone(), text.clone()))
        };
        if let Some(services) = &self.run {
            return run::define(services, around);
        }
        if let Some(name) = &self.compose {
            return compose::define(file(name)?, around, folder);
        }
        let names = self.quadlet.iter().flatten();
        quadlet::define(names.map(file).collect::<Result<_>>()?, around)
    }
}

impl Around<'_> {
    /// The ID of the artifact's image `reference`.
    ///
    /// # Errors
    /// When it has none of that name.
    pub fn image(&self, reference: &Reference) -> Result<&ImageId> {
        let image = self.images.iter().find(|image| image.reference == *reference);
        Ok(&image.with_context(|| format!("{reference} is none of the artifact's images"))?.id)
    }
}
