//! A quadlet as the generator is given it: images by their ID, and every path and volume one that outlives a version.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use mender_update_module::FileName;

use super::ini::{self, Line};
use crate::definition::Around;
use crate::engine::LABEL;
use crate::mount::{self, Short, Source};
use crate::project::{Containers, Service};

/// What a quadlet makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Container,
    Pod,
    Volume,
    Network,
}

/// A quadlet that has been checked.
#[derive(Debug, Default)]
pub struct Pinned {
    pub text: String,
    /// What systemd is made to start, where it is not something that others need.
    pub service: Option<Service>,
    /// The containers and pods that it makes, by their names.
    pub containers: Vec<String>,
    pub pods: Vec<String>,
}

/// Checks the quadlet `name` with `text`.
///
/// # Errors
/// When it is not what can be run and rolled back here.
pub fn pin(name: &FileName, text: &str, around: &Around) -> Result<Pinned> {
    let path: &Path = name.as_ref();
    let (stem, extension) = (path.file_stem().and_then(|stem| stem.to_str()), path.extension());
    let kind = match extension.and_then(|kind| kind.to_str()) {
        Some("container") => Kind::Container,
        Some("pod") => Kind::Pod,
        Some("volume") => Kind::Volume,
        Some("network") => Kind::Network,
        _ => bail!(
            "of quadlets, .container, .pod, .volume and .network are known; others get images elsewhere"
        ),
    };
    let stem = stem
        .filter(|stem| !stem.contains(['@', '%']))
        .context("its name is that of a template: give each instance a quadlet")?;
    let mut lines = ini::parse(text);
    let mut mounted = BTreeSet::new();
    for line in &mut lines {
        check(line, stem, &mut mounted, around).with_context(|| format!("{}={}", line.key, line.value))?;
    }
    let mut pinned = Pinned::default();
    match kind {
        Kind::Container => container(stem, &mut lines, &mut mounted, &mut pinned, around)?,
        Kind::Pod => pinned.pods.push(name_of(&lines, "PodName", stem)?),
        Kind::Volume => volume(&lines)?,
        Kind::Network => {}
    }
    pinned.text = ini::text(&lines);
    Ok(pinned)
}

/// The value that counts of `key` in `section`: the last one.
fn value<'a>(lines: &'a [Line], section: &str, key: &str) -> Option<&'a str> {
    let line = lines.iter().rev().find(|line| line.section == section && line.key == key);
    line.map(|line| line.value.as_str())
}

/// The name that `key` gives, or else podman.
fn name_of(lines: &[Line], key: &str, stem: &str) -> Result<String> {
    let said = lines.iter().rev().find(|line| line.key == key).map(|line| line.value.clone());
    let name = said.unwrap_or_else(|| format!("systemd-{stem}"));
    ensure!(!name.contains(['%', '$']), "{key}={name}: write the name itself");
    Ok(name)
}

fn container(
    stem: &str,
    lines: &mut Vec<Line>,
    mounted: &mut BTreeSet<String>,
    pinned: &mut Pinned,
    around: &Around,
) -> Result<()> {
    let image = value(lines, "Container", "Image").context("it has no Image: name one of the artifact's")?;
    ensure!(
        !image.contains('%') && !image.ends_with(".image") && !image.ends_with(".build"),
        "Image={image}: name an image"
    );
    let id = around.image(image)?;
    lines.retain(|line| !(line.section == "Container" && line.key == "Image"));
    let mut more = vec![Line::new("Container", "Image", id.to_string().as_str())];
    more.push(Line::new("Container", "Label", &format!("{LABEL}={}", around.project)));
    for path in around.open_volumes(&id, mounted)? {
        let volume = format!("{}:{path}", around.volume(stem, &path));
        more.push(Line::new("Container", "Volume", &volume));
    }
    let head = lines.iter().position(|line| line.key.is_empty() && line.section == "Container");
    let head = head.context("it has no section [Container]")?;
    lines.splice(head + 1..=head, more);
    let name = name_of(lines, "ContainerName", stem)?;
    pinned.service = Some(Service {
        unit: format!("{stem}.service"),
        containers: Containers::Named(name.clone()),
        oneshot: value(lines, "Service", "Type").is_some_and(|kind| kind == "oneshot"),
    });
    pinned.containers.push(name);
    Ok(())
}

/// A volume's content must not be beside the quadlet, and not an image's.
fn volume(lines: &[Line]) -> Result<()> {
    ensure!(
        value(lines, "Volume", "Image").is_none(),
        "Image: a volume of an image is not supported: use a plain one"
    );
    let device = value(lines, "Volume", "Device").unwrap_or_default();
    let binds =
        value(lines, "Volume", "Options").unwrap_or_default().split(',').any(|option| option == "bind")
            || value(lines, "Volume", "Type") == Some("bind");
    ensure!(
        !binds && !device.starts_with('.') || device.starts_with(['/', '%']),
        "Device={device}: write an absolute path, or use a volume without"
    );
    Ok(())
}

/// Checks one line, and writes paths that the artifact carries as they will be.
fn check(line: &mut Line, stem: &str, mounted: &mut BTreeSet<String>, around: &Around) -> Result<()> {
    match (line.section.as_str(), line.key.as_str()) {
        ("Container" | "Pod" | "Volume" | "Network", "ServiceName") => {
            bail!("the unit has the quadlet's name here: leave ServiceName out")
        }
        (_, "Pull") => bail!("images come in the artifact, and are never pulled: leave Pull out"),
        ("Container", "Rootfs") => bail!("a root file system is not of the artifact: use Image"),
        ("Container" | "Pod", "Volume") => {
            let short = Short::parse(&line.value)?;
            mounted.insert(short.target.trim_end_matches('/').to_owned());
            let source = match short.source {
                // A specifier of systemd's stands for an absolute path.
                percent if percent.starts_with('%') => return Ok(()),
                other => mount::source(other, short.is_read_only(), around.carried)?,
            };
            let source = match source {
                Source::Anonymous => around.volume(stem, short.target),
                Source::Carried(path) => around.path(&path)?,
                Source::Volume(_) | Source::Host(_) => return Ok(()),
            };
            let options =
                if short.options.is_empty() { String::new() } else { format!(":{}", short.options) };
            line.value = format!("{source}:{}{options}", short.target);
        }
        ("Container", "Mount") => {
            let target = mount::option("--mount", &line.value, around.carried)?;
            mounted.extend(target.map(|target| target.trim_end_matches('/').to_owned()));
        }
        ("Container", "Tmpfs") => {
            let target = line.value.split(':').next().unwrap_or_default();
            mounted.insert(target.trim_end_matches('/').to_owned());
        }
        ("Container", "EnvironmentFile") if !line.value.starts_with(['/', '%']) => {
            line.value = around.path(&mount::carried(&line.value, around.carried)?)?;
        }
        ("Container", "SeccompProfile") => {
            let is_path = line.value != "unconfined" && !line.value.starts_with(['/', '%']);
            ensure!(!is_path, "write an absolute path");
        }
        ("Container" | "Pod", "PodmanArgs" | "GlobalArgs") => {
            let words: Vec<_> =
                line.value.split_whitespace().map(|word| word.replace(['"', '\''], "")).collect();
            let pulls = words.iter().any(|word| word == "--pull" || word.starts_with("--pull="));
            ensure!(!pulls, "images come in the artifact, and are never pulled: leave --pull out");
            for (option, value) in mount::options(&words) {
                let target = mount::option(option, value, around.carried)?;
                mounted.extend(target.map(|target| target.trim_end_matches('/').to_owned()));
            }
        }
        _ => {}
    }
    Ok(())
}
