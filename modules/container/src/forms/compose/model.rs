//! The services of a project, merged from all its compose files, as far as an update needs them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::check;
use super::values::names;
use crate::artifact_files::ArtifactFiles;
use crate::project::File;
use crate::start_order;
use crate::yaml;

/// The longest chain of services that extend each other.
const BASES: usize = 10;

/// The services of all files.
pub struct Model {
    services: BTreeMap<String, Service>,
}

/// A service, merged from all files.
#[derive(Default)]
pub struct Service {
    image: Option<String>,
    /// The service that it extends.
    base: Option<String>,
    profiles: BTreeSet<String>,
    container_name: Option<String>,
    /// The services that have to be started before it.
    needs: BTreeSet<String>,
    /// The targets of its mounts.
    pub targets: BTreeSet<String>,
}

impl Model {
    /// Parses `files`, where later ones override earlier ones, and checks every path in them.
    ///
    /// # Errors
    /// When a file is no compose file, or something in it cannot be rolled back.
    pub fn of(files: &[File], artifact_files: &ArtifactFiles) -> Result<Self> {
        let mut model = Self { services: BTreeMap::new() };
        for (name, text) in files {
            model.add(text, artifact_files).with_context(|| format!("compose file {name} refused"))?;
        }
        ensure!(!model.services.is_empty(), "compose files refused: no services: add one");
        Ok(model)
    }

    fn add(&mut self, text: &str, artifact_files: &ArtifactFiles) -> Result<()> {
        let file = yaml::parse(text)?;
        ensure!(file.is_object(), "not a table with services");
        check::file(&file, artifact_files)?;
        let Some(services) = file.get("services").filter(|services| !services.is_null()) else {
            return Ok(());
        };
        for (name, described) in services.as_object().context("services is not a table")? {
            let service = self.services.entry(name.clone()).or_default();
            let service_name = || format!("service {name:?}");
            let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            ensure!(
                name.chars().all(is_allowed) && !name.is_empty(),
                "{}: invalid name: use letters, digits, '.', '_' and '-'",
                service_name()
            );
            ensure!(described.is_object() || described.is_null(), "{}: not a table", service_name());
            check::service(described, artifact_files).with_context(service_name)?;
            service.merge(described).with_context(service_name)?;
        }
        Ok(())
    }

    pub fn services(&self) -> impl Iterator<Item = (&String, &Service)> {
        self.services.iter()
    }

    /// The image of the service `name`, or of the one that it extends.
    ///
    /// # Errors
    /// When it has none.
    pub fn image(&self, name: &str) -> Result<String> {
        let mut service = self.services.get(name);
        for _ in 0..BASES {
            let Some(found) = service else { break };
            if let Some(image) = &found.image {
                return Ok(check_image(image)?.to_owned());
            }
            service = found.base.as_ref().and_then(|base| self.services.get(base));
        }
        bail!("no image: add the name of one of the artifact's images")
    }

    /// Refuses circular dependencies.
    pub fn check_order(&self) -> Result<()> {
        let needs = self.services.iter().map(|(name, service)| (name.as_str(), &service.needs));
        let needs = needs.map(|(name, needs)| (name, needs.iter().map(String::as_str).collect()));
        start_order::check(&needs.collect())
    }

    pub fn container_names(&self) -> Vec<String> {
        self.services.values().filter_map(|service| service.container_name.clone()).collect()
    }
}

impl Service {
    fn merge(&mut self, described: &Value) -> Result<()> {
        let text = |key: &str| described[key].as_str().map(str::to_owned);
        self.image = text("image").or(self.image.take());
        self.container_name = text("container_name").or(self.container_name.take());
        let base = text("extends").or_else(|| described["extends"]["service"].as_str().map(str::to_owned));
        self.base = base.or(self.base.take());
        self.profiles.extend(names(&described["profiles"]));
        self.needs.extend(names(&described["depends_on"]));
        let before_colon = |text: &String| text.split(':').next().unwrap_or_default().to_owned();
        self.needs.extend(names(&described["links"]).iter().map(before_colon));
        let volumes_from = names(&described["volumes_from"]);
        let is_service = |name: &&String| !name.starts_with("container:");
        self.needs.extend(volumes_from.iter().filter(is_service).map(before_colon));
        for key in ["network_mode", "ipc", "pid"] {
            let shared = described[key].as_str().and_then(|text| text.strip_prefix("service:"));
            self.needs.extend(shared.map(str::to_owned));
        }
        for mount in described["volumes"].as_array().into_iter().flatten() {
            self.targets.insert(check::target(mount)?.trim_end_matches('/').to_owned());
        }
        // Options may follow the path.
        let tmpfs = names(&described["tmpfs"]);
        self.targets.extend(tmpfs.iter().map(|path| before_colon(path).trim_end_matches('/').to_owned()));
        Ok(())
    }

    /// Whether it runs when `profiles` are active.
    pub fn is_active(&self, profiles: &[String]) -> bool {
        self.profiles.is_empty() || profiles.iter().any(|profile| self.profiles.contains(profile))
    }
}

/// Refuses an image whose name is not known before the start.
fn check_image(image: &str) -> Result<&str> {
    ensure!(!image.contains('$'), "image {image:?}: it has a variable: write the name without one");
    ensure!(!image.contains('@'), "image {image:?}: it has a digest: use the ref of the image in the meta-data");
    Ok(image)
}

#[cfg(test)]
mod tests {
    use mender_update_module::FileName;

    use super::*;

    fn model(files: &[&str]) -> Result<Model> {
        let name = FileName::new("compose.yaml").unwrap();
        let files: Vec<_> = files.iter().map(|text| (name.clone(), (*text).to_owned())).collect();
        Model::of(&files, &ArtifactFiles::new("/nowhere".into(), 0))
    }

    #[test]
    fn later_files_override_earlier_ones() {
        let one = "services:\n  web:\n    image: a:1\n    volumes: [data:/data/]\n  base:\n    image: b\n\
                   \x20   profiles: [x]\n";
        let two = "services:\n  web:\n    image: a:2\n    tmpfs: /tmp:size=1m\n  more:\n    extends: {service: base}\n";
        let model = model(&[one, two]).unwrap();
        assert_eq!(model.image("web").unwrap(), "a:2");
        assert_eq!(model.image("more").unwrap(), "b");
        assert!(model.image("none").is_err());
        let web = &model.services["web"];
        assert_eq!(web.targets, BTreeSet::from(["/data".into(), "/tmp".into()]));
        assert!(web.is_active(&[]) && !model.services["base"].is_active(&[]));
        assert!(model.services["base"].is_active(&["x".into()]));
    }

    #[test]
    fn circular_dependencies_are_refused() {
        for needs in [
            "depends_on: [b]",
            "depends_on: {b: {condition: service_started}}",
            "network_mode: service:b",
            "links: ['b:c']",
            "volumes_from: ['b:ro']",
            "ipc: service:b",
        ] {
            let text = format!("services:\n  a: {{image: 'x:1', {needs}}}\n  b: {{image: 'x:1', depends_on: [a]}}\n");
            let error = format!("{:#}", model(&[&text]).unwrap().check_order().unwrap_err());
            assert!(error.contains("circular dependency"), "{error}");
        }
        let other = "services: {a: {volumes_from: ['container:b'], ipc: host}, b: {depends_on: [a]}}";
        model(&[other]).unwrap().check_order().unwrap();
    }

    #[test]
    fn a_file_may_have_no_services_and_containers_may_have_names() {
        let services = "services: {a: {image: 'x:1', container_name: mine}, b: {image: 'x:1'}}";
        let model = model(&["services:\nvolumes: {data: }\n", services]).unwrap();
        assert_eq!(model.services().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(model.container_names(), ["mine"]);
    }

    #[test]
    fn images_with_variables_or_digests_are_refused() {
        for image in ["$A", "x:${TAG}", "a@sha256:0"] {
            let model = model(&[&format!("services: {{web: {{image: '{image}'}}}}")]).unwrap();
            assert!(model.image("web").is_err(), "{image} was accepted");
        }
        assert!(model(&["services: {}"]).is_err() && model(&["- a"]).is_err() && model(&["services: [1]"]).is_err());
        assert!(model(&["services: {a: 1}"]).is_err());
    }
}
