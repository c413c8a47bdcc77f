//! `fake-podman STATE COMMAND...`: the mock of podman, see the library.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use fake_engine::{State, run_mock};
use mender_update_module::FileName;
use mender_update_module::durable::Dir;
use serde_json::{Value, json};
use test_image::digest;

/// The filter for containers of a project, before its name.
const PROJECT_FILTER: &str = "--filter=label=io.mender.update-module.project=";

fn main() -> ExitCode {
    run_mock("fake-podman", 125, answer)
}

fn answer(words: &[&str]) -> Result<String> {
    let [directory, command @ ..] = words else { bail!("usage: fake-podman STATE COMMAND...") };
    let (state, _lock) = State::open(directory)?;
    match command {
        ["info", "--format", format] => {
            let tmp_dir = tmp_dir(&state);
            let known = [("{{.Store.GraphRoot}}", *directory), ("{{.Store.ImageCopyTmpDir}}", &tmp_dir)];
            let output = known.iter().fold((*format).to_owned(), |text, (field, value)| text.replace(field, value));
            Ok(output + "\n")
        }
        ["images", ..] => images(&state),
        ["load", ..] => load(&state),
        ["tag", id, reference] => state.tag(id, reference).map(|()| String::new()),
        ["untag", _id, reference] => state.untag(reference).map(|()| String::new()),
        ["rmi", "--no-prune", name] => state.remove(name).map(|()| String::new()),
        ["ps", "--all", "--external", "--filter", filter, "--format", "{{.Names}}"] => {
            let id = filter.strip_prefix("ancestor=").context("unsupported filter: only ancestor= is supported")?;
            let running = state.running()?;
            Ok(running.iter().filter(|(_, of)| of == id).map(|(name, _)| format!("{name}\n")).collect())
        }
        ["ps", "--all", filter @ .., "--format", "{{.Names}}"] => {
            // The only label of the mock's containers is the project, the prefix of their names.
            let is_one = |name: &str| {
                let label = filter.first().map(|filter| filter.strip_prefix(PROJECT_FILTER));
                label.is_none_or(|project| project.is_some_and(|project| name.starts_with(&format!("{project}."))))
            };
            let running = state.running()?;
            Ok(running.iter().filter(|(name, _)| is_one(name)).map(|(name, _)| format!("{name}\n")).collect())
        }
        ["container", "inspect", name] => {
            let running = state.running()?;
            let (_, id) = running.iter().find(|(running, _)| running == name).context("no such container")?;
            // As podman does: the status is empty without a health check.
            let health = if state.mode(id)? == "unhealthy" { "unhealthy" } else { "" };
            let health = json!({"Status": health, "FailingStreak": 0, "Log": null});
            let status = json!({"Status": "running", "ExitCode": 0, "Health": health});
            Ok(json!([{"Id": format!("{name}-{id}"), "RestartCount": 0, "State": status}]).to_string())
        }
        ["image", "inspect", id] => {
            state.mode(id)?;
            Ok(json!([{"Id": id, "Config": {"Entrypoint": ["/tiny-http"]}}]).to_string())
        }
        ["logs", .., name] => Ok(format!("the mock container {name} has no log\n")),
        _ => bail!("unsupported command: {command:?}"),
    }
}

/// The list of images, as podman prints it: an image with several tags several times, one without tags as `<none>`.
fn images(state: &State) -> Result<String> {
    let tags = state.tags()?;
    let mut text = String::new();
    for (id, _) in state.images()? {
        let mut tagged: Vec<_> = tags.iter().filter(|(_, of)| *of == id).map(|(tag, _)| tag.as_str()).collect();
        if tagged.is_empty() {
            tagged.push("<none>:<none>");
        }
        tagged.iter().for_each(|tag| text += &format!("sha256:{id} {tag}\n"));
    }
    Ok(text)
}

/// The directory for temporary files: `TMPDIR`, else beside the state.
fn tmp_dir(state: &State) -> String {
    let beside = state.directory().parent().unwrap_or(state.directory());
    std::env::var("TMPDIR").unwrap_or_else(|_| beside.to_string_lossy().into_owned())
}

/// Loads an archive from a temporary copy, as podman does. The copy is left if this process is killed.
///
/// It is written at once: a copy in the pieces that the pipe delivers makes other calls each time, and fault injection
/// repeats calls by their number.
fn load(state: &State) -> Result<String> {
    let tmp_dir = PathBuf::from(tmp_dir(state));
    let (directory, name) = (Dir::open(&tmp_dir)?, FileName::new(format!("podman{}", std::process::id()))?);
    let mut copy = directory.create_file(&name)?;
    let mut archive = Vec::new();
    let read = io::stdin().lock().read_to_end(&mut archive);
    let copied = read.and_then(|_| copy.write_all(&archive)).context("copying the archive failed");
    let output = copied.and_then(|()| add_images(state, File::open(tmp_dir.join(&name))?));
    directory.remove(&name)?;
    output
}

/// Adds the images of an archive as `docker save` writes it.
fn add_images(state: &State, archive: File) -> Result<String> {
    let mut texts = Vec::new();
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries()? {
        let mut entry = entry.context("damaged archive")?;
        let name = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).context("damaged archive")?;
        texts.push((name, content));
    }
    let text = |name: &str| {
        let found = texts.iter().find(|(found, _)| found == name);
        found.map(|(_, content)| content).with_context(|| format!("damaged archive: no file {name}"))
    };
    let manifest: Value = serde_json::from_slice(text("manifest.json")?)?;
    let mut output = String::new();
    for image in manifest.as_array().context("damaged archive: the manifest is not a list")? {
        let config = text(image["Config"].as_str().context("damaged archive: the manifest names no config")?)?;
        let id = digest(config);
        let parsed: Value = serde_json::from_slice(config)?;
        let variables = parsed["config"]["Env"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let mode = variables.filter_map(|variable| variable.strip_prefix("MODE=")).next_back().unwrap_or("healthy");
        state.add_image(&id, mode)?;
        for tag in image["RepoTags"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            state.tag(&id, tag)?;
            output += &format!("Loaded image: {tag}\n");
        }
    }
    Ok(output)
}
