//! The form for compose: one unit that runs the provider for the whole project.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use update_module::{FileName, Program};

use crate::definition::{Around, Defined};
use crate::project::{Containers, File, Service};
use crate::unit::command_line;

/// The longest that the provider may take to say its version.
const LIMIT: Duration = Duration::from_secs(120);

/// The label that docker-compose and podman-compose give every container.
const LABEL: &str = "com.docker.compose.project";

/// Makes the unit for the compose file `file`, which will be in `folder`.
///
/// References in a compose file cannot be changed without understanding all of it. So the unit makes every one of them
/// mean the artifact's image right before the provider looks at them: each start is of the IDs, whatever the tags have
/// come to mean since.
///
/// # Errors
/// When there is no provider.
pub fn define(file: File, around: &Around, folder: &Path) -> Result<Defined> {
    let Around { project, engine, images } = around;
    refuse_relative(&file)?;
    let words = engine.words();
    Program::new(&words[0], LIMIT).args(&words[1..]).args(["compose", "version"]).run().context(
        "the artifact has a compose file, and the engine no provider for it: install docker-compose or podman-compose \
         (podman knows them from 4.7 on), or write the project as run or quadlet",
    )?;
    let on = |more: &[&str]| {
        command_line(&words.iter().map(String::as_str).chain(more.iter().copied()).collect::<Vec<_>>())
    };
    let path = folder.join(&file.0);
    let path = path.to_str().context("the path of the compose file is not UTF-8")?;
    let name = project.to_string();
    let compose = ["compose", "--project-name", &name, "--file", path];
    let mut text = format!(
        "[Unit]\nDescription=The project {project}\nAfter=network.target\n{}StartLimitIntervalSec=0\n\n\
         [Service]\nType=exec\nRestart=always\nRestartSec=2\nTimeoutStartSec=300\nTimeoutStopSec=120\n",
        engine.needs()?
    );
    for image in *images {
        text += &format!("ExecStartPre={}\n", on(&["tag", &image.id.to_string(), image.reference.as_ref()])?);
    }
    // What a loss of power has left of another version must not be taken for this one's.
    text += &format!("ExecStartPre=-{}\n", on(&[&compose[..], &["down", "--remove-orphans"]].concat())?);
    text +=
        &format!("ExecStart={}\n", on(&[&compose[..], &["up", "--no-build", "--force-recreate"]].concat())?);
    // Twice: before systemd sends SIGTERM, which podman would hand on to containers that have a stop signal of their own; and
    // after it, for what a provider that was still starting them has left. Without --volumes: data stay.
    let down = on(&[&compose[..], &["down"]].concat())?;
    text += &format!("ExecStop=-{down}\nExecStopPost=-{down}\n");
    // No service has a dot in its name, and neither has a unit of the Mender client.
    let unit = format!("mender-{project}.compose.service");
    Ok(Defined {
        services: vec![Service {
            unit: unit.clone(),
            containers: Containers::Labelled(format!("{LABEL}={project}")),
            oneshot: false,
        }],
        units: vec![(FileName::new(unit)?, text)],
        files: vec![file],
    })
}

/// Refuses paths that are relative to the compose file: the folder that it is in changes with every version, and what was
/// written there would go with the old one.
fn refuse_relative((name, text): &File) -> Result<()> {
    for line in text.lines() {
        let value = line.trim_start_matches(|c: char| c == '-' || c.is_whitespace());
        let value =
            value.rsplit_once(": ").map_or(value, |(_, value)| value).trim_start_matches(['"', '\'', ' ']);
        ensure!(
            !(value.starts_with("./") || value.starts_with("../") || value == "."),
            "{name}: {:?} is a path beside the compose file, which goes with the next version: name an absolute one or a volume",
            line.trim()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_provider_stops_containers_by_their_own_signals_before_systemd_sends_any() {
        // Whatever it is asked, this engine has done.
        let engine = r#"{"command": "true", "kind": "Podman", "storage": "/storage", "load_seconds": 1}"#;
        let (engine, project) =
            (serde_json::from_str(engine).unwrap(), "shop".to_owned().try_into().unwrap());
        let around = Around { project: &project, engine: &engine, images: &[] };
        let file = (FileName::new("compose.yml").unwrap(), String::new());
        let defined = define(file, &around, Path::new("/projects/shop")).unwrap();
        let (_, unit) = &defined.units[0];
        let down = "-true compose --project-name shop --file /projects/shop/compose.yml down\n";
        assert!(unit.contains(&format!("ExecStop={down}ExecStopPost={down}")), "{unit}");
        assert!(unit.contains("TimeoutStartSec=300\n"), "a slow card: {unit}");
    }

    #[test]
    fn paths_beside_the_compose_file_are_refused() {
        let check = |text: &str| refuse_relative(&(FileName::new("compose.yml").unwrap(), text.to_owned()));
        for bad in [
            "    - ./data:/data",
            "    - \"../x:/y\"",
            "      source: ./data",
            "    env_file: ./env",
            "    build: .",
        ] {
            assert!(check(bad).is_err(), "{bad:?} was taken");
        }
        for good in [
            "    - data:/data",
            "    - /srv/data:/data",
            "    image: localhost/a:1.0",
            "    ports: [\"80:80\"]",
            "",
        ] {
            assert!(check(good).is_ok(), "{good:?} was refused");
        }
    }
}
