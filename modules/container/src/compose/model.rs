//! What compose files say together, as far as an update has to know it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{check, names};
use crate::carried::Carried;
use crate::project::File;
use crate::yaml;

/// How many services may be based on each other.
const BASES: usize = 10;

/// The services of all files.
pub struct Model {
    services: BTreeMap<String, Service>,
}

/// A service as all files together describe it.
#[derive(Default)]
pub struct Service {
    image: Option<String>,
    /// The service that it is based on.
    base: Option<String>,
    profiles: BTreeSet<String>,
    container_name: Option<String>,
    /// What has to be started before it.
    needs: BTreeSet<String>,
    /// Where something is mounted.
    pub targets: BTreeSet<String>,
}

impl Model {
    /// Reads `files`, the later ones of which say more of the earlier ones' services, and checks every path in them.
    ///
    /// # Errors
    /// When one is no compose file, or says what cannot be rolled back here.
    pub fn of(files: &[File], carried: &Carried) -> Result<Self> {
        let mut model = Self { services: BTreeMap::new() };
        for (name, text) in files {
            model.add(text, carried).with_context(|| format!("the compose file {name}"))?;
        }
        ensure!(!model.services.is_empty(), "the compose files have no services: nothing would run");
        Ok(model)
    }

    fn add(&mut self, text: &str, carried: &Carried) -> Result<()> {
        let file = yaml::parse(text)?;
        ensure!(file.is_object(), "it is no table with services");
        check::file(&file, carried)?;
        let Some(services) = file.get("services").filter(|services| !services.is_null()) else {
            return Ok(());
        };
        for (name, said) in services.as_object().context("its services are no table")? {
            let service = self.services.entry(name.clone()).or_default();
            let context = || format!("the service {name:?}");
            let known = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            ensure!(
                name.chars().all(known) && !name.is_empty(),
                "{}: its name is none: letters, digits, ., _ and -",
                context()
            );
            ensure!(said.is_object() || said.is_null(), "{} is no table", context());
            check::service(said, carried).with_context(context)?;
            service.add(said).with_context(context)?;
        }
        Ok(())
    }

    pub fn services(&self) -> impl Iterator<Item = (&String, &Service)> {
        self.services.iter()
    }

    /// The image of the service `name`, or of the one that it is based on.
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
        bail!("it has no image: name one of the artifact's")
    }

    /// Refuses services that wait for each other.
    ///
    /// # Errors
    /// For these.
    pub fn check_order(&self) -> Result<()> {
        let needs = self.services.iter().map(|(name, service)| (name.as_str(), &service.needs));
        let needs = needs.map(|(name, needs)| (name, needs.iter().map(String::as_str).collect()));
        crate::order::check(&needs.collect())
    }

    pub fn container_names(&self) -> Vec<String> {
        self.services.values().filter_map(|service| service.container_name.clone()).collect()
    }
}

impl Service {
    fn add(&mut self, said: &Value) -> Result<()> {
        let text = |key: &str| said[key].as_str().map(str::to_owned);
        self.image = text("image").or(self.image.take());
        self.container_name = text("container_name").or(self.container_name.take());
        let base = text("extends").or_else(|| said["extends"]["service"].as_str().map(str::to_owned));
        self.base = base.or(self.base.take());
        self.profiles.extend(names(&said["profiles"]));
        self.needs.extend(names(&said["depends_on"]));
        let of_service = |text: &String| text.split(':').next().unwrap_or_default().to_owned();
        self.needs.extend(names(&said["links"]).iter().map(of_service));
        let mounted = names(&said["volumes_from"]).into_iter().filter(|name| !name.starts_with("container:"));
        self.needs.extend(mounted.collect::<Vec<_>>().iter().map(of_service));
        for key in ["network_mode", "ipc", "pid"] {
            let shared = said[key].as_str().and_then(|text| text.strip_prefix("service:"));
            self.needs.extend(shared.map(str::to_owned));
        }
        for mount in said["volumes"].as_array().into_iter().flatten() {
            self.targets.insert(check::target(mount)?.trim_end_matches('/').to_owned());
        }
        // An option may follow.
        let tmpfs = names(&said["tmpfs"]);
        self.targets.extend(tmpfs.iter().map(|path| of_service(path).trim_end_matches('/').to_owned()));
        Ok(())
    }

    /// Whether it runs when `profiles` are active.
    pub fn is_active(&self, profiles: &[String]) -> bool {
        self.profiles.is_empty() || profiles.iter().any(|profile| self.profiles.contains(profile))
    }
}

/// Refuses an image that is not known before the start.
fn check_image(image: &str) -> Result<&str> {
    ensure!(
        !image.contains('$'),
        "the image {image:?} has a variable, whose value is not known before it starts: write the name itself"
    );
    ensure!(!image.contains('@'), "the image {image:?} has a digest: name it as the artifact's images do");
    Ok(image)
}

#[cfg(test)]
mod tests {
    use mender_update_module::FileName;

    use super::*;

    fn model(files: &[&str]) -> Result<Model> {
        let name = FileName::new("compose.yaml").unwrap();
        let files: Vec<_> = files.iter().map(|text| (name.clone(), (*text).to_owned())).collect();
        Model::of(&files, &Carried::new("/nowhere".into(), 0))
    }

    #[test]
    fn later_files_say_more_of_the_services() {
        let one = "services:\n  web:\n    image: a:1\n    volumes: [data:/data/]\n  base:\n    image: b\n    profiles: [x]\n";
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
    fn services_that_wait_for_each_other_are_refused() {
        for needs in [
            "depends_on: [b]",
            "depends_on: {b: {condition: service_started}}",
            "network_mode: service:b",
            "links: ['b:c']",
        ] {
            let text = format!(
                "services:\n  a: {{image: 'x:1', {needs}}}\n  b: {{image: 'x:1', depends_on: [a]}}\n"
            );
            let error = format!("{:#}", model(&[&text]).unwrap().check_order().unwrap_err());
            assert!(error.contains("wait for each other"), "{error}");
        }
    }

    #[test]
    fn images_that_are_not_known_before_the_start_are_refused() {
        for image in ["$A", "x:${TAG}", "a@sha256:0"] {
            let model = model(&[&format!("services: {{web: {{image: '{image}'}}}}")]).unwrap();
            assert!(model.image("web").is_err(), "{image} was taken");
        }
        assert!(
            model(&["services: {}"]).is_err()
                && model(&["- a"]).is_err()
                && model(&["services: [1]"]).is_err()
        );
        assert!(model(&["services: {a: 1}"]).is_err());
    }
}
