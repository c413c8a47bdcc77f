//! Pinning of quadlets for the generator: images by their IDs, and only paths and volumes that outlive a version.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use mender_update_module::FileName;

use super::ini::{self, Line};
use crate::forms::build_context::BuildContext;
use crate::labels;
use crate::mount::{self, Short, Source};
use crate::project::{Containers, Service};

/// The type of a quadlet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QuadletType {
    Container,
    Pod,
    Volume,
    Network,
}

/// A checked quadlet.
#[derive(Debug, Default)]
pub struct Pinned {
    pub text: String,
    /// The service that is started; `None` for a quadlet that only others need.
    pub service: Option<Service>,
    /// The names of its containers and pods.
    pub containers: Vec<String>,
    pub pods: Vec<String>,
}

/// Checks and pins the quadlet `name`.
///
/// # Errors
/// What cannot be run or rolled back, and the remedy.
pub fn pin(name: &FileName, text: &str, context: &BuildContext) -> Result<Pinned> {
    let path: &Path = name.as_ref();
    let (stem, extension) = (path.file_stem().and_then(|stem| stem.to_str()), path.extension());
    let quadlet_type = match extension.and_then(|extension| extension.to_str()) {
        Some("container") => QuadletType::Container,
        Some("pod") => QuadletType::Pod,
        Some("volume") => QuadletType::Volume,
        Some("network") => QuadletType::Network,
        _ => bail!("unsupported type: use .container, .pod, .volume and .network"),
    };
    let stem = stem
        .filter(|stem| !stem.contains(['@', '%']))
        .context("templates are not supported: write one quadlet for each instance")?;
    let mut lines = ini::parse(text);
    let mut mounted = BTreeSet::new();
    for line in &mut lines {
        check(line, stem, &mut mounted, context).with_context(|| format!("{}={}", line.key, line.value))?;
    }
    let mut pinned = Pinned::default();
    match quadlet_type {
        QuadletType::Container => container(stem, &mut lines, &mut mounted, &mut pinned, context)?,
        QuadletType::Pod => pinned.pods.push(name_of(&lines, "PodName", stem)?),
        QuadletType::Volume => volume(&lines)?,
        QuadletType::Network => {}
    }
    pinned.text = ini::text(&lines);
    Ok(pinned)
}

/// The last value of `key` in `section`, which overrides the others.
fn value<'a>(lines: &'a [Line], section: &str, key: &str) -> Option<&'a str> {
    let line = lines.iter().rev().find(|line| line.section == section && line.key == key);
    line.map(|line| line.value.as_str())
}

/// The name in `key`, or podman's default.
fn name_of(lines: &[Line], key: &str, stem: &str) -> Result<String> {
    let given = lines.iter().rev().find(|line| line.key == key).map(|line| line.value.clone());
    let name = given.unwrap_or_else(|| format!("systemd-{stem}"));
    ensure!(!name.contains(['%', '$']), "{key}={name}: it has a variable: write the name without one");
    Ok(name)
}

fn container(
    stem: &str,
    lines: &mut Vec<Line>,
    mounted: &mut BTreeSet<String>,
    pinned: &mut Pinned,
    context: &BuildContext,
) -> Result<()> {
    let image = value(lines, "Container", "Image").context("no Image: add the name of one of the artifact's images")?;
    ensure!(
        !image.contains('%') && !image.ends_with(".image") && !image.ends_with(".build"),
        "Image={image}: use the name of an image"
    );
    let id = context.image(image)?;
    lines.retain(|line| !(line.section == "Container" && line.key == "Image"));
    let mut more = vec![Line::new("Container", "Image", id.to_string().as_str())];
    more.push(Line::new("Container", "Label", &format!("{}={}", labels::PROJECT, context.project)));
    for path in context.unmounted_volumes(&id, mounted)? {
        let volume = format!("{}:{path}", context.volume_name(stem, &path));
        more.push(Line::new("Container", "Volume", &volume));
    }
    let head = lines.iter().position(|line| line.key.is_empty() && line.section == "Container");
    let head = head.context("no section [Container]")?;
    lines.splice(head + 1..=head, more);
    let name = name_of(lines, "ContainerName", stem)?;
    pinned.service = Some(Service {
        unit: format!("{stem}.service"),
        containers: Containers::Named(name.clone()),
        oneshot: value(lines, "Service", "Type").is_some_and(|value| value == "oneshot"),
    });
    pinned.containers.push(name);
    Ok(())
}

/// Refuses a volume whose content is lost with its version: beside the quadlet, or in an image.
fn volume(lines: &[Line]) -> Result<()> {
    ensure!(value(lines, "Volume", "Image").is_none(), "Image: a volume of an image is not supported: remove Image");
    let device = value(lines, "Volume", "Device").unwrap_or_default();
    let binds = value(lines, "Volume", "Options").unwrap_or_default().split(',').any(|option| option == "bind")
        || value(lines, "Volume", "Type") == Some("bind");
    ensure!(
        !binds && !device.starts_with('.') || device.starts_with(['/', '%']),
        "Device={device}: relative path: write an absolute path, or remove Device"
    );
    Ok(())
}

/// Checks one line, and replaces paths of the artifact's files by those that they will have.
fn check(line: &mut Line, stem: &str, mounted: &mut BTreeSet<String>, context: &BuildContext) -> Result<()> {
    match (line.section.as_str(), line.key.as_str()) {
        ("Container" | "Pod" | "Volume" | "Network", "ServiceName") => {
            bail!("the unit needs the name of the quadlet: remove ServiceName")
        }
        (_, "Pull") => bail!("images are never pulled: remove Pull, and add the image to the artifact"),
        ("Container", "Rootfs") => bail!("a root file system is not part of the artifact: use Image"),
        ("Container" | "Pod", "Volume") => {
            let short = Short::parse(&line.value)?;
            mounted.insert(short.target.trim_end_matches('/').to_owned());
            let source = match short.source {
                // A specifier of systemd expands to an absolute path.
                percent if percent.starts_with('%') => {
                    context.files.record_host_path(percent);
                    return Ok(());
                }
                other => mount::source(other, short.is_read_only(), context.files)?,
            };
            let source = match source {
                Source::Anonymous => context.volume_name(stem, short.target),
                Source::Artifact(path) => context.file_path(&path)?,
                Source::Volume(_) | Source::Host(_) => return Ok(()),
            };
            let options = if short.options.is_empty() { String::new() } else { format!(":{}", short.options) };
            line.value = format!("{source}:{}{options}", short.target);
        }
        ("Container", "Mount") => {
            let target = mount::option("--mount", &line.value, context.files)?;
            mounted.extend(target.map(|target| target.trim_end_matches('/').to_owned()));
        }
        ("Container", "Tmpfs") => {
            let target = line.value.split(':').next().unwrap_or_default();
            mounted.insert(target.trim_end_matches('/').to_owned());
        }
        ("Container", "EnvironmentFile") if line.value.starts_with(['/', '%']) => {
            context.files.record_host_path(&line.value);
        }
        ("Container", "EnvironmentFile") => {
            line.value = context.file_path(&mount::artifact_path(&line.value, context.files)?)?;
        }
        ("Container", "SeccompProfile") => {
            let is_path = line.value != "unconfined" && !line.value.starts_with(['/', '%']);
            ensure!(!is_path, "a relative path is lost with the next version: write an absolute path");
        }
        ("Container" | "Pod", "PodmanArgs" | "GlobalArgs") => {
            let words: Vec<_> = line.value.split_whitespace().map(|word| word.replace(['"', '\''], "")).collect();
            let pulls = words.iter().any(|word| word == "--pull" || word.starts_with("--pull="));
            ensure!(!pulls, "images are never pulled: remove --pull, and add the image to the artifact");
            for (option, value) in mount::options(&words) {
                let target = mount::option(option, value, context.files)?;
                mounted.extend(target.map(|target| target.trim_end_matches('/').to_owned()));
            }
        }
        _ => {}
    }
    Ok(())
}
