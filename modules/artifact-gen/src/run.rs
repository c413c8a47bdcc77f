//! A run of a generator: from its options to the artifact.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use mender_update_module::ArtifactContent;
use serde_json::{Map, Value};

use crate::generator::{Draft, Generator};
use crate::mender_artifact::MenderArtifact;
use crate::options::Options;
use crate::payload_name::is_accepted;
use crate::platform::Devices;
use crate::progress::step;
use crate::summary::{Payload, Summary, bytes};
use crate::work::{Temporary, clean_up_at_the_end};

/// The keys that every module reads from the meta-data.
const COMMON_KEYS: [&str; 2] = ["units", "health"];

/// The health check of an artifact whose meta-data has `keys`, if it has one.
fn health_check<G: Generator>(keys: &Map<String, Value>) -> Option<String> {
    let own = keys.get("health").filter(|health| !health.is_null());
    own.map(Value::to_string).or(G::HEALTH_CHECK.map(str::to_owned))
}

/// Makes the artifact of `generator`, and shows it.
///
/// # Errors
/// What is wrong with the input, or failed. No file is left then, and an earlier artifact of the name is unchanged.
pub fn run<G: Generator>(generator: &G) -> Result<()> {
    clean_up_at_the_end()?;
    let mut options = generator.options().clone();
    options.check(G::MODULE)?;
    let output = options.output();
    check_output(&output)?;
    let tmp = Temporary::directory()?;
    let mender_artifact = MenderArtifact::find(tmp.path())?;
    let draft = generator.draft(tmp.path())?;
    let Draft { content, software_filesystem, .. } = &draft;
    options.software_filesystem = options.software_filesystem.or(software_filesystem.clone());
    check_names(content)?;
    let payload = payload(content)?;
    check_size(&payload, &options)?;
    let scratch = tmp.path().join("check");
    fs::create_dir(&scratch).with_context(|| format!("creating {} failed", scratch.display()))?;
    let checked = step("checking the payload", None, || generator.check(&draft, &scratch))?;
    let devices = Devices::new(&options.device_types, &options.architectures);
    checked.architectures.iter().try_for_each(|item| item.require(&devices))?;
    let mut notes = [draft.notes.clone(), checked.notes].concat();
    if !checked.architectures.is_empty() {
        let unchecked = devices.unchecked().into_iter();
        notes.extend(unchecked.map(|name| {
            format!("architecture not checked: device type {name} is not known: give it with --architecture")
        }));
    }
    notes.extend(payload.iter().filter(|file| file.size == 0).map(|file| {
        format!("payload file {} is empty: client 5.1.0 ends with an error then: put a byte into it", file.name)
    }));
    let keys = keys(content)?;
    notes.extend(
        ignored(&keys, G::META_DATA_KEYS).map(|key| {
            format!("meta-data key {key}: the module ignores it: use units, health, or a key of the module")
        }),
    );
    let meta_data = content.meta_data.as_ref().map(|text| write_meta_data(tmp.path(), text)).transpose()?;
    let artifact = Temporary::beside(&output);
    let command = |to: &Path| mender_artifact.write(G::MODULE, content, meta_data.as_deref(), &options, to);
    let mut summary = Summary {
        artifact: output.clone(),
        size: None,
        name: options.artifact_name.clone(),
        payload_type: G::MODULE,
        device_types: options.device_types.clone(),
        payload,
        facts: [checked.facts, vec![("health check", health_check::<G>(&keys).into_iter().collect())]].concat(),
        meta_data: content.meta_data.clone(),
        command: None,
        header: None,
    };
    if options.dry_run {
        summary.command = Some(command(&output).shown());
    } else {
        let write = || command(artifact.path()).output(tmp.path());
        step(&format!("writing {}", output.display()), Some(artifact.path()), write)
            .with_context(|| format!("writing {} failed", output.display()))?;
        let read = || mender_artifact.header(artifact.path(), tmp.path());
        summary.header = Some(step("reading the artifact", None, read)?);
        summary.size = Some(artifact.path().metadata().context("reading the size of the artifact failed")?.len());
        artifact.persist(&output)?;
    }
    show(&summary, &notes, options.json)
}

/// Writes notes to standard error, and the summary to standard output.
fn show(summary: &Summary, notes: &[String], json: bool) -> Result<()> {
    for note in notes {
        let _ = writeln!(std::io::stderr(), "note: {note}");
    }
    let text = if json { summary.json()? } else { summary.table() };
    // The artifact exists: a reader that has ended is no failure.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(())
}

/// Refuses an output that cannot be written, before anything takes time.
fn check_output(output: &Path) -> Result<()> {
    ensure!(!output.is_dir(), "writing {} failed: it is a directory: name a file", output.display());
    // The artifact is renamed to its path, which would replace a device such as /dev/null, or a link.
    let found = fs::symlink_metadata(output).ok();
    ensure!(
        found.is_none_or(|found| found.is_file()),
        "writing {} failed: it is not a regular file: name another file",
        output.display()
    );
    ensure!(output.file_name().is_some(), "writing {} failed: name a file", output.display());
    let parent = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    ensure!(
        parent.is_dir(),
        "writing {} failed: no directory {}: make it, or name another file",
        output.display(),
        parent.display()
    );
    Ok(())
}

/// Refuses names that mender-artifact refuses.
fn check_names(content: &ArtifactContent) -> Result<()> {
    for file in &content.files {
        let name = file.name.as_ref().to_str();
        ensure!(
            name.is_some_and(is_accepted),
            "invalid name of a payload file: {}: mender-artifact accepts letters, digits and . , _ - only: rename it, or \
             put it into an archive for the module directory",
            file.name
        );
    }
    Ok(())
}

/// The meta-data of `content`.
fn keys(content: &ArtifactContent) -> Result<Map<String, Value>> {
    let text = content.meta_data.as_deref().unwrap_or("{}");
    serde_json::from_str(text).context("invalid meta-data: use a JSON object")
}

/// Those of `keys` that a module with the keys `own` does not read.
fn ignored<'a>(keys: &'a Map<String, Value>, own: &[&str]) -> impl Iterator<Item = &'a String> {
    keys.keys().filter(move |key| !COMMON_KEYS.iter().chain(own).any(|known| known == key))
}

fn payload(content: &ArtifactContent) -> Result<Vec<Payload>> {
    let read = |file: &mender_update_module::PayloadFile| {
        let found = fs::metadata(&file.path).with_context(|| format!("reading {} failed", file.path.display()))?;
        Ok(Payload { name: file.name.as_ref().to_string_lossy().into_owned(), size: found.len() })
    };
    content.files.iter().map(read).collect()
}

fn check_size(payload: &[Payload], options: &Options) -> Result<()> {
    let size = payload.iter().fold(0_u64, |sum, file| sum.saturating_add(file.size));
    if let Some(limit) = options.max_size {
        ensure!(
            size <= limit.0,
            "payload too large: {} ({size} bytes), and --max-size allows {}: make it smaller, or raise the limit",
            bytes(size),
            bytes(limit.0)
        );
    }
    Ok(())
}

fn write_meta_data(directory: &Path, text: &str) -> Result<std::path::PathBuf> {
    let path = directory.join("meta-data");
    fs::write(&path, text).with_context(|| format!("writing {} failed", path.display()))?;
    Ok(path)
}
