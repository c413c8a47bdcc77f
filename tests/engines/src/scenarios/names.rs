//! Names of images, and what of an engine an update must leave alone.

use anyhow::{Result, ensure};
use serde_json::json;
use test_image::{Archive, Mode};

use super::ENGINES;
use super::updates::{plain, service};
use crate::device::Device;
use crate::release::{Release, release};
use crate::{Scenario, Setup};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "names-of-others",
        says: "an archive that carries a name of somebody else's does not take it, whatever becomes of the update",
        on: ENGINES,
        play: names_of_others,
    },
    Scenario {
        name: "short-names",
        says: "a short name and one of docker's registry are restored by a rollback, and no image is left after a commit",
        on: ENGINES,
        play: short_names,
    },
    Scenario {
        name: "archives",
        says: "archives of docker with either image store and of podman are taken, by the ID that their engine shows",
        on: &[Setup::Podman, Setup::Docker, Setup::DockerContainerd],
        play: archives,
    },
    Scenario {
        name: "volumes",
        says: "a volume that an image declares has a name, and keeps its data across updates and rollbacks",
        on: ENGINES,
        play: volumes,
    },
    Scenario {
        name: "interrupted-load",
        says: "a load that was killed leaves no image and no name when the next update has ended",
        on: ENGINES,
        play: interrupted_load,
    },
];

fn names_of_others(device: &mut Device) -> Result<()> {
    let theirs = device.image("localhost/base:latest", "theirs", Mode::Well);
    device.load(&theirs)?;
    let before = device.images()?;
    let image = |version: &str| {
        let names = ["localhost/shop:1", "localhost/base:latest", "base:latest"];
        device.image_of("localhost/shop:1", version, Mode::Well).called(&names).archive()
    };
    let first = device.artifact(&plain("1", "shop", "localhost/shop:1", &image("1"), 8080))?;
    device.client(&format!("install {first}"), 0)?;
    let base = |images: &[String]| -> Vec<String> {
        images.iter().filter(|image| image.contains("base:")).cloned().collect()
    };
    ensure!(base(&device.images()?) == before, "after the install: {:#?}", device.images()?);
    device.client("rollback", 0)?;
    device.is_clean(&before)?;
    device.client(&format!("install {first}"), 0)?;
    device.client("commit", 0)?;
    device.update(&plain("2", "shop", "localhost/shop:1", &image("2"), 8080))?;
    ensure!(base(&device.images()?) == before, "after a commit: {:#?}", device.images()?);
    ensure!(device.images()?.len() == before.len() + 2, "images are left: {:#?}", device.images()?);
    // A name that the artifact takes on purpose.
    let mine = device.image("localhost/base:latest", "3", Mode::Well);
    let old = device.images()?;
    let third = device.artifact(&plain("3", "shop", "localhost/base:latest", &mine, 8080))?;
    device.client(&format!("install {third}"), 0)?;
    device.answers(8080, "3")?;
    device.client("rollback", 0)?;
    device.answers(8080, "2")?;
    device.is_clean(&old)
}

fn short_names(device: &mut Device) -> Result<()> {
    for (number, name) in
        ["app:1", "docker.io/library/lib:1", "docker.io/foo/app:1", "foo/more:1"].iter().enumerate()
    {
        let project = format!("project-{number}");
        let port = 8080 + u16::try_from(number)?;
        let image = |version: &str| device.image(name, version, Mode::Well);
        let artifact = |version: &str| -> Result<String> {
            device.artifact(&plain(&format!("{project}-{version}"), &project, name, &image(version), port))
        };
        let nothing = device.images()?;
        let first = artifact("1")?;
        device.client(&format!("install {first}"), 0)?;
        if number == 0 {
            device.client("rollback", 0)?;
            device.is_clean(&nothing)?;
            device.client(&format!("install {first}"), 0)?;
        }
        device.client("commit", 0)?;
        let old = device.images()?;
        ensure!(old.len() == nothing.len() + 2, "{name}: {old:#?}");
        let second = artifact("2")?;
        device.client(&format!("install {second}"), 0)?;
        device.answers(port, "2")?;
        device.client("rollback", 0)?;
        device.answers(port, "1")?;
        device.is_clean(&old)?;
        device.client(&format!("install {second}"), 0)?;
        device.client("commit", 0)?;
        ensure!(device.images()?.len() == old.len(), "{name}: an image is left: {:#?}", device.images()?);
    }
    Ok(())
}

/// Has both engines save an image, each as it likes, and installs what came of it.
fn archives(device: &mut Device) -> Result<()> {
    let is_docker = !device.setup.is_podman();
    let image = device.image("localhost/saved:1", "1", Mode::Well);
    device.write("/root/image.tar", &image.content)?;
    let save = |setup: &str, start: &str, load: &str, id: &str, save: &str| -> Result<()> {
        device
            .ok(&format!(
                "{start} && {load} < /root/image.tar && {id} > /root/{setup}.id && {save} > /root/{setup}.tar"
            ))
            .map(drop)
    };
    let stop = "systemctl stop docker.service docker.socket; systemctl reset-failed docker.service 2> /dev/null || true";
    let restore = device.run("cat /etc/docker/daemon.json")?;
    for (setup, settings) in
        [("classic", "{}"), ("containerd", r#"{"features": {"containerd-snapshotter": true}}"#)]
    {
        device.write("/etc/docker/daemon.json", settings.as_bytes())?;
        save(
            setup,
            &format!("{stop}; systemctl start docker.service"),
            "docker load",
            "docker image inspect --format '{{.Id}}' localhost/saved:1",
            "docker save localhost/saved:1",
        )?;
        device.ok("docker rmi localhost/saved:1")?;
    }
    let inspect = "podman image inspect --format '{{.Id}}' localhost/saved:1";
    // Podman writes the configuration anew in this format: its digest is another one.
    let index = "podman save --quiet --format oci-archive localhost/saved:1 | tar -xO index.json | \
                 grep -o 'sha256:[0-9a-f]*'";
    for (setup, format, id) in [("podman", "docker-archive", inspect), ("oci", "oci-archive", index)] {
        let command = format!("podman save --quiet --format {format} localhost/saved:1");
        save(setup, "true", "podman load", id, &command)?;
    }
    device.ok("podman rmi localhost/saved:1")?;
    let settings = if restore.status == 0 { restore.text } else { "{}".to_owned() };
    device.write("/etc/docker/daemon.json", settings.as_bytes())?;
    device.ok(&if is_docker {
        format!("{stop}; systemctl start docker.service")
    } else {
        stop.to_owned()
    })?;
    let nothing = device.images()?;
    for setup in ["classic", "containerd", "podman", "oci"] {
        let id = device.ok(&format!("cat /root/{setup}.id"))?;
        let content = device.read(&format!("/root/{setup}.tar"))?;
        let archive = Archive { id: id.trim().to_owned(), content };
        let images = [("localhost/shop:1", &archive)];
        let run = json!({"run": {"web": service("localhost/shop:1", 8080)}});
        let Release { name, files, meta_data } = release(setup, "shop", &images, run);
        let artifact = device.artifact(&Release { name, files, meta_data })?;
        let said = device.run(&format!("mender install {artifact}"))?;
        // Docker before 27 takes no archive that is not its own.
        if setup == "oci" && device.setup == Setup::Docker && said.status != 0 {
            ensure!(said.text.contains("image-0.tar"), "{}", said.text);
        } else {
            ensure!(said.status == 0, "the archive of {setup} was refused:\n{}", said.text);
            device.answers(8080, "1")?;
            device.client("rollback", 0)?;
        }
        device.is_clean(&nothing)?;
    }
    Ok(())
}

fn volumes(device: &mut Device) -> Result<()> {
    let artifact = |version: &str| -> Result<String> {
        let image = device.image_of("localhost/shop:1", version, Mode::Well).with_volume("/state").archive();
        device.artifact(&plain(version, "shop", "localhost/shop:1", &image, 8080))
    };
    let (first, second) = (artifact("1")?, artifact("2")?);
    device.client(&format!("install {first}"), 0)?;
    device.client("commit", 0)?;
    device.answers(8080, "1")?;
    device.says(8080, "write/state/x", "1")?;
    device.client(&format!("install {second}"), 0)?;
    device.answers(8080, "2")?;
    device.says(8080, "file/state/x", "1")?;
    device.client("rollback", 0)?;
    device.says(8080, "file/state/x", "1")?;
    let volumes = device.engine("volume ls --quiet")?;
    let mut volumes: Vec<_> = volumes.lines().collect();
    volumes.sort_unstable();
    ensure!(volumes == ["data", "shop.web.state"], "the volumes are {volumes:?}");
    Ok(())
}

fn interrupted_load(device: &mut Device) -> Result<()> {
    device.update(&plain(
        "1",
        "shop",
        "localhost/shop:1",
        &device.image("localhost/shop:1", "1", Mode::Well),
        8080,
    ))?;
    let old = device.images()?;
    let second = device.image("localhost/shop:1", "2", Mode::Well);
    let artifact = device.artifact(&plain("2", "shop", "localhost/shop:1", &second, 8080))?;
    let mut client = device.client_until(
        &format!("install {artifact}"),
        &format!("{} images --format '{{{{.Repository}}}}' | grep -q mender-loaded", device.setup.engine()),
    )?;
    device.power_cut()?;
    client.wait()?;
    device.power_on()?;
    device.answers(8080, "1")?;
    device.update(&plain(
        "3",
        "shop",
        "localhost/shop:1",
        &device.image("localhost/shop:1", "3", Mode::Well),
        8080,
    ))?;
    ensure!(device.images()?.len() == old.len(), "images are left: {:#?}", device.images()?);
    device.answers(8080, "3")
}
