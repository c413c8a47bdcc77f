//! Updates that cannot work: refused in Download with nothing changed, or rolled back with the reason in the log.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use test_image::Mode;

use super::ENGINES;
use super::updates::{plain, service};
use crate::Scenario;
use crate::device::Device;
use crate::release::release;

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "reasons",
        says: "the log has the reason for a port that is taken, a program that is missing, and a secret that is missing",
        on: ENGINES,
        play: reasons,
    },
    Scenario {
        name: "refused",
        says: "what cannot be run or rolled back is refused in Download, and changes nothing",
        on: ENGINES,
        play: refused,
    },
];

const TAG: &str = "localhost/shop:1";

fn reasons(device: &mut Device) -> Result<()> {
    device.update(&plain("1", "shop", TAG, &device.image(TAG, "1", Mode::Well), 8080))?;
    let old = device.images()?;
    let image = device.image(TAG, "2", Mode::Well);
    device.ok("systemd-run --quiet busybox nc -ll -p 8090 -e true")?;
    device.wait("busybox netstat -tln | grep -q :8090")?;
    let mut taken = service(TAG, 8090);
    let mut published = json!({"image": TAG, "ports": ["8090:8080"]});
    let mut missing = json!({"image": TAG, "options": ["--entrypoint=/no/such/program"]});
    let mut cases = vec![
        (
            "taken",
            &mut taken,
            "Address in use|address already in use|Address already in use|port is already allocated",
        ),
        ("published", &mut published, "address already in use|port is already allocated"),
        ("missing", &mut missing, "no such file or directory|No such file or directory|not found"),
    ];
    let mut secret = json!({"image": TAG, "options": ["--secret=no-such-secret"]});
    if device.setup.is_podman() {
        cases.push(("secret", &mut secret, "no-such-secret"));
    }
    for (name, run, words) in cases {
        let artifact =
            device.artifact(&release(name, "shop", &[(TAG, &image)], json!({"run": {"web": run}})))?;
        let said = device.client(&format!("install {artifact}"), 1)?;
        ensure!(words.split('|').any(|word| said.contains(word)), "{name}: the log has no reason:\n{said}");
        device.answers(8080, "1")?;
        device.is_clean(&old)?;
    }
    Ok(())
}

fn refused(device: &mut Device) -> Result<()> {
    device.update(&plain("1", "shop", TAG, &device.image(TAG, "1", Mode::Well), 8080))?;
    device.load(&device.image("localhost/theirs:1", "theirs", Mode::Well))?;
    device.engine("run --detach --network=host --env PORT=8099 --name museum.web localhost/theirs:1")?;
    let old = device.images()?;
    let image = device.image(TAG, "2", Mode::Well);
    let other = device.image("localhost/other:1", "3", Mode::Well);
    let web = || service(TAG, 8080);
    let with = |key: &str, value: Value| {
        let mut web = web();
        web[key] = value;
        json!({"run": {"web": web}})
    };
    for (name, project, meta_data, words) in [
        ("theirs", "museum", json!({"run": {"web": web()}}), "museum.web is somebody else's"),
        (
            "cycle",
            "shop",
            json!({"run": {"a": {"image": TAG, "after": ["b"]}, "b": {"image": TAG, "after": ["a"]}}}),
            "wait for each other",
        ),
        (
            "unknown",
            "shop",
            with("image", json!("localhost/unknown:1")),
            "neither in the artifact nor on the device",
        ),
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
        device.refuses(&release, &[words]).with_context(|| name.to_owned())?;
        device.answers(8080, "1")?;
        device.answers(8099, "theirs")?;
        device.is_clean(&old).with_context(|| name.to_owned())?;
    }
    // A file that nobody has named comes before the image, which nobody reads then.
    let mut stranger = plain("stranger", "shop", TAG, &image, 8080);
    stranger.files.insert(0, ("notes.txt".to_owned(), vec![b'x'; 300_000]));
    device.refuses(&stranger, &["notes.txt"])?;
    device.is_clean(&old)?;
    // An image that the device has needs not be in the artifact.
    let here = json!({"run": {"web": service("localhost/theirs:1", 8080)}});
    device.update(&release("here", "shop", &[(TAG, &image)], here))?;
    device.answers(8080, "theirs")?;
    // It is somebody else's, and stays when the project needs it no more; so does one that the artifact names without a file.
    device.update(&plain("2", "shop", TAG, &image, 8080))?;
    ensure!(
        device.images()?.iter().any(|image| image.ends_with("localhost/theirs:1")),
        "{:#?}",
        device.images()?
    );
    device.load(&device.image("localhost/more:1", "more", Mode::Well))?;
    let more = device.images()?;
    let more = more.iter().find(|image| image.ends_with("localhost/more:1")).context("it is not loaded")?;
    let id = more.split(' ').next().unwrap_or_default();
    let named = json!({
        "run": {"web": service("localhost/more:1", 8080)},
        "images": [{"id": id, "ref": "localhost/more:1"}],
    });
    device.update(&release("named", "shop", &[], named))?;
    device.answers(8080, "more")?;
    device.update(&plain("3", "shop", TAG, &image, 8080))?;
    ensure!(
        device.images()?.iter().any(|image| image.ends_with("localhost/more:1")),
        "{:#?}",
        device.images()?
    );
    Ok(())
}
