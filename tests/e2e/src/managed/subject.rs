//! What managed scenarios deploy: for each module a payload whose content is the name of its artifact, so that the disk
//! tells which artifact is active.

use std::path::PathBuf;

use anyhow::Result;
use host::cache;
use mender_update_module_test::debian::Package;

use crate::device::{Device, random};
use crate::scenarios::container;

/// The name of the artifact in the image of the device. The previous version has it as its content.
pub const BASE: &str = "base";

/// A module and its payload.
#[derive(Debug)]
pub struct Subject {
    /// The module.
    pub module: &'static str,
    /// Makes the previous version, [`BASE`], on a device that has power.
    pub prepare: fn(&Device) -> Result<()>,
    /// Makes the artifact with this name on the host, with these options of the generator in addition.
    pub artifact: fn(&Device, &str, &[&str]) -> Result<PathBuf>,
    /// The name of the artifact whose payload is active. It is another text if parts of two versions are active.
    pub active: fn(&Device) -> Result<String>,
}

/// Files in the web root.
pub const WEB_FILE: Subject = Subject {
    module: "web-file",
    prepare: |device| write_base(device, "/var/www"),
    artifact: |device, name, options| {
        let files = files(name).into_iter().map(|(path, content)| (path, content.into_bytes()));
        make(device, &WEB_FILE, name, options, files.collect())
    },
    active: |device| active_files(device, "/var/www"),
};

/// The same files in a directory.
pub const DIRECTORY: Subject = Subject {
    module: "directory",
    prepare: |device| write_base(device, "/srv/app"),
    artifact: |device, name, options| {
        let files = files(name);
        let files: Vec<_> = files.iter().map(|(path, content)| (*path, content.as_str())).collect();
        let options = [&["--dest-dir", "/srv/app"], options].concat();
        make(device, &DIRECTORY, name, &options, vec![("app.tar", device.archive(&files)?)])
    },
    active: |device| active_files(device, "/srv/app"),
};

/// A package.
pub const DEB: Subject = Subject {
    module: "deb",
    prepare: |device| {
        let path = device.write_file("previous.deb", &package(BASE).build()?)?;
        device.ok(&format!("dpkg --install {path} && rm {path} && sync")).map(drop)
    },
    artifact: |device, name, options| make(device, &DEB, name, options, vec![("app.deb", package(name).build()?)]),
    active: |device| {
        // "ii" is the state of a package that is installed completely.
        let version = "dpkg-query --show --showformat='${db:Status-Abbrev}${Version}\\n' app";
        let found = device.ok(&format!("cat /usr/share/app/data && {version}"))?;
        let (name, state) = found.split_once('\n').unwrap_or_default();
        Ok(if state == format!("ii 1.{name}\n") { name.to_owned() } else { format!("mixed: {found}") })
    },
};

/// A project with one service. No version runs on the device before.
pub const CONTAINER: Subject = Subject {
    module: container::MODULE,
    prepare: container::write_settings,
    artifact: |device, name, options| {
        let options = [OPTIONS, &["--software-name", "container"], options].concat();
        container::shop_on_host(device, name, name, 0, &options)
    },
    active: |device| {
        let request = "busybox wget -q -O - http://127.0.0.1:8080/";
        let none = format!("test -z \"$(podman ps --quiet)\" && echo {BASE}");
        // A container answers some time after its start, for example after a boot.
        let found = format!("{request} 2>/dev/null || {{ {none}; }}");
        let wait = format!("for try in $(seq 60); do {found} && exit 0; sleep 1; done; echo mixed: no answer");
        Ok(device.ok(&wait)?.trim().to_owned())
    },
};

/// The options of the generators by which `show-provides` has the key `data-partition.MODULE.version`.
const OPTIONS: &[&str] = &["--software-filesystem", "data-partition"];

fn make(
    device: &Device,
    subject: &Subject,
    name: &str,
    options: &[&str],
    files: Vec<(&str, Vec<u8>)>,
) -> Result<PathBuf> {
    let options = [OPTIONS, &["--software-name", subject.module], options].concat();
    device.generate_on_host(subject.module, name, &options, files)
}

/// The package of the artifact `name`.
fn package(name: &str) -> Package {
    Package::new("app", &format!("1.{name}")).file("/usr/share/app/data", &format!("{name}\n"))
}

/// The files of the artifact `name`, sorted. One is so large that a link can drop in the middle of a download.
fn files(name: &str) -> Vec<(&'static str, String)> {
    let photo = random(name, 64 << 10).into_iter().map(|byte| char::from(b'0' + byte % 64)).collect();
    vec![("index.html", format!("{name}\n")), ("photo", photo)]
}

/// Writes the files of the previous version to `directory` on the device.
fn write_base(device: &Device, directory: &str) -> Result<()> {
    device.ok(&format!("mkdir -p {directory}"))?;
    for (path, content) in files(BASE) {
        let copy = device.write_file(path, content.as_bytes())?;
        device.ok(&format!("mv {copy} {directory}/{path}"))?;
    }
    device.ok("sync").map(drop)
}

/// The artifact whose files are in `directory` on the device: all of them, and no others.
fn active_files(device: &Device, directory: &str) -> Result<String> {
    let sums = "find . -type f -printf '%P\\n' | sort | xargs -r sha256sum";
    let found = device.ok(&format!("cd {directory} && {{ head -n 1 index.html; {sums}; }}"))?;
    let (name, sums) = found.split_once('\n').unwrap_or_default();
    let sum = |(path, content): (&str, String)| format!("{}  {path}\n", cache::sha256(content.as_bytes()));
    let expected: String = files(name).into_iter().map(sum).collect();
    Ok(if sums == expected { name.to_owned() } else { format!("mixed: {found}") })
}
