//! Scenarios of the form `quadlet`.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use test_image::{Mode, tar};

use crate::device::Device;
use crate::release::{Release, release};
use crate::{Scenario, Setup};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "quadlet",
        summary: "quadlets with other files are installed, rolled back and committed, and start at a boot",
        on: &[Setup::Podman],
        run: quadlet,
    },
    Scenario {
        name: "quadlet-refused",
        summary: "quadlets that pull, set the name of the unit, or use the name of another container are refused",
        on: &[Setup::Podman],
        run: refused,
    },
];

const TAG: &str = "localhost/shop:1";

fn with_files(device: &Device, version: &str) -> Release {
    let image = device.image_of(TAG, version, Mode::Healthy).with_volume("/state").archive();
    let text = format!(
        "# Pull=always\n[Container]\nImage={TAG}\nNetwork=host\nVolume=data.volume:/data\nEnvironmentFile=./app.env\n\
         Volume=./conf:/conf:ro\nStopTimeout=1\n\n[Service]\nRestart=always\n"
    );
    let files = tar(&[
        ("web.container", 0o644, text.as_bytes()),
        ("data.volume", 0o644, b"[Volume]\n"),
        ("app.env", 0o600, format!("GREETING=hello-{version}\n").as_bytes()),
        ("conf/app.conf", 0o644, format!("conf-{version}").as_bytes()),
    ]);
    let meta_data = json!({"archive": "project.tar", "quadlet": ["web.container", "data.volume"]});
    let mut release = release(version, "shop", &[(TAG, &image)], meta_data);
    release.files.push(("project.tar".to_owned(), files));
    release
}

fn is_version(device: &Device, version: &str) -> Result<()> {
    device.answers(8080, version)?;
    device.serves(8080, "env/GREETING", &format!("hello-{version}"))?;
    device.serves(8080, "file/conf/app.conf", &format!("conf-{version}"))
}

fn quadlet(device: &mut Device) -> Result<()> {
    device.update(&with_files(device, "1"))?;
    is_version(device, "1")?;
    device.serves(8080, "write/state/x", "1")?;
    let previous = device.images()?;
    let second = device.artifact(&with_files(device, "2"))?;
    device.client(&format!("install {second}"), 0)?;
    is_version(device, "2")?;
    device.serves(8080, "file/state/x", "1")?;
    device.client("rollback", 0)?;
    is_version(device, "1")?;
    device.is_clean(&previous)?;
    device.client(&format!("install {second}"), 0)?;
    device.client("commit", 0)?;
    device.lose_power()?;
    device.power_on()?;
    is_version(device, "2").context("after a boot")?;
    ensure!(device.images()?.len() == previous.len(), "images are left: {:#?}", device.images()?);
    Ok(())
}

fn refused(device: &mut Device) -> Result<()> {
    device.load(&device.image("localhost/unrelated:1", "unrelated", Mode::Healthy))?;
    device.engine("run --detach --network=host --env PORT=8099 --name unrelated localhost/unrelated:1")?;
    device.engine("pod create --name unrelated-pod")?;
    let before = device.images()?;
    let image = device.image(TAG, "1", Mode::Healthy);
    let web = |more: &str| format!("[Container]\nImage={TAG}\nNetwork=host\nStopTimeout=1\n{more}\n");
    let none = ("more.network", "[Network]\n".to_owned());
    for (number, (files, expected)) in [
        ([("web.container", web("ContainerName=unrelated")), none.clone()], "container name in use: unrelated"),
        ([("web.container", web("ServiceName=other")), none.clone()], "ServiceName"),
        ([("web.container", web("Pull=newer")), none.clone()], "Pull"),
        ([("web.container", web("Volume=./d:/d")), none.clone()], "archive"),
        (
            [("web.container", web("[Unit]\nAfter=b.service")), ("b.container", web("[Unit]\nAfter=web.service"))],
            "circular dependency",
        ),
        (
            [("web.container", web("Pod=p.pod")), ("p.pod", "[Pod]\nPodName=unrelated-pod\n".to_owned())],
            "pod name in use: unrelated-pod",
        ),
        ([("dbus.container", web("")), none.clone()], "a unit of this device"),
    ]
    .into_iter()
    .enumerate()
    {
        let names = files.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        let mut release = release(&format!("bad-{number}"), "shop", &[(TAG, &image)], json!({"quadlet": names}));
        release.files.extend(files.iter().map(|(name, text)| ((*name).to_owned(), text.clone().into_bytes())));
        device.refuses(&release, &[expected]).with_context(|| format!("{files:?}"))?;
        device.is_clean(&before).with_context(|| format!("{files:?}"))?;
    }
    device.answers(8099, "unrelated")
}
