//! Scenarios of the form `compose`, with both providers.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use test_image::{Archive, Mode, tar};

use super::updates::returns_with_docker;
use crate::device::{Device, SETTINGS, STATE};
use crate::release::{Release, release};
use crate::{Scenario, Setup};

/// Every provider with every engine.
const PROVIDERS: &[Setup] = &[Setup::Podman, Setup::PodmanDockerCompose, Setup::Docker, Setup::DockerContainerd];

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "compose",
        summary: "a compose file is installed, rolled back and committed, and returns after boots; also with short names",
        on: PROVIDERS,
        run: compose,
    },
    Scenario {
        name: "compose-files",
        summary: "several compose files with profiles, and other files in an archive, change with the version",
        on: PROVIDERS,
        run: files,
    },
    Scenario {
        name: "compose-unhealthy",
        summary: "a compose project of which a container fails is rolled back, and one whose container succeeds is not",
        on: PROVIDERS,
        run: unhealthy,
    },
    Scenario {
        name: "compose-refused",
        summary: "compose files that cannot be run or rolled back, and the name of a user's project, are refused",
        on: PROVIDERS,
        run: refused,
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

/// Lets the device lose power in the first install of `artifact`, which leaves a container.
fn interrupt_first_install(device: &mut Device, artifact: &str) -> Result<()> {
    device.ok(&format!("sed -i 's/^stable_seconds.*/stable_seconds = 60/' {SETTINGS}"))?;
    let list = format!("{} ps --all --quiet", device.setup.engine());
    let begun = format!("grep -q Switching {STATE}/journal.json && {list} | grep -q .");
    let mut client = device.client_until(&format!("install {artifact}"), &begun)?;
    device.lose_power()?;
    client.wait()?;
    device.power_on()?;
    device.ok(&format!("{list} | grep .")).context("no container is left")?;
    device.ok(&format!("sed -i 's/^stable_seconds.*/stable_seconds = 1/' {SETTINGS}")).map(drop)
}

fn compose(device: &mut Device) -> Result<()> {
    for (number, name) in [TAG, "app:1"].into_iter().enumerate() {
        let before = device.images()?;
        let artifact = |version: &str| -> Result<String> {
            let image = device.image_of(name, version, Mode::Healthy).with_volume("/state").archive();
            let text = web(name, "    volumes: ['data:/data']\nvolumes:\n  data: {}\n");
            device.artifact(&one(&format!("{number}-{version}"), name, &image, &text))
        };
        let (first, second) = (artifact("1")?, artifact("2")?);
        if number == 0 {
            interrupt_first_install(device, &first)?;
        }
        device.client(&format!("install {first}"), 0)?;
        device.answers(8080, "1")?;
        if number == 0 {
            device.client("rollback", 0)?;
            device.is_clean(&before)?;
            device.client(&format!("install {first}"), 0)?;
        }
        device.client("commit", 0)?;
        device.serves(8080, "write/state/x", "1")?;
        let previous = device.images()?;
        device.client(&format!("install {second}"), 0)?;
        device.answers(8080, "2")?;
        device.serves(8080, "file/state/x", "1")?;
        device.client("rollback", 0)?;
        device.answers(8080, "1")?;
        device.is_clean(&previous)?;
        device.client(&format!("install {second}"), 0)?;
        device.client("commit", 0)?;
        device.answers(8080, "2")?;
        ensure!(device.images()?.len() == previous.len(), "images are left: {:#?}", device.images()?);
    }
    let journal = device.ok("journalctl --no-pager --unit mender-shop.compose.service")?;
    ensure!(!journal.contains("Failed with result"), "a stop failed:\n{journal}");
    device.lose_power()?;
    device.power_on()?;
    device.answers(8080, "2").context("after a boot")?;
    returns_with_docker(device, "mender-shop.compose.service", 8080, "2")
}

/// A release of two compose files with a profile and other files.
fn with_files(device: &Device, version: &str) -> Release {
    let image = device.image(TAG, version, Mode::Healthy);
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
    device.serves(8080, "env/GREETING", &format!("hello-{version}"))?;
    device.serves(8080, "env/MORE", "yes-more")?;
    device.serves(8080, "file/conf/app.conf", &format!("conf-{version}"))
}

fn files(device: &mut Device) -> Result<()> {
    let first = device.artifact(&with_files(device, "1"))?;
    let second = device.artifact(&with_files(device, "2"))?;
    device.client(&format!("install {first}"), 0)?;
    device.client("commit", 0)?;
    is_version(device, "1")?;
    device.client(&format!("install {second}"), 0)?;
    is_version(device, "2")?;
    // A file that a container could write would be lost with its version.
    device.serves(8080, "write/conf/app.conf", "Read-only file system (os error 30)")?;
    device.client("rollback", 0)?;
    is_version(device, "1")?;
    device.client(&format!("install {second}"), 0)?;
    device.client("commit", 0)?;
    is_version(device, "2")?;
    device.lose_power()?;
    device.power_on()?;
    is_version(device, "2").context("after a boot")
}

/// A release of two services. The second is in the mode `mode`, and is not restarted.
fn with_second(device: &Device, version: &str, mode: Mode) -> Release {
    let (web_image, job) = (device.image(TAG, version, Mode::Healthy), device.image("localhost/job:1", version, mode));
    let images = [(TAG, &web_image), ("localhost/job:1", &job)];
    let mut release = release(version, "shop", &images, json!({"compose": "compose.yaml"}));
    let text = web(TAG, "  job:\n    image: localhost/job:1\n    network_mode: host\n");
    release.files.push(("compose.yaml".to_owned(), text.into_bytes()));
    release
}

fn unhealthy(device: &mut Device) -> Result<()> {
    device.update(&with_second(device, "1", Mode::Once))?;
    device.answers(8080, "1")?;
    let previous = device.images()?;
    let second = with_second(device, "2", Mode::Exit);
    device.unhealthy(|device| device.refuses(&second, &["status exited", "this version is broken"]))?;
    device.answers(8080, "1")?;
    device.is_clean(&previous)
}

/// Starts a compose project shop without the module. An update must neither stop nor remove its containers.
fn refused_for_a_users_project(device: &Device, release: &Release) -> Result<()> {
    let before = device.images()?;
    let text = "services:\n  mine:\n    image: localhost/unrelated:1\n    network_mode: host\n\
                \x20   environment: {PORT: '8098'}\n    stop_signal: SIGKILL\n";
    device.write("/root/mine/compose.yaml", text.as_bytes())?;
    let compose = |command: &str| {
        device.ok(&format!("cd /root/mine && {} compose --project-name shop {command}", device.setup.engine()))
    };
    compose("up --detach")?;
    device.answers(8098, "unrelated")?;
    device.refuses(release, &["compose project name in use: shop"])?;
    device.answers(8098, "unrelated")?;
    device.is_clean(&before)?;
    compose("down").map(drop)
}

fn refused(device: &mut Device) -> Result<()> {
    let image = device.image(TAG, "1", Mode::Healthy);
    device.load(&device.image("localhost/unrelated:1", "unrelated", Mode::Healthy))?;
    refused_for_a_users_project(device, &one("users", TAG, &image, &web(TAG, "")))?;
    device.engine("run --detach --network=host --env PORT=8099 --name unrelated localhost/unrelated:1")?;
    let before = device.images()?;
    for (number, (more, expected)) in [
        ("    volumes: ['./data:/data']\n", "archive"),
        ("    volumes:\n      - .:/app\n", "lost with the next version"),
        ("    volumes: [{type: bind, source: data, target: /data}]\n", "archive"),
        ("    volumes: ['${PWD}/d:/d']\n", "variable"),
        ("    volumes: ['~/d:/d']\n", "absolute"),
        ("    env_file: app.env\n", "archive"),
        ("    build: .\n", "build"),
        ("    container_name: unrelated\n", "container name in use: unrelated"),
        ("    depends_on: [other]\n  other: {image: 'localhost/shop:1', depends_on: [web]}\n", "circular dependency"),
        ("  other:\n    image: localhost/unknown:1\n", "neither in the artifact nor on the device"),
        ("  other:\n    image: localhost/shop:1\n    ports: {not: [valid\n", "YAML"),
        ("    secrets: [s]\nsecrets: {s: {file: s.txt}}\n", "archive"),
        ("    volumes: ['d:/d']\nvolumes: {d: {driver_opts: {type: none, o: bind, device: ./d}}}\n", "archive"),
    ]
    .into_iter()
    .enumerate()
    {
        let release = one(&format!("bad-{number}"), TAG, &image, &web(TAG, more));
        device.refuses(&release, &[expected]).with_context(|| more.to_owned())?;
        device.is_clean(&before).with_context(|| more.to_owned())?;
    }
    device.answers(8099, "unrelated")?;
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
    // An image on the device.
    let text = web("localhost/unrelated:1", "");
    device.update(&one("here", TAG, &image, &text))?;
    device.answers(8080, "unrelated")?;
    let meta_data: Value = json!({"compose": "compose.yaml", "profiles": ["--x"]});
    let mut bad = release("profile", "shop", &[(TAG, &image)], meta_data);
    bad.files.push(("compose.yaml".to_owned(), web(TAG, "").into_bytes()));
    device.refuses(&bad, &["profile"]).map(drop)
}
