//! Scenarios of the generator `container-artifact-gen`, which runs on the device and exports the images of its engine.

use anyhow::{Result, ensure};
use test_image::Mode;

use super::ENGINES;
use crate::device::Device;
use crate::{Scenario, Setup};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "artifact-gen-run",
        summary: "an artifact of an exported image is installed, rolled back and committed; wrong input is refused",
        on: ENGINES,
        run,
    },
    Scenario {
        name: "artifact-gen-compose",
        summary: "an artifact of compose files with other files is installed and committed",
        on: &[Setup::Podman, Setup::Docker],
        run: compose,
    },
    Scenario {
        name: "artifact-gen-quadlet",
        summary: "an artifact of quadlets with other files is installed and committed",
        on: &[Setup::Podman],
        run: quadlet,
    },
];

const TAG: &str = "localhost/shop:1";
const GENERATOR: &str = "container-artifact-gen --device-type test-device --project shop";

/// Loads an image of `version` into the engine, as a workstation has it that built it.
fn load(device: &Device, version: &str) -> Result<()> {
    let image = device.image(TAG, version, Mode::Healthy);
    device.write("/root/image.tar", &image.content)?;
    device.ok(&format!("{} load --input /root/image.tar && rm /root/image.tar", device.setup.engine())).map(drop)
}

/// Generates the artifact `name` with `options`, and removes the image from the engine, since the device and the
/// workstation are the same here.
fn generate(device: &Device, name: &str, options: &str) -> Result<String> {
    let engine = device.setup.engine();
    let artifact = format!("/root/{name}.mender");
    device.ok(&format!(
        "{GENERATOR} --artifact-name {name} --engine {engine} --output-path {artifact} {options} && {engine} rmi {TAG} \
         && test -z \"$(ls -d /tmp/artifact-gen-* 2> /dev/null)\""
    ))?;
    Ok(artifact)
}

fn run(device: &mut Device) -> Result<()> {
    let options = format!("--run --service web --network host --env PORT=8080 {TAG}");
    for version in ["1", "2"] {
        load(device, version)?;
        let artifact = generate(device, version, &options)?;
        device.client(&format!("install {artifact}"), 0)?;
        device.answers(8080, version)?;
        if version == "2" {
            device.client("rollback", 0)?;
            device.answers(8080, "1")?;
            device.client(&format!("install {artifact}"), 0)?;
        }
        device.client("commit", 0)?;
        device.answers(8080, version)?;
    }
    load(device, "3")?;
    let engine = device.setup.engine();
    for (wrong, expected) in [
        (format!("--architecture arm64 --run {TAG}"), "is for amd64, and --architecture says arm64"),
        ("--run localhost/none:1".to_owned(), "image localhost/none:1 not found"),
        (format!("--run --volume /srv/data:/data {TAG}"), "path of the device refused"),
    ] {
        let output = device
            .run(&format!("{GENERATOR} --artifact-name 3 --engine {engine} --output-path /root/3.mender {wrong}"))?;
        ensure!(output.status == 1 && output.text.contains(expected), "{wrong}: {}: {}", output.status, output.text);
        device.ok("test ! -e /root/3.mender && test -z \"$(ls -A /root | grep '^[.]3')\"")?;
    }
    Ok(())
}

fn compose(device: &mut Device) -> Result<()> {
    let file = format!(
        "services:\n  web:\n    image: {TAG}\n    network_mode: host\n    env_file: conf/app.env\n    volumes: [data:/data]\n\
         volumes: {{data: {{}}}}\n"
    );
    device.write("/root/project/compose.yaml", file.as_bytes())?;
    device.write("/root/files/conf/app.env", b"PORT=8080\nGREETING=hello\n")?;
    load(device, "1")?;
    let options = format!("--compose /root/project/compose.yaml --archive /root/files {TAG}");
    let artifact = generate(device, "1", &options)?;
    device.client(&format!("install {artifact}"), 0)?;
    device.client("commit", 0)?;
    device.answers(8080, "1")?;
    device.serves(8080, "env/GREETING", "hello")
}

fn quadlet(device: &mut Device) -> Result<()> {
    let text =
        format!("[Container]\nImage={TAG}\nNetwork=host\nEnvironmentFile=./conf/app.env\nVolume=data.volume:/data\n");
    device.write("/root/project/web.container", text.as_bytes())?;
    device.write("/root/project/data.volume", b"[Volume]\n")?;
    device.write("/root/files/conf/app.env", b"PORT=8080\nGREETING=hello\n")?;
    load(device, "1")?;
    let options = format!(
        "--quadlet /root/project/web.container --quadlet /root/project/data.volume --archive /root/files {TAG}"
    );
    let artifact = generate(device, "1", &options)?;
    device.client(&format!("install {artifact}"), 0)?;
    device.client("commit", 0)?;
    device.answers(8080, "1")?;
    device.serves(8080, "env/GREETING", "hello")
}
