//! What a project runs, from the options of `container-artifact-gen`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use mender_update_module::PayloadFile;
use serde_json::{Map, Value, json};

use super::{is_named, payload_file, place, renamed, require_outside};
use crate::options::object;
use crate::payload_name::{distinct, mapped};
use crate::tar::Archive;

/// The name of the archive that is made of a directory.
const ARCHIVE: &str = "project-files.tar";

/// The options of the definition: exactly one of `--run`, `--compose` and `--quadlet`.
#[derive(Args, Clone, Debug, Default)]
pub struct DefinitionOptions {
    /// Runs the image as one service; with =FILE, the services of this JSON file: the table run of the meta-data
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    run: Option<Option<PathBuf>>,
    /// Compose file; may be repeated
    #[arg(long, value_name = "FILE")]
    compose: Vec<PathBuf>,
    /// Active profile of the compose files; may be repeated
    #[arg(long, value_name = "NAME")]
    profile: Vec<String>,
    /// Quadlet file for podman: .container, .pod, .volume or .network; may be repeated
    #[arg(long, value_name = "FILE")]
    quadlet: Vec<PathBuf>,
    /// Files beside the compose or quadlet files: a tar archive, or a directory, whose content is packed without its
    /// name
    #[arg(long, value_name = "PATH")]
    archive: Option<PathBuf>,
    /// With --run: name of the service [default: the last part of the image's name]
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// With --run: port that is published, such as 80:8080; may be repeated
    #[arg(long, value_name = "PORTS")]
    publish: Vec<String>,
    /// With --run: volume, such as shop-data:/data; may be repeated
    #[arg(long, value_name = "VOLUME")]
    volume: Vec<String>,
    /// With --run: environment variable; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// With --run: network
    #[arg(long, value_name = "NETWORK")]
    network: Option<String>,
    /// With --run: other option of the engine's run, such as --option=--read-only; may be repeated
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true)]
    option: Vec<String>,
}

impl DefinitionOptions {
    /// Checks the options alone.
    ///
    /// # Errors
    /// When not exactly one form is given, or an option does not belong to it.
    pub fn require_valid(&self) -> Result<()> {
        let forms = [self.run.is_some(), !self.compose.is_empty(), !self.quadlet.is_empty()];
        ensure!(
            forms.into_iter().filter(|given| *given).count() == 1,
            "invalid options: use exactly one of --run, --compose and --quadlet"
        );
        self.require_no_run_options()
    }

    /// The keys of the meta-data, and the payload files that belong to them. `images` are the names of the artifact's
    /// images, `archives` are its archives of images, and `output` is the path of the artifact.
    ///
    /// # Errors
    /// When a file cannot be read, or the service needs a file.
    pub fn build(
        &self,
        images: &[String],
        archives: &[PayloadFile],
        output: &Path,
        tmp: &Path,
    ) -> Result<(Map<String, Value>, Vec<PayloadFile>)> {
        let mut keys = Map::new();
        let mut files = Vec::new();
        match &self.run {
            Some(Some(path)) => {
                keys.insert("run".to_owned(), object(path)?.into());
            }
            Some(None) => {
                keys.insert("run".to_owned(), self.service(images)?);
            }
            None => {
                let (key, paths) =
                    if self.quadlet.is_empty() { ("compose", &self.compose) } else { ("quadlet", &self.quadlet) };
                files = paths.iter().map(|path| payload_file(path)).collect::<Result<_>>()?;
                let names: Vec<_> = files.iter().map(|file| file.name.as_ref().to_string_lossy()).collect();
                keys.insert(key.to_owned(), json!(names));
            }
        }
        if !self.profile.is_empty() {
            keys.insert("profiles".to_owned(), json!(self.profile));
        }
        if let Some(path) = &self.archive {
            let archive = archive(path, |name| is_named(archives, name) || is_named(&files, name), output, tmp)?;
            keys.insert("archive".to_owned(), json!(archive.name.as_ref().to_string_lossy()));
            files.push(archive);
        }
        Ok((keys, files))
    }

    /// Refuses options of a service where the service is in a file.
    fn require_no_run_options(&self) -> Result<()> {
        if self.run == Some(None) {
            return Ok(());
        }
        let given = [
            ("--service", self.service.is_some()),
            ("--publish", !self.publish.is_empty()),
            ("--volume", !self.volume.is_empty()),
            ("--env", !self.env.is_empty()),
            ("--network", self.network.is_some()),
            ("--option", !self.option.is_empty()),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            Some((option, _)) => {
                bail!("option {option} refused: it is for --run without a file: write it into the file")
            }
            None => Ok(()),
        }
    }

    /// The table `run` with one service.
    fn service(&self, images: &[String]) -> Result<Value> {
        let [image] = images else {
            bail!(
                "option --run without a file refused: it runs one image, and {} are given: use --run=FILE",
                images.len()
            );
        };
        let name = match &self.service {
            Some(name) => name.clone(),
            None => service_name(image),
        };
        let mut service = json!({"image": image});
        let lists = [("ports", &self.publish), ("volumes", &self.volume), ("options", &self.option)];
        for (key, values) in lists.into_iter().filter(|(_, values)| !values.is_empty()) {
            service[key] = json!(values);
        }
        let mut env = Map::new();
        for pair in &self.env {
            let (name, value) = pair.split_once('=').with_context(|| {
                format!("option --env {pair} refused: no value: write NAME=VALUE, since devices do not have this environment")
            })?;
            env.insert(name.to_owned(), value.into());
        }
        if !env.is_empty() {
            service["env"] = env.into();
        }
        if let Some(network) = &self.network {
            service["network"] = json!(network);
        }
        Ok(json!({name: service}))
    }
}

/// The last part of the name of `image`, without its tag.
fn service_name(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    last.split(':').next().unwrap_or(last).replace(['_', '.'], "-")
}

/// The tar archive at `path`, or one of the directory `path`, under a name that no other payload file has.
fn archive(path: &Path, is_taken: impl Fn(&str) -> bool, output: &Path, tmp: &Path) -> Result<PayloadFile> {
    if !path.is_dir() {
        let file = payload_file(path)?;
        let name = mapped(&file.name.as_ref().to_string_lossy());
        return renamed(path, &distinct(name, is_taken), tmp);
    }
    require_outside(output, path)?;
    let to = place(&distinct(ARCHIVE.to_owned(), is_taken), tmp)?;
    // The module gives all files to root, and keeps no times.
    let options = Archive { owner: Some("root".to_owned()), mtime: Some("@0".to_owned()), ..Archive::default() };
    options.write(path, &to, tmp)?;
    payload_file(&to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(options: &DefinitionOptions, images: &[&str]) -> Result<Value> {
        let images: Vec<_> = images.iter().map(|name| (*name).to_owned()).collect();
        options.build(&images, &[], Path::new("/out.mender"), Path::new("/nowhere")).map(|(keys, _)| keys.into())
    }

    #[test]
    fn one_image_is_one_service() {
        let options = DefinitionOptions {
            run: Some(None),
            publish: vec!["80:8080".into()],
            env: vec!["A=b=c".into()],
            ..DefinitionOptions::default()
        };
        let expected = json!({"run": {"my-shop": {"image": "localhost/my_shop:2", "ports": ["80:8080"],
                                                   "env": {"A": "b=c"}}}});
        assert_eq!(build(&options, &["localhost/my_shop:2"]).unwrap(), expected);
        assert!(build(&options, &["a:1", "b:1"]).unwrap_err().to_string().contains("use --run=FILE"));
        let no_value = DefinitionOptions { env: vec!["HOME".into()], ..options };
        assert!(build(&no_value, &["a:1"]).unwrap_err().to_string().contains("write NAME=VALUE"));
    }

    #[test]
    fn forms_exclude_each_other() {
        let none = DefinitionOptions::default();
        let both = DefinitionOptions { run: Some(None), compose: vec!["a.yaml".into()], ..none.clone() };
        for options in [none.clone(), both] {
            let error = options.require_valid().unwrap_err().to_string();
            assert!(error.contains("exactly one of"), "{error}");
        }
        let mixed = DefinitionOptions { quadlet: vec!["a.container".into()], publish: vec!["1".into()], ..none };
        assert!(mixed.require_valid().unwrap_err().to_string().contains("option --publish refused"));
    }
}
