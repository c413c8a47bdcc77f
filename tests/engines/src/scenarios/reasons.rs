//! Scenarios of updates that cannot work: refused in Download, or rolled back with the cause in the log.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use test_image::{Image, Mode};

use super::ENGINES;
use super::updates::{plain, service};
use crate::Scenario;
use crate::device::{Device, SETTINGS};
use crate::release::release;

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "reasons",
        summary: "the log has the cause if a port is in use, or a program or secret is missing",
        on: ENGINES,
        run: reasons,
    },
    Scenario {
        name: "refused",
        summary: "what cannot be run or rolled back is refused in Download, and changes nothing",
        on: ENGINES,
        run: refused,
    },
    Scenario {
        name: "reserve",
        summary: "an image whose size nobody announces is refused where it would use the space that stays free",
        on: ENGINES,
        run: reserve,
    },
];

const TAG: &str = "localhost/shop:1";

fn reasons(device: &mut Device) -> Result<()> {
    device.update(&plain("1", "shop", TAG, &device.image(TAG, "1", Mode::Healthy), 8080))?;
    let previous = device.images()?;
    let image = device.image(TAG, "2", Mode::Healthy);
    device.ok("systemd-run --quiet busybox nc -ll -p 8090 -e true")?;
    device.wait("busybox netstat -tln | grep -q :8090")?;
    let mut taken = service(TAG, 8090);
    let mut published = json!({"image": TAG, "ports": ["8090:8080"]});
    let mut missing = json!({"image": TAG, "options": ["--entrypoint=/no/such/program"]});
    let mut cases = vec![
        ("taken", &mut taken, "Address in use|address already in use|Address already in use|port is already allocated"),
        ("published", &mut published, "address already in use|port is already allocated"),
        ("missing", &mut missing, "no such file or directory|No such file or directory|not found"),
    ];
    let mut secret = json!({"image": TAG, "options": ["--secret=no-such-secret"]});
    if device.setup.is_podman() {
        cases.push(("secret", &mut secret, "no-such-secret"));
    }
    for (name, run, causes) in cases {
        let artifact = device.artifact(&release(name, "shop", &[(TAG, &image)], json!({"run": {"web": run}})))?;
        let log = device.unhealthy(|device| device.client(&format!("install {artifact}"), 1))?;
        ensure!(causes.split('|').any(|cause| log.contains(cause)), "{name}: the log has no cause:\n{log}");
        device.answers(8080, "1")?;
        device.is_clean(&previous)?;
    }
    Ok(())
}

fn reserve(device: &mut Device) -> Result<()> {
    let before = device.images()?;
    let small = device.image_of(TAG, "1", Mode::Healthy);
    // A program may have any bytes behind its sections.
    let executable = [small.executable, &[0; 30 << 20]].concat();
    let image = Image { executable: &executable, ..small }.archive();
    let artifact = device.artifact(&plain("1", "shop", TAG, &image, 8080))?;
    let settings = device.ok(&format!("cat {SETTINGS}"))?;
    // The engines' storage is on this file system, and podman's temporary files are for this test.
    device.ok("mkdir --mode=700 /data/tmp")?;
    let free = device.ok("df --output=avail --block-size=1M /data | tail -n 1")?;
    let free: u64 = free.trim().parse().context("unexpected output of df")?;
    let reserve = format!("{settings}reserve_mib = {}\ntmp_dir = \"/data/tmp\"\n", free.saturating_sub(20));
    device.write(SETTINGS, reserve.as_bytes())?;
    let log = device.client(&format!("install {artifact}"), 1)?;
    let storage = ["containers/storage", "docker", "containerd"].map(|name| format!("in /var/lib/{name}: "));
    let is_named = storage.iter().any(|storage| log.contains(&format!("not enough space {storage}")));
    // The reserve alone fits: the size of the image was looked at.
    ensure!(is_named && !log.contains(": 0 bytes needed"), "the log has no cause:\n{log}");
    device.is_clean(&before)?;
    device.write(SETTINGS, settings.as_bytes())?;
    device.client(&format!("install {artifact}"), 0)?;
    device.answers(8080, "1")
}

fn refused(device: &mut Device) -> Result<()> {
    device.update(&plain("1", "shop", TAG, &device.image(TAG, "1", Mode::Healthy), 8080))?;
    device.load(&device.image("localhost/unrelated:1", "unrelated", Mode::Healthy))?;
    device.engine("run --detach --network=host --env PORT=8099 --name museum.web localhost/unrelated:1")?;
    let previous = device.images()?;
    let image = device.image(TAG, "2", Mode::Healthy);
    let other = device.image("localhost/other:1", "3", Mode::Healthy);
    let web = || service(TAG, 8080);
    let with = |key: &str, value: Value| {
        let mut web = web();
        web[key] = value;
        json!({"run": {"web": web}})
    };
    for (name, project, meta_data, expected) in [
        ("unrelated", "museum", json!({"run": {"web": web()}}), "container name in use: museum.web"),
        (
            "cycle",
            "shop",
            json!({"run": {"a": {"image": TAG, "after": ["b"]}, "b": {"image": TAG, "after": ["a"]}}}),
            "circular dependency",
        ),
        ("unknown", "shop", with("image", json!("localhost/unknown:1")), "neither in the artifact nor on the device"),
        ("relative", "shop", with("volumes", json!(["./data:/data"])), "named volume"),
        ("option", "shop", with("options", json!(["--volume=./data:/data"])), "named volume"),
        (
            "two-ids",
            "shop",
            json!({
                "run": {"web": web()},
                "images": [{"file": "image-0.tar", "id": image.id, "ref": TAG}, {"id": other.id, "ref": TAG}],
            }),
            "two IDs",
        ),
    ] {
        let release = release(name, project, &[(TAG, &image)], meta_data);
        device.refuses(&release, &[expected]).with_context(|| name.to_owned())?;
        device.answers(8080, "1")?;
        device.answers(8099, "unrelated")?;
        device.is_clean(&previous).with_context(|| name.to_owned())?;
    }
    // A file that the meta-data do not name, before the image, which is not read then.
    let mut unexpected = plain("unexpected", "shop", TAG, &image, 8080);
    unexpected.files.insert(0, ("notes.txt".to_owned(), vec![b'x'; 300_000]));
    device.refuses(&unexpected, &["notes.txt"])?;
    device.is_clean(&previous)?;
    // An image on the device is optional in the artifact.
    let here = json!({"run": {"web": service("localhost/unrelated:1", 8080)}});
    device.update(&release("here", "shop", &[(TAG, &image)], here))?;
    device.answers(8080, "unrelated")?;
    // This module did not load it, and keeps it when the project no longer needs it. The same is true for an image
    // that the artifact names without a file.
    device.update(&plain("2", "shop", TAG, &image, 8080))?;
    ensure!(device.images()?.iter().any(|image| image.ends_with("localhost/unrelated:1")), "{:#?}", device.images()?);
    device.load(&device.image("localhost/more:1", "more", Mode::Healthy))?;
    let more = device.images()?;
    let more = more.iter().find(|image| image.ends_with("localhost/more:1")).context("the image is not loaded")?;
    let id = more.split(' ').next().unwrap_or_default();
    let named = json!({
        "run": {"web": service("localhost/more:1", 8080)},
        "images": [{"id": id, "ref": "localhost/more:1"}],
    });
    device.update(&release("named", "shop", &[], named))?;
    device.answers(8080, "more")?;
    device.update(&plain("3", "shop", TAG, &image, 8080))?;
    ensure!(device.images()?.iter().any(|image| image.ends_with("localhost/more:1")), "{:#?}", device.images()?);
    Ok(())
}
