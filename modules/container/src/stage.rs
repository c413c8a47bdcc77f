//! The staging of an update, in Download: images in the engine, and the directory of the project beside the active one.

use std::cell::RefCell;
use std::path::PathBuf;

use anyhow::Result;
use mender_update_module::durable::{self, Dir, ExchangeNames, Known};
use mender_update_module::{FileName, Payloads};

use crate::artifact_files::ArtifactFiles;
use crate::conflicts::Claims;
use crate::forms::build_context::BuildContext;
use crate::forms::built_project::BuiltProject;
use crate::image::{ImageId, Reference};
use crate::load::{EngineIds, Loader};
use crate::project::{self, FILES, Project};
use crate::reserved_names;
use crate::update::ProjectUpdate;

impl ProjectUpdate {
    /// Loads the images and writes the new project, durably. Nothing is active yet.
    ///
    /// # Errors
    /// When the payload is not as the meta-data describe it, cannot be run or rolled back, or does not fit.
    pub fn stage(&mut self, payloads: &mut Payloads) -> Result<()> {
        durable::remove_tree(&self.staged())?;
        // It is open before the first write: Linux does not report a lost write to a descriptor that is opened after
        // another program has seen it.
        let staged = durable::make_dirs(&self.staged())?;
        self.check_exchange(&staged)?;
        let mut files = ArtifactFiles::new(self.staged().join(FILES), self.reserve);
        let storage = self.engine.open_storage()?;
        let loaded = self.load(payloads, &mut files);
        self.engine.remove_temporary_files();
        self.engine_ids = loaded?;
        self.tag()?;
        self.tags().remove_loaded_names()?;
        self.build(&files)?;
        storage.sync()?;
        self.staged_directory = Some(Known::own(&self.staged())?);
        let has_previous = durable::exists(&self.active())?;
        self.previous_directory = has_previous.then(|| Known::own(&self.active())).transpose()?;
        self.previous_images = Project::read(&self.active())?.images;
        durable::make_dirs(&project::directory(&self.state_directory))?;
        staged.sync_filesystem() // on which the active projects are, too
    }

    /// Checks that the directory of the active version can be exchanged with `staged`, the empty directory of the new
    /// one.
    fn check_exchange(&self, staged: &Dir) -> Result<()> {
        let name = FileName::new("exchanged")?;
        staged.make_child(&name, 0o700)?;
        staged.check_exchange(&name)?;
        durable::remove_empty_dir(&staged.path().join(&name))?;
        self.open_parent()?.map_or(Ok(()), |projects| projects.require_same_mount(staged))
    }

    fn load(&self, payloads: &mut Payloads, files: &mut ArtifactFiles) -> Result<EngineIds> {
        let Self { project, engine, images, definition, reserve, .. } = self;
        let mut known = EngineIds::new();
        for other in project::all(&self.state_directory)? {
            known.extend(other.engine_ids);
        }
        Loader { project, engine, images, definition, reserve: *reserve, known }.load(payloads, files)
    }

    /// Gives every image its reference, and a name that protects it from being removed as unused.
    fn tag(&self) -> Result<()> {
        for (reference, id) in self.images() {
            self.engine.tag(id, &reserved_names::kept(&self.project, id)?)?;
            if let Some(Some(before)) = self.tags_before.get(reference).filter(|_| self.engine.containerd) {
                // Without its last name it would be removed, and a rollback could not restore the name.
                self.engine.tag(before, &reserved_names::kept(&self.project, before)?)?;
            }
            self.engine.tag(id, reference)?;
        }
        Ok(())
    }

    /// The images of the new version, each with the name that this module gave it. An image that had its reference
    /// before, and not from this module, is recorded with its protecting name only: the reference is not this
    /// module's to remove.
    fn given_names(&self) -> Result<Vec<(ImageId, Reference)>> {
        let projects = project::all(&self.state_directory)?;
        let mut given = Vec::new();
        for (reference, id) in self.images() {
            let had_name = self.tags_before.get(reference).is_some_and(|before| before.as_ref() == Some(id));
            let is_same =
                |(of, name): &(ImageId, Reference)| of == id && name.as_listed(self.engine.kind) == *reference;
            let is_ours = projects.iter().any(|project| project.images.iter().any(is_same));
            let name = if had_name && !is_ours { reserved_names::kept(&self.project, id)? } else { reference.clone() };
            given.push((id.clone(), name));
        }
        Ok(given)
    }

    /// Builds the units of the project and writes them.
    fn build(&self, files: &ArtifactFiles) -> Result<()> {
        let images = self.images().map(|(reference, id)| (reference.clone(), id.clone())).collect();
        let device_images = self.engine.images()?;
        let context = BuildContext {
            project: &self.project,
            engine: &self.engine,
            images: &images,
            declared_volumes: &|id| self.engine.declared_volumes(id),
            device_images: &device_images,
            used_device_images: RefCell::default(),
            files,
            files_directory: &self.active().join(FILES),
            health_limit: self.window.limit(),
        };
        let built = self.definition.build(&context)?;
        let mut needed = self.given_names()?;
        for id in context.used_device_images.into_inner() {
            let kept = reserved_names::kept(&self.project, &id)?;
            self.engine.tag(&id, &kept)?;
            needed.push((id, kept));
        }
        self.write(needed, built)
    }

    fn write(&self, images: Vec<(ImageId, Reference)>, built: BuiltProject) -> Result<()> {
        let differs = |(id, engine_id): &(&ImageId, &ImageId)| id != engine_id;
        let engine_ids = self.engine_ids.iter().filter(differs);
        let project = Project {
            images,
            engine_ids: engine_ids.map(|(id, engine_id)| (id.clone(), engine_id.clone())).collect(),
            services: built.services,
            units: built.units.iter().map(|(name, _)| name.clone()).collect(),
            pods: built.pods,
            directory: PathBuf::new(),
        };
        let claims = Claims {
            new: &project,
            containers: &built.containers,
            state_directory: &self.state_directory,
            active: &self.active(),
        };
        claims.check(&self.project, &self.engine, &self.systemd)?;
        project.write(&self.staged(), &[built.units, built.files].concat())
    }
}
