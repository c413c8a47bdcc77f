//! Projects in podman's quadlets.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use test_image::{Mode, tar};

use crate::device::Device;
use crate::release::{Release, release};
use crate::{Scenario, Setup};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "quadlet",
        says: "quadlets with files beside them are installed, rolled back and committed, and start at a boot",
        on: &[Setup::Podman],
        play: quadlet,
    },
    Scenario {
        name: "quadlet-refused",
        says: "quadlets that would pull, have another name, or take a container of somebody else's are refused",
        on: &[Setup::Podman],
        play: refused,
    },
];

const TAG: &str = "localhost/shop:1";

fn carried(device: &Device, version: &str) -> Release {
    let image = device.image_of(TAG, version, Mode::Well).with_volume("/state").archive();
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
    device.says(8080, "env/GREETING", &format!("hello-{version}"))?;
    device.says(8080, "file/conf/app.conf", &format!("conf-{version}"))
}

fn quadlet(device: &mut Device) -> Result<()> {
    device.update(&carried(device, "1"))?;
    is_version(device, "1")?;
    device.says(8080, "write/state/x", "1")?;
    let old = device.images()?;
    let second = device.artifact(&carried(device, "2"))?;
    device.client(&format!("install {second}"), 0)?;
    is_version(device, "2")?;
    device.says(8080, "file/state/x", "1")?;
    device.client("rollback", 0)?;
    is_version(device, "1")?;
    device.is_clean(&old)?;
    device.client(&format!("install {second}"), 0)?;
    device.client("commit", 0)?;
    device.power_cut()?;
    device.power_on()?;
    is_version(device, "2").context("after a boot")?;
    ensure!(device.images()?.len() == old.len(), "images are left: {:#?}", device.images()?);
    Ok(())
}

fn refused(device: &mut Device) -> Result<()> {
    device.load(&device.image("localhost/theirs:1", "theirs", Mode::Well))?;
    device.engine("run --detach --network=host --env PORT=8099 --name theirs localhost/theirs:1")?;
    device.engine("pod create --name their-pod")?;
    let nothing = device.images()?;
    let image = device.image(TAG, "1", Mode::Well);
    let web = |more: &str| format!("[Container]\nImage={TAG}\nNetwork=host\nStopTimeout=1\n{more}\n");
    let none = ("more.network", "[Network]\n".to_owned());
    for (number, (files, words)) in [
        ([("web.container", web("ContainerName=theirs")), none.clone()], "theirs is somebody else's"),
        ([("web.container", web("ServiceName=other")), none.clone()], "ServiceName"),
        ([("web.container", web("Pull=newer")), none.clone()], "Pull"),
        ([("web.container", web("Volume=./d:/d")), none.clone()], "archive"),
        (
            [
                ("web.container", web("[Unit]\nAfter=b.service")),
                ("b.container", web("[Unit]\nAfter=web.service")),
            ],
            "wait for each other",
        ),
        (
            [("web.container", web("Pod=p.pod")), ("p.pod", "[Pod]\nPodName=their-pod\n".to_owned())],
            "their-pod is somebody else's",
        ),
        ([("dbus.container", web("")), none.clone()], "is a unit of this device"),
    ]
    .into_iter()
    .enumerate()
    {
        let names = files.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        let mut release =
            release(&format!("bad-{number}"), "shop", &[(TAG, &image)], json!({"quadlet": names}));
        release
            .files
            .extend(files.iter().map(|(name, text)| ((*name).to_owned(), text.clone().into_bytes())));
        device.refuses(&release, &[words]).with_context(|| format!("{files:?}"))?;
        device.is_clean(&nothing).with_context(|| format!("{files:?}"))?;
    }
    device.answers(8099, "theirs")
}
