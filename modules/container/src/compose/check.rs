//! Paths in compose files: those beside the file go with its version.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::names;
use crate::carried::Carried;
use crate::mount::{self, Short, Source};

/// Checks what `file` says beside services.
///
/// # Errors
/// For what cannot be rolled back, with the remedy.
pub fn file(file: &Value, carried: &Carried) -> Result<()> {
    ensure!(
        file.get("include").is_none(),
        "it includes other files: name them all in the meta-data, as compose"
    );
    for (name, volume) in table(&file["volumes"]) {
        let options = &volume["driver_opts"];
        let binds = text(&options["o"]).split(',').any(|option| matches!(option, "bind" | "rbind"));
        let device = text(&options["device"]);
        let context = || format!("the volume {name:?}");
        if binds || device.starts_with(['.', '~', '$']) {
            let source = mount::source(&device, false, carried).with_context(context)?;
            let is_absolute = matches!(source, Source::Host(_));
            ensure!(is_absolute, "{}: the device {device:?} is no absolute path: write one", context());
        }
    }
    for kind in ["configs", "secrets"] {
        for (name, described) in table(&file[kind]) {
            if let Some(path) = described.get("file") {
                readable(&text(path), carried).with_context(|| format!("of {kind}, {name:?}"))?;
            }
        }
    }
    Ok(())
}

/// Checks what a file says of one service.
///
/// # Errors
/// As [`file()`].
pub fn service(service: &Value, carried: &Carried) -> Result<()> {
    ensure!(
        service.get("build").is_none(),
        "it has build: put the built image into the artifact, and name it as image"
    );
    ensure!(
        service["extends"].get("file").is_none(),
        "it extends a service of another file: name all files in the meta-data, as compose, and leave file out"
    );
    for mount in service["volumes"].as_array().into_iter().flatten() {
        self::mount(mount, carried)?;
    }
    for key in ["env_file", "label_file"] {
        for path in paths(&service[key]) {
            readable(&path, carried).with_context(|| key.to_owned())?;
        }
    }
    if let Some(file) = service["credential_spec"].get("file") {
        readable(&text(file), carried).context("credential_spec")?;
    }
    for option in names(&service["security_opt"]) {
        let profile = option.strip_prefix("seccomp").and_then(|rest| rest.strip_prefix([':', '=']));
        if let Some(profile) = profile.filter(|profile| !matches!(*profile, "unconfined" | "builtin")) {
            ensure!(profile.starts_with('/'), "security_opt {option:?}: write an absolute path");
        }
    }
    let name = text(&service["container_name"]);
    ensure!(!name.contains('$'), "container_name {name:?} has a variable: write the name itself");
    Ok(())
}

/// A mount in either form.
fn mount(mount: &Value, carried: &Carried) -> Result<()> {
    let (source, read_only) = match mount {
        Value::String(short) => {
            let short = Short::parse(short)?;
            (mount::source(short.source, short.is_read_only(), carried)?, short.is_read_only())
        }
        Value::Object(long) => {
            let read_only = long.get("read_only") == Some(&Value::Bool(true));
            let from = text(mount.get("source").or_else(|| mount.get("src")).unwrap_or(&Value::Null));
            match text(&mount["type"]).as_str() {
                "tmpfs" | "npipe" | "cluster" | "image" => return Ok(()),
                // In the long form, a path needs no dot to be one.
                "bind" if !from.starts_with(['/', '.', '~', '$']) => {
                    ensure!(!from.is_empty(), "a bind mount has no source: write an absolute path");
                    (mount::source(&format!("./{from}"), read_only, carried)?, read_only)
                }
                _ => (mount::source(&from, read_only, carried)?, read_only),
            }
        }
        _ => bail!("a mount is neither a text nor a table"),
    };
    let target = target(mount)?;
    ensure!(
        source != Source::Anonymous || read_only,
        "the volume at {target:?} has no name, and goes with its container: give it one"
    );
    Ok(())
}

/// Where `mount` is mounted.
///
/// # Errors
/// When it does not say.
pub fn target(mount: &Value) -> Result<String> {
    let target = match mount {
        Value::String(short) => Short::parse(short)?.target.to_owned(),
        _ => {
            let keys = ["target", "destination", "dst"];
            text(keys.iter().find_map(|key| mount.get(*key)).unwrap_or(&Value::Null))
        }
    };
    ensure!(!target.is_empty(), "a mount has no target");
    Ok(target)
}

/// A file that is read and never written to: absolute, or carried.
fn readable(path: &str, carried: &Carried) -> Result<()> {
    if !path.starts_with('/') || path.contains('$') {
        mount::carried(path, carried)?;
    }
    Ok(())
}

/// One path or several, each alone or as `path` of a table.
fn paths(value: &Value) -> Vec<String> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(list) => list.iter().flat_map(paths).collect(),
        Value::Object(_) => vec![text(&value["path"])],
        _ => vec![text(value)],
    }
}

fn table(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::yaml;

    fn check(text: &str, carried: &Carried) -> Result<()> {
        let all = yaml::parse(text)?;
        file(&all, carried)?;
        table(&all["services"]).try_for_each(|(_, said)| service(said, carried))
    }

    #[test]
    fn writable_paths_beside_the_file_are_refused_in_every_spelling() {
        let none = Carried::new("/nowhere".into(), 0);
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
            assert!(check(&text, &none).is_err(), "{service} was taken");
        }
        for file in [
            "include: [other.yaml]",
            "volumes: {data: {driver_opts: {type: none, o: bind, device: ./data}}}",
            "volumes: {data: {driver_opts: {type: none, o: 'rw,bind', device: data}}}",
            "volumes: {data: {driver_opts: {type: none, o: bind, device: '${PWD}/d'}}}",
            "configs: {app: {file: ./app.conf}}",
            "secrets: {app: {file: secret.txt}}",
            "x-base: &base {volumes: ['./d:/d']}\nservices: {web: {<<: *base, image: 'a:1'}}",
        ] {
            assert!(check(file, &none).is_err(), "{file} was taken");
        }
    }

    #[test]
    fn what_is_no_path_beside_the_file_is_taken() {
        let none = Carried::new("/nowhere".into(), 0);
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
    fn carried_files_are_taken_where_nobody_writes_to_them() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("files");
        let mut carried = Carried::new(root, 0);
        carried.unpack_for_test(&[("app.env", "A=1"), ("conf/app.conf", "x")]);
        for service in [
            "env_file: [./app.env]",
            "volumes: ['./conf:/etc/app:ro']",
            "volumes: [./conf/app.conf:/etc/app.conf:ro]",
            "volumes: [{type: bind, source: conf, target: /etc/app, read_only: true}]",
            "volumes: ['.:/app:ro']",
        ] {
            let text = format!("services:\n  web:\n    image: a:1\n    {service}\n");
            check(&text, &carried).unwrap_or_else(|error| panic!("{service}: {error:#}"));
        }
        check("configs: {app: {file: ./conf/app.conf}}", &carried).unwrap();
        for service in ["volumes: ['./conf:/etc/app']", "volumes: ['.:/app']", "env_file: other.env"] {
            let text = format!("services:\n  web:\n    image: a:1\n    {service}\n");
            assert!(check(&text, &carried).is_err(), "{service} was taken");
        }
        assert!(fs::metadata(directory.path().join("files/app.env")).is_ok());
    }
}
