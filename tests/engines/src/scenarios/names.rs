//! Scenarios about the names of images, and about images and volumes that an update must not change.

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
        summary: "an archive does not take a name from another image, with a rollback and with a commit",
        on: ENGINES,
        run: names_of_others,
    },
    Scenario {
        name: "short-names",
        summary: "short names and names in docker's registry are restored by a rollback, and a commit leaves no image",
        on: ENGINES,
        run: short_names,
    },
    Scenario {
        name: "archives",
        summary: "archives of podman and of docker with both image stores are accepted, by the engine's ID",
        on: &[Setup::Podman, Setup::Docker, Setup::DockerContainerd],
        run: archives,
    },
    Scenario {
        name: "volumes",
        summary: "a volume that an image declares gets a name, and keeps its data through updates and rollbacks",
        on: ENGINES,
        run: volumes,
    },
    Scenario {
        name: "image-without-a-name",
        summary: "an image on the device that has no name is there after a rollback, and has none",
        on: &[Setup::Podman, Setup::Docker],
        run: without_name,
    },
    Scenario {
        name: "interrupted-load",
        summary: "an interrupted load leaves no image and no name after the next update",
        on: ENGINES,
        run: interrupted_load,
    },
];

fn without_name(device: &mut Device) -> Result<()> {
    let found = device.image("localhost/found:1", "1", Mode::Healthy);
    device.load(&found)?;
    // It loses its name to another one.
    device.load(&device.image("localhost/found:1", "2", Mode::Healthy))?;
    let before = device.images()?;
    ensure!(before.iter().any(|image| image.contains(&found.id)), "{before:#?}");
    let meta_data = json!({
        "images": [{"id": found.id, "ref": "localhost/mine:1"}],
        "run": {"web": service("localhost/mine:1", 8080)},
    });
    let first = device.artifact(&release("1", "shop", &[], meta_data))?;
    device.client(&format!("install {first}"), 0)?;
    device.answers(8080, "1")?;
    device.client("rollback", 0)?;
    if device.setup.is_podman() {
        return device.is_clean(&before);
    }
    ensure!(device.images()?.iter().any(|image| image.contains(&found.id)), "{:#?}", device.images()?);
    Ok(())
}

fn names_of_others(device: &mut Device) -> Result<()> {
    let unrelated = device.image("localhost/base:latest", "unrelated", Mode::Healthy);
    device.load(&unrelated)?;
    let before = device.images()?;
    let image = |version: &str| {
        let names = ["localhost/shop:1", "localhost/base:latest", "base:latest"];
        device.image_of("localhost/shop:1", version, Mode::Healthy).called(&names).archive()
    };
    let first = device.artifact(&plain("1", "shop", "localhost/shop:1", &image("1"), 8080))?;
    device.client(&format!("install {first}"), 0)?;
    let base =
        |images: &[String]| -> Vec<String> { images.iter().filter(|image| image.contains("base:")).cloned().collect() };
    ensure!(base(&device.images()?) == before, "after the install: {:#?}", device.images()?);
    device.client("rollback", 0)?;
    device.is_clean(&before)?;
    device.client(&format!("install {first}"), 0)?;
    device.client("commit", 0)?;
    device.update(&plain("2", "shop", "localhost/shop:1", &image("2"), 8080))?;
    ensure!(base(&device.images()?) == before, "after a commit: {:#?}", device.images()?);
    ensure!(device.images()?.len() == before.len() + 2, "images are left: {:#?}", device.images()?);
    // A name in the meta-data is taken from the other image.
    let mine = device.image("localhost/base:latest", "3", Mode::Healthy);
    let previous = device.images()?;
    let third = device.artifact(&plain("3", "shop", "localhost/base:latest", &mine, 8080))?;
    device.client(&format!("install {third}"), 0)?;
    device.answers(8080, "3")?;
    device.client("rollback", 0)?;
    device.answers(8080, "2")?;
    device.is_clean(&previous)
}

fn short_names(device: &mut Device) -> Result<()> {
    for (number, name) in ["app:1", "docker.io/library/lib:1", "docker.io/foo/app:1", "foo/more:1"].iter().enumerate() {
        let project = format!("project-{number}");
        let port = 8080 + u16::try_from(number)?;
        let image = |version: &str| device.image(name, version, Mode::Healthy);
        let artifact = |version: &str| -> Result<String> {
            device.artifact(&plain(&format!("{project}-{version}"), &project, name, &image(version), port))
        };
        let before = device.images()?;
        let first = artifact("1")?;
        device.client(&format!("install {first}"), 0)?;
        if number == 0 {
            device.client("rollback", 0)?;
            device.is_clean(&before)?;
            device.client(&format!("install {first}"), 0)?;
        }
        device.client("commit", 0)?;
        let previous = device.images()?;
        ensure!(previous.len() == before.len() + 2, "{name}: {previous:#?}");
        let second = artifact("2")?;
        device.client(&format!("install {second}"), 0)?;
        device.answers(port, "2")?;
        device.client("rollback", 0)?;
        device.answers(port, "1")?;
        device.is_clean(&previous)?;
        device.client(&format!("install {second}"), 0)?;
        device.client("commit", 0)?;
        ensure!(device.images()?.len() == previous.len(), "{name}: an image is left: {:#?}", device.images()?);
    }
    Ok(())
}

/// Makes both engines save an image in their formats, and installs the archives.
fn archives(device: &mut Device) -> Result<()> {
    let is_docker = !device.setup.is_podman();
    let image = device.image("localhost/saved:1", "1", Mode::Healthy);
    device.write("/root/image.tar", &image.content)?;
    let save = |setup: &str, start: &str, load: &str, id: &str, save: &str| -> Result<()> {
        device
            .ok(&format!(
                "{start} && {load} < /root/image.tar && {id} > /root/{setup}.id && {save} > /root/{setup}.tar"
            ))
            .map(drop)
    };
    let stop = "systemctl stop docker.service docker.socket; \
                systemctl reset-failed docker.service 2> /dev/null || true";
    let restore = device.run("cat /etc/docker/daemon.json")?;
    for (setup, settings) in [("classic", "{}"), ("containerd", r#"{"features": {"containerd-snapshotter": true}}"#)] {
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
    // Podman rewrites the configuration in this format, which changes its digest.
    let index = "podman save --quiet --format oci-archive localhost/saved:1 | tar -xO index.json | \
                 grep -o 'sha256:[0-9a-f]*'";
    for (setup, format, id) in [("podman", "docker-archive", inspect), ("oci", "oci-archive", index)] {
        let command = format!("podman save --quiet --format {format} localhost/saved:1");
        save(setup, "true", "podman load", id, &command)?;
    }
    device.ok("podman rmi localhost/saved:1")?;
    let settings = if restore.status == 0 { restore.text } else { "{}".to_owned() };
    device.write("/etc/docker/daemon.json", settings.as_bytes())?;
    device.ok(&if is_docker { format!("{stop}; systemctl start docker.service") } else { stop.to_owned() })?;
    let before = device.images()?;
    for setup in ["classic", "containerd", "podman", "oci"] {
        let id = device.ok(&format!("cat /root/{setup}.id"))?;
        let content = device.read(&format!("/root/{setup}.tar"))?;
        let archive = Archive { id: id.trim().to_owned(), content };
        let images = [("localhost/shop:1", &archive)];
        let run = json!({"run": {"web": service("localhost/shop:1", 8080)}});
        let Release { name, files, meta_data } = release(setup, "shop", &images, run);
        let artifact = device.artifact(&Release { name, files, meta_data })?;
        let output = device.run(&format!("mender install {artifact}"))?;
        // Docker before 27 accepts only its own archives.
        if setup == "oci" && device.setup == Setup::Docker && output.status != 0 {
            ensure!(output.text.contains("image-0.tar"), "{}", output.text);
        } else {
            ensure!(output.status == 0, "the archive of {setup} was refused:\n{}", output.text);
            device.answers(8080, "1")?;
            device.client("rollback", 0)?;
        }
        device.is_clean(&before)?;
    }
    Ok(())
}

fn volumes(device: &mut Device) -> Result<()> {
    let artifact = |version: &str| -> Result<String> {
        let image = device.image_of("localhost/shop:1", version, Mode::Healthy).with_volume("/state").archive();
        device.artifact(&plain(version, "shop", "localhost/shop:1", &image, 8080))
    };
    let (first, second) = (artifact("1")?, artifact("2")?);
    device.client(&format!("install {first}"), 0)?;
    device.client("commit", 0)?;
    device.answers(8080, "1")?;
    device.serves(8080, "write/state/x", "1")?;
    device.client(&format!("install {second}"), 0)?;
    device.answers(8080, "2")?;
    device.serves(8080, "file/state/x", "1")?;
    device.client("rollback", 0)?;
    device.serves(8080, "file/state/x", "1")?;
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
        &device.image("localhost/shop:1", "1", Mode::Healthy),
        8080,
    ))?;
    let previous = device.images()?;
    let second = device.image("localhost/shop:1", "2", Mode::Healthy);
    let artifact = device.artifact(&plain("2", "shop", "localhost/shop:1", &second, 8080))?;
    let mut client = device.client_until(
        &format!("install {artifact}"),
        &format!("{} images --format '{{{{.Repository}}}}' | grep -q mender-loaded", device.setup.engine()),
    )?;
    device.lose_power()?;
    client.wait()?;
    device.power_on()?;
    device.answers(8080, "1")?;
    device.update(&plain(
        "3",
        "shop",
        "localhost/shop:1",
        &device.image("localhost/shop:1", "3", Mode::Healthy),
        8080,
    ))?;
    ensure!(device.images()?.len() == previous.len(), "images are left: {:#?}", device.images()?);
    device.answers(8080, "3")
}
