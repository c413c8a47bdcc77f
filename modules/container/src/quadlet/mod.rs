//! The form for podman's quadlets: podman's own generator makes the units, of images that are given by their ID.

mod ini;
mod pin;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mender_update_module::Program;
use mender_update_module::durable::{self, Dir};

use crate::definition::{Around, Defined};
use crate::engine::Kind;
use crate::order;
use crate::project::File;

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
    let mut defined = Defined::default();
    let mut pinned = Vec::new();
    for (name, text) in files {
        let quadlet = pin::pin(&name, &text, around).with_context(|| format!("the quadlet {name}"))?;
        defined.services.extend(quadlet.service);
        defined.containers.extend(quadlet.containers);
        defined.pods.extend(quadlet.pods);
        pinned.push((name, quadlet.text));
    }
    ensure!(!defined.services.is_empty(), "the quadlets have no .container: nothing would run");
    defined.units = generate(generator, &pinned)?;
    check_order(&defined.units)?;
    for service in &defined.services {
        let is_there = defined.units.iter().any(|(name, _)| name.as_ref() == Path::new(&service.unit));
        ensure!(is_there, "podman's generator made no unit {}: see its message above", service.unit);
    }
    Ok(defined)
}

/// Refuses units that wait for each other: systemd would start some of them, or none.
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
    order::check(&needs)
}

/// Runs the generator on `files`, in a directory of their own.
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
    let directory = Path::new("/run/mender-container");
    durable::remove_tree(directory)?;
    Ok(durable::make_dirs(directory)?.path().to_owned())
}

/// The units in `directory`, without the word of what they were made of, which is not on the device any more.
fn units(directory: &Path) -> Result<Vec<File>> {
    let mut units = Vec::new();
    for name in Dir::open(directory)?.names()? {
        let path = directory.join(&name);
        // What [Install] asks for are directories with links: this module starts the units itself.
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
    use crate::carried::Carried;
    use crate::project::Containers;
    use mender_update_module::FileName;
    use pin::{Pinned, pin};
    use std::cell::RefCell;

    /// Checks a quadlet on a podman whose images declare no volumes.
    fn pinned(name: &str, text: &str) -> Result<Pinned> {
        let directory = tempfile::tempdir()?;
        let mut carried = Carried::new(directory.path().join("files"), 0);
        carried.unpack_for_test(&[("app.env", "A=1"), ("conf/x", "")]);
        let engine = directory.path().join("podman");
        std::fs::write(&engine, "#!/bin/sh\necho '[{\"Config\": {\"Volumes\": {\"/data\": {}}}}]'\n")?;
        std::fs::set_permissions(&engine, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let engine =
            format!(r#"{{"command": [{engine:?}], "kind": "Podman", "storage": "/s", "load_seconds": 1}}"#);
        let images = BTreeMap::from([("localhost/a:1".to_owned().try_into()?, "1".repeat(64).try_into()?)]);
        let around = Around {
            project: &"shop".to_owned().try_into()?,
            engine: &serde_json::from_str(&engine)?,
            images: &images,
            listed: &[],
            others: RefCell::default(),
            carried: &carried,
            directory: Path::new("/projects/shop/files"),
        };
        pin(&FileName::new(name)?, text, &around)
    }

    #[test]
    fn images_are_pinned_carried_files_found_and_declared_volumes_named() {
        let text = "[Unit]\nDescription=x\n[Container]\nImage = a:1\nEnvironmentFile=app.env\nVolume=./conf:/etc/app:ro\n\
                    Volume=/cache\n[Service]\nType=oneshot\n";
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
    fn what_cannot_be_run_and_rolled_back_here_is_refused() {
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
            "EnvironmentFile=other.env",
            "EnvironmentFile=../x",
            "SeccompProfile=./x.json",
            "PodmanArgs=-v ./x:/x",
            "PodmanArgs=--env-file \"x\"",
            "PodmanArgs=--pull=always",
            "ContainerName=%p",
        ] {
            let text = format!("[Container]\nImage=a:1\n{line}\n");
            assert!(pinned("web.container", &text).is_err(), "{line} was taken");
        }
        for (name, text) in [
            ("web@.container", "[Container]\nImage=a:1\n"),
            ("web.container", "[Container]\n"),
            ("web.container", "[Service]\nImage=a:1\n"),
            ("data.volume", "[Volume]\nDevice=./x\nOptions=bind\n"),
            ("data.volume", "[Volume]\nDriver=image\nImage=b:1\n"),
            ("p.pod", "[Pod]\nServiceName=x\n"),
        ] {
            assert!(pinned(name, text).is_err(), "{text} was taken");
        }
        for name in ["app.image", "app.build", "app.kube", "container", "app.service"] {
            assert!(pinned(name, "").is_err(), "{name} was taken");
        }
    }

    #[test]
    fn units_that_wait_for_each_other_are_refused() {
        let unit = |name: &str, text: &str| (FileName::new(name).unwrap(), format!("[Unit]\n{text}\n"));
        let [one, other] =
            [unit("a.service", "After=b.service x.target"), unit("b.service", "After=a.service")];
        assert!(check_order(&[one.clone(), other]).is_err());
        assert!(check_order(&[one.clone(), unit("b.service", "Before=a.service")]).is_ok());
        assert!(check_order(&[one, unit("b.service", "Before=x.service")]).is_ok());
    }
}
