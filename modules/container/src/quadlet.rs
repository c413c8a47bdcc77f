//! The form for podman's quadlets: podman's own generator makes the units, of images that are given by their ID.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use update_module::durable::{self, Dir};
use update_module::{FileName, Program};

use crate::definition::{Around, Defined};
use crate::engine::Kind;
use crate::image::Reference;
use crate::project::{Containers, File, Service};

/// Where podman 4.4 and later have the generator.
const GENERATORS: [&str; 3] = [
    "/usr/libexec/podman/quadlet",
    "/usr/lib/podman/quadlet",
    "/usr/lib/systemd/system-generators/podman-system-generator",
];

/// The longest that it may take.
const LIMIT: Duration = Duration::from_secs(120);

/// Lets the generator make units of the quadlets `files`.
///
/// # Errors
/// When podman has no generator, or does not take them.
pub fn define(files: Vec<File>, around: &Around) -> Result<Defined> {
    ensure!(
        around.engine.kind == Kind::Podman,
        "quadlets are podman's: on docker, write the project as run or compose"
    );
    let generator = GENERATORS.iter().map(Path::new).find(|path| path.exists()).context(
        "this podman has no quadlet generator, which came with 4.4: update podman, or write the project as run",
    )?;
    let mut services = Vec::new();
    let mut pinned = Vec::new();
    for (name, text) in files {
        let text = pin(&text, around).with_context(|| format!("in the quadlet {name}"))?;
        services.extend(service(&name, &text)?);
        pinned.push((name, text));
    }
    ensure!(!services.is_empty(), "the quadlets have no .container and no .pod: nothing would run");
    Ok(Defined { services, units: generate(generator, &pinned)?, files: Vec::new() })
}

/// The quadlet `text` with its image by ID.
fn pin(text: &str, around: &Around) -> Result<String> {
    let mut lines = Vec::new();
    for line in text.lines() {
        let value = line.split_once('=').map_or("", |(_, value)| value.trim());
        ensure!(
            !value.starts_with("./") && !value.starts_with("../"),
            "{line:?} has a path beside the quadlet, which is not on the device any more when it starts: name an absolute one"
        );
        match line.split_once('=').filter(|(key, _)| key.trim() == "Image") {
            Some((_, value)) => {
                let reference = Reference::try_from(value.trim().to_owned())?;
                lines.push(format!("Image={}", around.image(&reference)?));
            }
            None => lines.push(line.to_owned()),
        }
    }
    Ok(lines.join("\n") + "\n")
}

/// What the quadlet `name` makes systemd start, if it is not something that others need.
fn service(name: &FileName, text: &str) -> Result<Option<Service>> {
    let path: &Path = name.as_ref();
    let (Some(stem), Some(kind)) = (path.file_stem().and_then(|stem| stem.to_str()), path.extension()) else {
        bail!("{name} is not the name of a quadlet");
    };
    let value = |key: &str| {
        let lines = text.lines().filter_map(|line| line.split_once('='));
        lines.filter(|(found, _)| found.trim() == key).map(|(_, value)| value.trim().to_owned()).next_back()
    };
    match kind.to_str() {
        Some("container") => Ok(Some(Service {
            unit: format!("{stem}.service"),
            containers: Containers::Named(
                value("ContainerName").unwrap_or_else(|| format!("systemd-{stem}")),
            ),
            oneshot: value("Type").is_some_and(|kind| kind == "oneshot"),
        })),
        Some("pod" | "volume" | "network") => Ok(None),
        _ => bail!(
            "{name}: of quadlets, .container, .pod, .volume and .network are known; others get images elsewhere"
        ),
    }
}

/// Runs the generator on `files`, in a folder of their own.
fn generate(generator: &Path, files: &[File]) -> Result<Vec<File>> {
    let scratch = scratch()?;
    let made = || {
        let (from, to) = (scratch.join("quadlets"), scratch.join("units"));
        for (name, text) in files {
            durable::write_file(&from.join(name), text.as_bytes())?;
        }
        durable::make_dirs(&to)?;
        let program = Program::new(generator, LIMIT).env("QUADLET_UNIT_DIRS", &from);
        program.args(["-v"]).arg(&to).run().context("podman does not take the quadlets")?;
        units(&to)
    };
    let units = made();
    durable::remove_tree(&scratch)?;
    units
}

fn scratch() -> Result<PathBuf> {
    let folder = Path::new("/run/mender-container");
    durable::remove_tree(folder)?;
    Ok(durable::make_dirs(folder)?.path().to_owned())
}

/// The units in `folder`, without the word of what they were made of, which is not on the device any more.
fn units(folder: &Path) -> Result<Vec<File>> {
    let mut units = Vec::new();
    for name in Dir::open(folder)?.names()? {
        let path = folder.join(&name);
        // What [Install] asks for are folders with links: this module starts the units itself.
        if path.is_file() {
            let text =
                std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            let kept = text.lines().filter(|line| !line.starts_with("SourcePath="));
            units.push((name, kept.collect::<Vec<_>>().join("\n") + "\n"));
        }
    }
    Ok(units)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, text: &str) -> Result<Option<Service>> {
        service(&FileName::new(name).unwrap(), text)
    }

    #[test]
    fn containers_are_started_and_what_they_need_is_not() {
        let web =
            found("web.container", "[Container]\nImage=x\n\n[Service]\nType=oneshot\n").unwrap().unwrap();
        assert_eq!((web.unit.as_str(), web.oneshot), ("web.service", true));
        assert_eq!(web.containers, Containers::Named("systemd-web".into()));
        let named = found("web.container", "[Container]\nContainerName = shop\n").unwrap().unwrap();
        assert_eq!(named.containers, Containers::Named("shop".into()));
        assert_eq!(found("data.volume", "[Volume]\n").unwrap(), None);
        for name in ["app.image", "app.build", "app.kube", "container", "app.service"] {
            assert!(found(name, "").is_err(), "{name} was taken");
        }
    }
}
