//! Projects in compose files, with both providers.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use test_image::{Archive, Mode, tar};

use crate::device::Device;
use crate::release::{Release, release};
use crate::{Scenario, Setup};

/// Every provider with every engine.
const PROVIDERS: &[Setup] =
    &[Setup::Podman, Setup::PodmanDockerCompose, Setup::Docker, Setup::DockerContainerd];

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "compose",
        says: "a compose file is installed, rolled back and committed, and starts at a boot; the same with short names",
        on: PROVIDERS,
        play: compose,
    },
    Scenario {
        name: "compose-files",
        says: "several compose files with profiles, and files beside them in an archive, which change with the version",
        on: PROVIDERS,
        play: files,
    },
    Scenario {
        name: "compose-refused",
        says: "compose files with writable relative paths, unknown images or cycles are refused, and others are not",
        on: PROVIDERS,
        play: refused,
    },
];

const TAG: &str = "localhost/shop:1";

fn one(name: &str, reference: &str, image: &Archive, text: &str) -> Release {
    let mut release = release(name, "shop", &[(reference, image)], json!({"compose": "compose.yaml"}));
    release.files.push(("compose.yaml".to_owned(), text.as_bytes().to_vec()));
    release
}

fn web(image: &str, more: &str) -> String {
    format!("services:\n  web:\n    image: {image}\n    network_mode: host\n    stop_signal: SIGKILL\n{more}")
}

fn compose(device: &mut Device) -> Result<()> {
    for (number, name) in [TAG, "app:1"].into_iter().enumerate() {
        let nothing = device.images()?;
        let artifact = |version: &str| -> Result<String> {
            let image = device.image_of(name, version, Mode::Well).with_volume("/state").archive();
            let text = web(name, "    volumes: ['data:/data']\nvolumes:\n  data: {}\n");
            device.artifact(&one(&format!("{number}-{version}"), name, &image, &text))
        };
        let first = artifact("1")?;
        device.client(&format!("install {first}"), 0)?;
        device.answers(8080, "1")?;
        if number == 0 {
            device.client("rollback", 0)?;
            device.is_clean(&nothing)?;
            device.client(&format!("install {first}"), 0)?;
        }
        device.client("commit", 0)?;
        device.says(8080, "write/state/x", "1")?;
        let old = device.images()?;
        let second = artifact("2")?;
        device.client(&format!("install {second}"), 0)?;
        device.answers(8080, "2")?;
        device.says(8080, "file/state/x", "1")?;
        device.client("rollback", 0)?;
        device.answers(8080, "1")?;
        device.is_clean(&old)?;
        device.client(&format!("install {second}"), 0)?;
        device.client("commit", 0)?;
        device.answers(8080, "2")?;
        ensure!(device.images()?.len() == old.len(), "images are left: {:#?}", device.images()?);
    }
    let journal = device.ok("journalctl --no-pager --unit mender-shop.compose.service")?;
    ensure!(!journal.contains("Failed with result"), "a stop has failed:\n{journal}");
    device.power_cut()?;
    device.power_on()?;
    device.answers(8080, "2").context("after a boot")
}

/// A release of two files with a profile and carried files.
fn carried(device: &Device, version: &str) -> Release {
    let image = device.image(TAG, version, Mode::Well);
    let base = web(TAG, "    env_file: [app.env]\n    volumes: ['./conf:/conf:ro']\n");
    let more = "services:\n  web:\n    environment: {MORE: yes-more}\n  debug:\n    image: localhost/not-here:1\n\
                \x20   profiles: [debug]\n  extra:\n    image: localhost/shop:1\n    profiles: [extra]\n\
                \x20   network_mode: host\n    environment: {PORT: '8081'}\n    stop_signal: SIGKILL\n";
    let files = tar(&[
        ("./compose.yaml", 0o644, base.as_bytes()),
        ("./more.yaml", 0o644, more.as_bytes()),
        ("./app.env", 0o600, format!("GREETING=hello-{version}\n").as_bytes()),
        ("./conf/app.conf", 0o644, format!("conf-{version}").as_bytes()),
    ]);
    let meta_data = json!({
        "archive": "project.tar",
        "compose": ["compose.yaml", "more.yaml"],
        "profiles": ["extra"],
    });
    let mut release = release(version, "shop", &[(TAG, &image)], meta_data);
    release.files.insert(0, ("project.tar".to_owned(), files));
    release
}

fn is_version(device: &Device, version: &str) -> Result<()> {
    device.answers(8080, version)?;
    device.answers(8081, version)?;
    device.says(8080, "env/GREETING", &format!("hello-{version}"))?;
    device.says(8080, "env/MORE", "yes-more")?;
    device.says(8080, "file/conf/app.conf", &format!("conf-{version}"))
}

fn files(device: &mut Device) -> Result<()> {
    let first = device.artifact(&carried(device, "1"))?;
    let second = device.artifact(&carried(device, "2"))?;
    device.client(&format!("install {first}"), 0)?;
    device.client("commit", 0)?;
    is_version(device, "1")?;
    device.client(&format!("install {second}"), 0)?;
    is_version(device, "2")?;
    // What a container could write would go with its version.
    device.says(8080, "write/conf/app.conf", "Read-only file system (os error 30)")?;
    device.client("rollback", 0)?;
    is_version(device, "1")?;
    device.client(&format!("install {second}"), 0)?;
    device.client("commit", 0)?;
    is_version(device, "2")?;
    device.power_cut()?;
    device.power_on()?;
    is_version(device, "2").context("after a boot")
}

fn refused(device: &mut Device) -> Result<()> {
    let image = device.image(TAG, "1", Mode::Well);
    device.load(&device.image("localhost/theirs:1", "theirs", Mode::Well))?;
    device.engine("run --detach --network=host --env PORT=8099 --name theirs localhost/theirs:1")?;
    let nothing = device.images()?;
    for (number, (more, words)) in [
        ("    volumes: ['./data:/data']\n", "archive"),
        ("    volumes:\n      - .:/app\n", "goes with the next version"),
        ("    volumes: [{type: bind, source: data, target: /data}]\n", "archive"),
        ("    volumes: ['${PWD}/d:/d']\n", "variable"),
        ("    volumes: ['~/d:/d']\n", "absolute"),
        ("    env_file: app.env\n", "archive"),
        ("    build: .\n", "build"),
        ("    container_name: theirs\n", "theirs is somebody else's"),
        (
            "    depends_on: [other]\n  other: {image: 'localhost/shop:1', depends_on: [web]}\n",
            "wait for each other",
        ),
        ("  other:\n    image: localhost/unknown:1\n", "neither in the artifact nor on the device"),
        ("  other:\n    image: localhost/shop:1\n    ports: {not: [valid\n", "YAML"),
        ("    secrets: [s]\nsecrets: {s: {file: s.txt}}\n", "archive"),
        (
            "    volumes: ['d:/d']\nvolumes: {d: {driver_opts: {type: none, o: bind, device: ./d}}}\n",
            "archive",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let release = one(&format!("bad-{number}"), TAG, &image, &web(TAG, more));
        device.refuses(&release, &[words]).with_context(|| more.to_owned())?;
        device.is_clean(&nothing).with_context(|| more.to_owned())?;
    }
    device.answers(8099, "theirs")?;
    let good: &[&str] = &[
        "    command: ./x\n    # volumes: ['./data:/data']\n",
        "    pull_policy: always\n    environment: {A: './x'}\nx-note: ./x\n",
    ];
    for (number, more) in good.iter().enumerate() {
        device
            .update(&one(&format!("good-{number}"), TAG, &image, &web(TAG, more)))
            .with_context(|| (*more).to_owned())?;
        device.answers(8080, "1")?;
    }
    // An image of the device's.
    let text = web("localhost/theirs:1", "");
    device.update(&one("here", TAG, &image, &text))?;
    device.answers(8080, "theirs")?;
    let meta_data: Value = json!({"compose": "compose.yaml", "profiles": ["--x"]});
    let mut bad = release("profile", "shop", &[(TAG, &image)], meta_data);
    bad.files.push(("compose.yaml".to_owned(), web(TAG, "").into_bytes()));
    device.refuses(&bad, &["profile"]).map(drop)
}
