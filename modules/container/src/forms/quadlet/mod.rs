//! The form `quadlet`: podman's generator makes the units, from quadlets whose images are replaced by IDs.

mod ini;
mod pin;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mender_update_module::Program;
use mender_update_module::durable::{self, Dir};

use super::build_context::BuildContext;
use super::built_project::BuiltProject;
use crate::engine_kind::EngineKind;
use crate::project::File;
use crate::start_order;

/// The paths of the generator in podman 4.4 and later.
const GENERATORS: [&str; 3] = [
    "/usr/libexec/podman/quadlet",
    "/usr/lib/podman/quadlet",
    "/usr/lib/systemd/system-generators/podman-system-generator",
];

/// The time limit of the generator.
const LIMIT: Duration = Duration::from_secs(120);

/// The generator's working directory, in memory.
const WORKING_DIRECTORY: &str = "/run/mender-container";

/// Builds the units of the quadlets `files`.
///
/// # Errors
/// When podman has no generator, or a quadlet cannot be run or rolled back.
pub fn build(files: Vec<File>, context: &BuildContext) -> Result<BuiltProject> {
    require_podman(context)?;
    let generator = GENERATORS
        .iter()
        .map(Path::new)
        .find(|path| path.exists())
        .context("quadlet generator not found: update podman to 4.4 or later, or write the project as run")?;
    let (mut built, pinned) = pin_all(files, context)?;
    built.units = generate(generator, &pinned)?;
    check_order(&built.units)?;
    for service in &built.services {
        let exists = built.units.iter().any(|(name, _)| name.as_ref() == Path::new(&service.unit));
        ensure!(exists, "podman's generator made no unit {}: see its message above", service.unit);
    }
    Ok(built)
}

fn require_podman(context: &BuildContext) -> Result<()> {
    ensure!(
        context.engine.kind == EngineKind::Podman,
        "quadlets need podman: with docker, write the project as run or compose"
    );
    let option = context.engine.words().into_iter().skip(1).find(|word| word.starts_with('-'));
    ensure!(
        option.is_none(),
        "quadlets refused: podman's generator knows none of the options of engine in \
         /etc/mender-modules/container.toml: set them in /etc/containers instead, or write the project as run or compose"
    );
    Ok(())
}

/// Checks the quadlets `files`, without podman's generator.
///
/// # Errors
/// When a quadlet cannot be run or rolled back.
pub fn check(files: Vec<File>, context: &BuildContext) -> Result<()> {
    require_podman(context)?;
    pin_all(files, context).map(drop)
}

/// Checks and pins the quadlets `files`. The project has no units yet: podman's generator makes them of the pinned
/// files.
///
/// # Errors
/// When a quadlet cannot be run or rolled back.
fn pin_all(files: Vec<File>, context: &BuildContext) -> Result<(BuiltProject, Vec<File>)> {
    let mut built = BuiltProject::default();
    let mut pinned = Vec::new();
    for (name, text) in files {
        let quadlet = pin::pin(&name, &text, context).with_context(|| format!("quadlet {name} refused"))?;
        built.services.extend(quadlet.service);
        built.containers.extend(quadlet.containers);
        built.pods.extend(quadlet.pods);
        pinned.push((name, quadlet.text));
    }
    ensure!(!built.services.is_empty(), "quadlets refused: no .container file: add one");
    Ok((built, pinned))
}

/// Refuses circular dependencies: systemd would not start some of the units.
fn check_order(units: &[File]) -> Result<()> {
    let names: Vec<_> = units.iter().map(|(name, _)| name.as_ref().to_string_lossy().into_owned()).collect();
    let mut needs: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, (_, text)) in names.iter().zip(units) {
        for line in ini::parse(text).iter().filter(|line| line.section == "Unit") {
            let named = line.value.split_whitespace();
            for other in named.filter_map(|word| names.iter().find(|name| *name == word)) {
                match line.key.as_str() {
                    "After" => needs.entry(name).or_default().insert(other),
                    "Before" => needs.entry(other).or_default().insert(name),
                    _ => false,
                };
            }
        }
    }
    start_order::check(&needs)
}

/// Runs the generator on `files`.
fn generate(generator: &Path, files: &[File]) -> Result<Vec<File>> {
    let directory = Path::new(WORKING_DIRECTORY);
    durable::remove_tree(directory)?;
    durable::make_dirs(directory)?;
    let generate = || {
        let (quadlets, units) = (directory.join("quadlets"), directory.join("units"));
        for (name, text) in files {
            durable::write_file(&quadlets.join(name), text.as_bytes())?;
        }
        durable::make_dirs(&units)?;
        let program = Program::new(generator, LIMIT).env("QUADLET_UNIT_DIRS", &quadlets);
        program.args(["-v"]).arg(&units).run().context("quadlets refused by podman's generator")?;
        read_units(&units)
    };
    let units = generate();
    durable::remove_tree(directory)?;
    units
}

/// The units in `directory`, without the lines that name the quadlets they were made of, which are removed.
fn read_units(directory: &Path) -> Result<Vec<File>> {
    let mut units = Vec::new();
    for name in Dir::open(directory)?.names()? {
        let path = directory.join(&name);
        // Directories have links for [Install], which are not used: this module starts the units.
        if path.is_file() {
            let text = std::fs::read_to_string(&path).with_context(|| format!("reading {} failed", path.display()))?;
            let lines = text.lines().filter(|line| !line.starts_with("SourcePath="));
            units.push((name, lines.collect::<Vec<_>>().join("\n") + "\n"));
        }
    }
    Ok(units)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact_files::ArtifactFiles;
    use crate::engine::Engine;
    use crate::project::Containers;
    use mender_update_module::FileName;
    use pin::{Pinned, pin};
    use std::cell::RefCell;

    /// Pins a quadlet, with a podman whose images declare the volume `/data`.
    fn pinned(name: &str, text: &str) -> Result<Pinned> {
        let directory = tempfile::tempdir()?;
        let mut files = ArtifactFiles::new(directory.path().join("files"), 0);
        files.write_for_test(&[("app.env", "A=1"), ("conf/x", "")]);
        let images = BTreeMap::from([("localhost/a:1".to_owned().try_into()?, "1".repeat(64).try_into()?)]);
        let context = BuildContext {
            project: &"shop".to_owned().try_into()?,
            engine: &Engine::assumed(EngineKind::Podman),
            images: &images,
            declared_volumes: &|_| Ok(vec!["/data".to_owned()]),
            device_images: &[],
            used_device_images: RefCell::default(),
            files: &files,
            files_directory: Path::new("/projects/shop/files"),
            health_limit: Duration::ZERO,
        };
        pin(&FileName::new(name)?, text, &context)
    }

    #[test]
    fn images_are_pinned_files_are_found_and_declared_volumes_get_names() {
        let text = "[Unit]\nDescription=x\n[Container]\nImage = a:1\nEnvironmentFile=app.env\n\
                    Volume=./conf:/etc/app:ro\nVolume=/cache\n[Service]\nType=oneshot\n";
        let web = pinned("web.container", text).unwrap();
        let service = web.service.unwrap();
        assert_eq!((service.unit.as_str(), service.oneshot), ("web.service", true));
        assert_eq!(service.containers, Containers::Named("systemd-web".into()));
        for line in [
            &format!("Image={}", "1".repeat(64)),
            "EnvironmentFile=/projects/shop/files/app.env",
            "Volume=/projects/shop/files/conf:/etc/app:ro",
            "Volume=shop.web.cache:/cache",
            "Volume=shop.web.data:/data",
            "Label=io.mender.update-module.project=shop",
        ] {
            assert_eq!(web.text.lines().filter(|found| *found == line).count(), 1, "{line}\n{}", web.text);
        }
        let mounted = pinned("web.container", "[Container]\nImage=a:1\nVolume=mine:/data/\n").unwrap();
        assert!(!mounted.text.contains("shop.web.data"), "{}", mounted.text);
        assert!(pinned("data.volume", "[Volume]\n").unwrap().service.is_none());
        assert_eq!(pinned("p.pod", "[Pod]\nPodName=mine\n").unwrap().pods, ["mine"]);
    }

    #[test]
    fn quadlets_that_cannot_be_run_or_rolled_back_are_refused() {
        for line in [
            "ServiceName=other",
            "ServiceName = other",
            "Pull=always",
            "Pull=\\\nnever",
            "Rootfs=/srv",
            "Image=b:1",
            "Image=a",
            "Image=a:%i",
            "Volume=./data:/data",
            "Volume=data/x:/data",
            "Volume=./conf:/etc/app",
            "Mount=type=bind,source=./x,target=/x",
            "Mount=type=image,source=b:1,destination=/x",
            "EnvironmentFile=other.env",
            "EnvironmentFile=../x",
            "SeccompProfile=./x.json",
            "PodmanArgs=-v ./x:/x",
            "PodmanArgs=--env-file \"x\"",
            "PodmanArgs=--pull=always",
            "ContainerName=%p",
        ] {
            let text = format!("[Container]\nImage=a:1\n{line}\n");
            assert!(pinned("web.container", &text).is_err(), "{line} was accepted");
        }
        for (name, text) in [
            ("web@.container", "[Container]\nImage=a:1\n"),
            ("web.container", "[Container]\n"),
            ("web.container", "[Service]\nImage=a:1\n"),
            ("data.volume", "[Volume]\nDevice=./x\nOptions=bind\n"),
            ("data.volume", "[Volume]\nDriver=image\nImage=b:1\n"),
            ("p.pod", "[Pod]\nServiceName=x\n"),
        ] {
            assert!(pinned(name, text).is_err(), "{text} was accepted");
        }
        for name in ["app.image", "app.build", "app.kube", "container", "app.service"] {
            assert!(pinned(name, "").is_err(), "{name} was accepted");
        }
    }

    #[test]
    fn the_last_value_of_the_section_counts() {
        let text = "[Unit]\nImage=of another section\n[Container]\nImage=b:1\nImage=a:1\nContainerName=x\n\
                    ContainerName=mine\n[Service]\nType=oneshot\nType=simple\n";
        let service = pinned("web.container", text).unwrap().service.unwrap();
        assert_eq!((service.containers, service.oneshot), (Containers::Named("mine".into()), false));
        let pod = pinned("p.pod", "[Pod]\nVolume=/data\nVolume=./conf:/c:ro\n").unwrap();
        assert_eq!((pod.pods, pod.service.is_none()), (vec!["systemd-p".to_owned()], true));
        assert!(pod.text.contains("Volume=/projects/shop/files/conf:/c:ro\n"), "{}", pod.text);
    }

    #[test]
    fn paths_of_the_device_and_specifiers_stay() {
        for line in [
            "Volume=%h/data:/srv",
            "Volume=/srv:/srv",
            "Volume=named:/srv",
            "EnvironmentFile=/etc/app.env",
            "EnvironmentFile=%E/app.env",
            "SeccompProfile=unconfined",
            "SeccompProfile=/etc/app.json",
            "SeccompProfile=%E/app.json",
            "PodmanArgs=-v /x:/x",
            "Mount=type=bind,source=/x,target=/x",
        ] {
            let text = format!("[Container]\nImage=a:1\n{line}\n");
            let pinned = pinned("web.container", &text).unwrap_or_else(|error| panic!("{line}: {error:#}"));
            assert!(pinned.text.lines().any(|found| found == line), "{line}:\n{}", pinned.text);
        }
        // Each of them is the place of the volume that the image declares.
        for line in ["Tmpfs=/data/:rw", "Mount=type=tmpfs,target=/data", "PodmanArgs=--tmpfs /data", "Volume=a:/data"] {
            let text = format!("[Container]\nImage=a:1\n{line}\n");
            let text = pinned("web.container", &text).unwrap().text;
            assert!(!text.contains("shop.web.data"), "{line}:\n{text}");
        }
    }

    #[test]
    fn a_volume_is_not_beside_its_quadlet() {
        for line in ["Device=/srv/x\nOptions=rw,bind", "Device=%h/x\nType=bind", "Device=tmpfs\nType=tmpfs", ""] {
            pinned("data.volume", &format!("[Volume]\n{line}\n")).unwrap_or_else(|error| panic!("{line}: {error:#}"));
        }
        for line in ["Device=x\nOptions=rw,bind", "Device=x\nType=bind", "Device=./x", "Options=bind", "Image=a:1"] {
            assert!(pinned("data.volume", &format!("[Volume]\n{line}\n")).is_err(), "{line}");
        }
    }

    #[test]
    fn circular_dependencies_are_refused() {
        let unit = |name: &str, text: &str| (FileName::new(name).unwrap(), format!("[Unit]\n{text}\n"));
        let [one, other] = [unit("a.service", "After=b.service x.target"), unit("b.service", "After=a.service")];
        assert!(check_order(&[one.clone(), other]).is_err());
        assert!(check_order(&[one.clone(), unit("b.service", "Before=a.service")]).is_ok());
        assert!(check_order(&[one, unit("b.service", "Before=x.service")]).is_ok());
    }
}
