//! Checks of compose files: a relative path is lost with its version, unless it is read-only and in the artifact.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::values::{names, paths, table, text};
use crate::artifact_files::ArtifactFiles;
use crate::mount::{self, Short, Source};

/// Checks everything in `file` other than its services.
///
/// # Errors
/// What cannot be rolled back, and the remedy.
pub fn file(file: &Value, files: &ArtifactFiles) -> Result<()> {
    ensure!(file.get("include").is_none(), "include is not supported: name all files in the meta-data, as compose");
    for (name, volume) in table(&file["volumes"]) {
        let options = &volume["driver_opts"];
        let binds = text(&options["o"]).split(',').any(|option| matches!(option, "bind" | "rbind"));
        let device = text(&options["device"]);
        let volume = || format!("volume {name:?}");
        if binds || device.starts_with(['.', '~', '$']) {
            let source = mount::source(&device, false, files).with_context(volume)?;
            ensure!(matches!(source, Source::Host(_)), "{}: device {device:?}: write an absolute path", volume());
        }
    }
    for key in ["configs", "secrets"] {
        for (name, described) in table(&file[key]) {
            if let Some(path) = described.get("file") {
                readable(&text(path), files).with_context(|| format!("{key}: {name:?}"))?;
            }
        }
    }
    Ok(())
}

/// Checks one service of a file.
///
/// # Errors
/// As [`file()`].
pub fn service(service: &Value, files: &ArtifactFiles) -> Result<()> {
    ensure!(
        service.get("build").is_none(),
        "build is not supported: add the built image to the artifact, and name it as image"
    );
    ensure!(
        service["extends"].get("file").is_none(),
        "extends with file is not supported: name all files in the meta-data, as compose, and remove file"
    );
    for mount in service["volumes"].as_array().into_iter().flatten() {
        self::mount(mount, files)?;
    }
    for key in ["env_file", "label_file"] {
        for path in paths(&service[key]) {
            readable(&path, files).context(key)?;
        }
    }
    if let Some(file) = service["credential_spec"].get("file") {
        readable(&text(file), files).context("credential_spec")?;
    }
    for option in names(&service["security_opt"]) {
        let profile = option.strip_prefix("seccomp").and_then(|rest| rest.strip_prefix([':', '=']));
        if let Some(profile) = profile.filter(|profile| !matches!(*profile, "unconfined" | "builtin")) {
            ensure!(profile.starts_with('/'), "security_opt {option:?}: relative path: write an absolute path");
        }
    }
    let name = text(&service["container_name"]);
    ensure!(!name.contains('$'), "container_name {name:?}: it has a variable: write the name without one");
    Ok(())
}

/// Checks a mount in either form.
fn mount(mount: &Value, files: &ArtifactFiles) -> Result<()> {
    let (source, read_only) = match mount {
        Value::String(short) => {
            let short = Short::parse(short)?;
            (mount::source(short.source, short.is_read_only(), files)?, short.is_read_only())
        }
        Value::Object(long) => {
            let read_only = long.get("read_only") == Some(&Value::Bool(true));
            let from = text(mount.get("source").or_else(|| mount.get("src")).unwrap_or(&Value::Null));
            let mount_type = text(&mount["type"]);
            mount::refuse_image(&mount_type)?;
            match mount_type.as_str() {
                "tmpfs" | "npipe" | "cluster" => return Ok(()),
                // In the long form, a relative path need not begin with a dot.
                "bind" if !from.starts_with(['/', '.', '~', '$']) => {
                    ensure!(!from.is_empty(), "bind mount without source: write an absolute path");
                    (mount::source(&format!("./{from}"), read_only, files)?, read_only)
                }
                _ => (mount::source(&from, read_only, files)?, read_only),
            }
        }
        _ => bail!("invalid mount: neither a string nor a table"),
    };
    let target = target(mount)?;
    ensure!(
        source != Source::Anonymous || read_only,
        "volume at {target:?}: it has no name, and is lost with its container: give it a name"
    );
    Ok(())
}

/// The target of `mount`.
///
/// # Errors
/// When it has none.
pub fn target(mount: &Value) -> Result<String> {
    let target = match mount {
        Value::String(short) => Short::parse(short)?.target.to_owned(),
        _ => {
            let keys = ["target", "destination", "dst"];
            text(keys.iter().find_map(|key| mount.get(*key)).unwrap_or(&Value::Null))
        }
    };
    ensure!(!target.is_empty(), "invalid mount: no target");
    Ok(target)
}

/// Checks the path of a file that is only read: it has to be absolute, or a file of the artifact.
fn readable(path: &str, files: &ArtifactFiles) -> Result<()> {
    if !path.starts_with('/') || path.contains('$') {
        return mount::artifact_path(path, files).map(drop);
    }
    files.record_host_path(path);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::yaml;

    fn check(text: &str, files: &ArtifactFiles) -> Result<()> {
        let all = yaml::parse(text)?;
        file(&all, files)?;
        table(&all["services"]).try_for_each(|(_, described)| service(described, files))
    }

    #[test]
    fn writable_relative_paths_are_refused_in_every_form() {
        let none = ArtifactFiles::new("/nowhere".into(), 0);
        for service in [
            "volumes: ['./data:/data']",
            "volumes:\n    - .:/app",
            "volumes: ['data/x:/data']",
            "volumes: ['${PWD}/d:/d']",
            "volumes: ['$PWD/d:/d']",
            "volumes: ['~/d:/d']",
            "volumes: ['../d:/d:ro']",
            "volumes: ['/data']",
            "volumes: [/data]",
            "volumes: [{type: bind, source: data, target: /data}]",
            "volumes: [{type: bind, source: ./data, target: /data}]",
            "volumes: [{type: bind, source: '${DIR}', target: /data}]",
            "volumes: [{type: bind, source: data, target: /data, read_only: true}]",
            "volumes: [{type: volume, target: /data}]",
            "volumes: [{type: image, source: 'b:1', target: /data}]",
            "env_file: app.env",
            "env_file: [./app.env]",
            "env_file: [{path: app.env, required: false}]",
            "env_file: ${ENV}",
            "label_file: labels",
            "build: .",
            "build: {context: .}",
            "extends: {file: other.yaml, service: web}",
            "security_opt: ['seccomp:./profile.json']",
            "security_opt: ['seccomp=profile.json']",
            "credential_spec: {file: spec.json}",
            "container_name: ${NAME}",
        ] {
            let text = format!("services:\n  web:\n    image: a:1\n    {service}\n");
            assert!(check(&text, &none).is_err(), "{service} was accepted");
        }
        for file in [
            "include: [other.yaml]",
            "volumes: {data: {driver_opts: {type: none, o: bind, device: ./data}}}",
            "volumes: {data: {driver_opts: {type: none, o: 'rw,bind', device: data}}}",
            "volumes: {data: {driver_opts: {type: none, o: bind, device: '${PWD}/d'}}}",
            "volumes: {data: {driver_opts: {type: none, device: ./data}}}",
            "configs: {app: {file: ./app.conf}}",
            "configs: {app: {file: /etc/$NAME}}",
            "secrets: {app: {file: secret.txt}}",
            "x-base: &base {volumes: ['./d:/d']}\nservices: {web: {<<: *base, image: 'a:1'}}",
        ] {
            assert!(check(file, &none).is_err(), "{file} was accepted");
        }
    }

    #[test]
    fn values_that_are_not_relative_paths_are_accepted() {
        let none = ArtifactFiles::new("/nowhere".into(), 0);
        for service in [
            "command: ./x",
            "entrypoint: ['./run', '.']",
            "working_dir: ./app",
            "volumes: ['data:/data', '/srv/d:/d', 'data:/more:ro']  # ./not/a/path",
            "volumes: [{type: tmpfs, target: /t}, {type: volume, source: data, target: /data}]",
            "volumes: [{type: bind, source: /srv/d, target: /d}]",
            "environment: {A: './b', B: '${HOME}'}",
            "env_file: /etc/app.env",
            "healthcheck: {test: ['CMD', './check']}",
            "security_opt: ['seccomp:unconfined', 'no-new-privileges:true']",
            "labels: {path: ./x}",
        ] {
            let text = format!("services:\n  web:\n    image: a:1\n    {service}\n");
            check(&text, &none).unwrap_or_else(|error| panic!("{service}: {error:#}"));
        }
        let file = "volumes: {data: {}, nfs: {driver_opts: {type: nfs, o: 'addr=10.0.0.1', device: ':/x'}}, d: }\n\
                    secrets: {a: {environment: A}, b: {external: true}, c: {file: /etc/secret}}\n";
        check(file, &none).unwrap();
    }

    #[test]
    fn files_of_the_artifact_are_accepted_read_only() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("files");
        let mut files = ArtifactFiles::new(root, 0);
        files.write_for_test(&[("app.env", "A=1"), ("conf/app.conf", "x")]);
        for service in [
            "env_file: [./app.env]",
            "volumes: ['./conf:/etc/app:ro']",
            "volumes: [./conf/app.conf:/etc/app.conf:ro]",
            "volumes: [{type: bind, source: conf, target: /etc/app, read_only: true}]",
            "volumes: ['.:/app:ro']",
        ] {
            let text = format!("services:\n  web:\n    image: a:1\n    {service}\n");
            check(&text, &files).unwrap_or_else(|error| panic!("{service}: {error:#}"));
        }
        check("configs: {app: {file: ./conf/app.conf}}", &files).unwrap();
        for service in ["volumes: ['./conf:/etc/app']", "volumes: ['.:/app']", "env_file: other.env"] {
            let text = format!("services:\n  web:\n    image: a:1\n    {service}\n");
            assert!(check(&text, &files).is_err(), "{service} was accepted");
        }
        assert!(fs::metadata(directory.path().join("files/app.env")).is_ok());
    }
}
