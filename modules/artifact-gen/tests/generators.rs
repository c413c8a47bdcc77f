//! The generators as programs: their messages for bad input, and the files that they leave. The mock of mender-artifact
//! only takes part in tests of failures; the end-to-end scenarios use the real one.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use mender_update_module_test::debian::Package;
use test_image::{Image, Mode};

/// A mock of mender-artifact: knows the options of version 4.3, and does what MOCK says.
const MOCK: &str = r#"#!/bin/sh
case "$*" in
    *--help) echo "   --compatible-types value, -c value" ;;
    dump*) printf 'write\0--provides\0a.b:1' ;;
    *)
        while [ "$1" != --output-path ]; do shift; done
        echo partial > "$2"
        case "$MOCK" in
            fail) echo "no space left on device" >&2; exit 1 ;;
            hang) touch started; sleep 60 ;;
        esac ;;
esac
"#;

/// A directory with inputs, and the mock.
struct Bench(tempfile::TempDir);

#[cfg(test)]
impl Bench {
    fn new() -> Self {
        let bench = Self(tempfile::tempdir().unwrap());
        bench.write("mender-artifact", MOCK.as_bytes());
        fs::set_permissions(bench.path("mender-artifact"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(bench.path("tmp")).unwrap();
        bench.write("index.html", b"<h1>new</h1>\n");
        bench.write("a b.html", b"x");
        bench.write("list.json", b"[]");
        bench.write("units.json", br#"{"units": {"restart": ["app.service"]}, "remove": ["x"]}"#);
        bench.write("bad-units.json", br#"{"units": {"restart": ["--all"]}}"#);
        bench.write("tree/file", b"x");
        let package = |name: &str, version: &str| Package::new(name, version);
        bench.write("app.deb", &package("app", "2").field("Depends", "lib (>= 2)").build().unwrap());
        bench.write("lib.deb", &package("lib", "1").build().unwrap());
        bench.write("native.deb", &package("native", "1").field("Architecture", "arm64").build().unwrap());
        let image = Image {
            reference: "localhost/shop:2",
            version: "2",
            mode: Mode::Healthy,
            architecture: "arm64",
            executable: b"x",
        };
        bench.write("shop.tar", &image.archive().content);
        bench.write("compose.yaml", b"services: {web: {image: 'localhost/other:1'}}\n");
        bench.write("web.container", b"[Container]\nImage=localhost/shop:2\nVolume=/srv/data:/data\n");
        bench.write("conf.container", b"[Container]\nImage=localhost/shop:2\nVolume=./conf:/conf\n");
        bench.write("dots.container", b"[Container]\nImage=localhost/shop:2\nVolume=/srv/data/../../etc:/etc\n");
        symlink("elsewhere", bench.path("link")).unwrap();
        bench.write("dest.json", br#"{"dest_dir": "/x"}"#);
        bench.write("empty-id.json", br#"{"images": []}"#);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_artifact-gen"));
        command.args(line.split_whitespace().map(|word| word.replace('+', " ")));
        command.current_dir(self.0.path()).env("MENDER_ARTIFACT", self.path("mender-artifact"));
        command.env("TMPDIR", self.path("tmp")).stdin(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// The names in the top directory and in that of temporary files.
    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for directory in [self.0.path(), &self.path("tmp")] {
            names.extend(
                fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()),
            );
        }
        names.sort();
        names
    }
}

const COMMON: &str = "-n r-2 -t raspberrypi3 -o out.mender";

/// Bad inputs and their exact messages. `+` stands for a space in a word.
const BAD: &[(&str, &str)] = &[
    ("web-file nofile", "reading nofile failed: No such file or directory (os error 2)"),
    ("web-file tree", "tree refused: it is a directory: name the files in it, or use directory-artifact-gen"),
    (
        "web-file a+b.html",
        "invalid name of a payload file: \"a b.html\": mender-artifact accepts letters, digits and . , _ - only: rename it, \
         or put it into an archive for the module directory",
    ),
    ("web-file index.html index.html", "invalid artifact: file \"index.html\" twice: remove one"),
    (
        "web-file -d /srv index.html",
        "option --dest-dir refused: /srv: the web root is dest_dir in /etc/mender-modules/web-file.toml of the device: \
         remove the option, or use the module directory",
    ),
    (
        "web-file -T single-file index.html",
        "option --type refused: single-file: this generator makes artifacts of type web-file: remove it",
    ),
    (
        "web-file index.html -- --file x",
        "option --file after -- refused: the generator sets it: give it before -- if this generator has it",
    ),
    (
        "web-file --max-size 5 index.html",
        "payload too large: 13 B (13 bytes), and --max-size allows 5 B: make it smaller, or raise the limit",
    ),
    (
        "web-file --meta-data list.json index.html",
        "invalid JSON file list.json: use an object: invalid type: sequence, expected a map at line 1 column 0",
    ),
    (
        "web-file --meta-data bad-units.json index.html",
        "invalid meta-data: \"--all\" is not the name of a systemd unit",
    ),
    (
        "web-file -o none/out.mender index.html",
        "writing none/out.mender failed: no directory none: make it, or name another file",
    ),
    ("web-file -o /dev/null index.html", "writing /dev/null failed: it is not a regular file: name another file"),
    ("web-file -o link index.html", "writing link failed: it is not a regular file: name another file"),
    (
        "web-file index.html -- -file x",
        "option -file after -- refused: the generator sets it: give it before -- if this generator has it",
    ),
    (
        "web-file index.html -- --file=x",
        "option --file after -- refused: the generator sets it: give it before -- if this generator has it",
    ),
    (
        "directory -d /srv/app .",
        "writing out.mender refused: it is in the directory ., which is archived: name another file with --output-path",
    ),
    (
        "container --project shop --compose compose.yaml --archive . shop.tar",
        "writing out.mender refused: it is in the directory ., which is archived: name another file with --output-path",
    ),
    (
        "container --project shop --quadlet dots.container --host-path /srv/data shop.tar",
        "path /srv/data/../../etc refused: write it without ..",
    ),
    (
        "container --project shop --quadlet web.container --host-path /srv/dat shop.tar",
        "path of the device refused: the definition names /srv/data, which is not in the artifact: use a named volume, \
         add the file with --archive, or, if devices have the path, give it with --host-path",
    ),
    ("container --project shop --run shop.tar shop.tar", "image localhost/shop:2 twice: name it once"),
    ("directory -d srv tree", "destination \"srv\" refused: not an absolute path"),
    (
        "directory -d /var/lib/mender tree",
        "destination /var/lib/mender refused: /var/lib/mender belongs to the Mender client or to this module: name \
         another directory",
    ),
    (
        "directory -d /srv/app index.html",
        "making an artifact of index.html failed: unpacking the archive \"update.tar\" failed: reading the archive failed: \
         it ends without an end marker: it is truncated, compressed or empty: failed to fill whole buffer",
    ),
    (
        "deb native.deb index.html",
        "invalid payload file \"index.html\": neither a Debian package nor a tar archive of packages",
    ),
    (
        "deb --architecture armhf native.deb",
        "wrong architecture: package native 1 is for arm64, and --architecture says armhf: use one for that",
    ),
    (
        "deb app.deb lib.deb",
        "missing dependency: package app 2 depends on lib (>= 2), and the artifact has lib 1: add the version that it \
         needs",
    ),
    ("deb lib.deb lib.deb", "invalid artifact: package lib is there twice: keep one of them"),
    (
        "deb --remove X lib.deb",
        "invalid meta-data: invalid package name \"X\": use lower case letters, digits and + - . as Debian does",
    ),
    (
        "deb --remove y --meta-data units.json lib.deb",
        "meta-data key remove twice: in units.json, and from the options: remove one",
    ),
    (
        "container --project Shop --run shop.tar",
        "invalid name of a project or service: \"Shop\": use a to z, 0 to 9 and hyphens, a letter or digit first, at most \
         100 characters",
    ),
    ("container --project shop shop.tar", "invalid options: use exactly one of --run, --compose and --quadlet"),
    // Options are checked before images are exported, which takes minutes.
    ("container --project shop missing:1", "invalid options: use exactly one of --run, --compose and --quadlet"),
    (
        "container --project shop --run none.tar",
        "archive none.tar not found: give the path of an archive, or the name of an image such as localhost/app:1",
    ),
    (
        "container --project shop --run index.html",
        "reading the archive index.html failed: truncated archive, or not a tar archive: failed to fill whole buffer",
    ),
    (
        "container --project shop --run bad-units.json shop.tar",
        "archive bad-units.json refused: it is a definition: give it as --run=bad-units.json",
    ),
    (
        "container --project shop --run --architecture amd64 shop.tar",
        "wrong architecture: image localhost/shop:2 is for arm64, and --architecture says amd64: use one for that",
    ),
    (
        "container --project shop --compose compose.yaml shop.tar",
        "service \"web\" refused: image missing: localhost/other:1: neither in the artifact nor on the device: add it to \
         the artifact",
    ),
    (
        "container --project shop --quadlet web.container shop.tar",
        "path of the device refused: the definition names /srv/data, which is not in the artifact: use a named volume, \
         add the file with --archive, or, if devices have the path, give it with --host-path",
    ),
    (
        "container --project shop --quadlet conf.container shop.tar",
        "quadlet \"conf.container\" refused: Volume=./conf:/conf: path \"./conf\": not in the artifact: add it to the \
         archive that the meta-data name as archive, or, for data that containers write, use a named volume",
    ),
    (
        "container --project shop --device-engine docker --quadlet web.container shop.tar",
        "quadlets need podman: with docker, write the project as run or compose",
    ),
    (
        "directory -d /srv/app --mtime nonsense tree",
        "option --mtime nonsense refused: use a date such as 2026-11-27, or @SECONDS",
    ),
    (
        "directory -d /srv/app --owner root shop.tar",
        "option --owner refused: shop.tar is an archive already: give a directory, or set it when you make the archive",
    ),
    (
        "directory -d /srv/app --meta-data dest.json tree",
        "meta-data key dest_dir refused: give the directory with --dest-dir",
    ),
    (
        "container --project shop --run --meta-data empty-id.json shop.tar",
        "meta-data key images twice: in empty-id.json, and from the options: remove one",
    ),
];

#[test]
fn bad_input_has_an_exact_message_and_leaves_nothing() {
    let bench = Bench::new();
    let before = bench.names();
    let mut wrong = String::new();
    for (line, expected) in BAD {
        // The last option of a kind counts, so that a line can replace the common ones.
        let (generator, rest) = line.split_once(' ').unwrap();
        let common = if rest.contains("-o ") { COMMON.replace(" -o out.mender", "") } else { COMMON.to_owned() };
        let output = bench.run(&format!("{generator} {common} {rest}"));
        let message = String::from_utf8(output.stderr).unwrap();
        let error = message.lines().find_map(|line| line.strip_prefix("error: ")).unwrap_or(&message);
        if error != *expected {
            wrong += &format!("{line}\n  {error}\n  instead of\n  {expected}\n");
        }
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert_eq!(bench.names(), before, "{line} left files behind");
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn an_image_archive_with_the_name_of_a_made_archive_is_not_changed() {
    let bench = Bench::new();
    let image = fs::read(bench.path("shop.tar")).unwrap();
    bench.write("project-files.tar", &image);
    bench.write("own.yaml", b"services: {web: {image: 'localhost/shop:2', volumes: ['./file:/file:ro']}}\n");
    for more in ["", "--dry-run "] {
        let line =
            format!("container {COMMON} {more}--project shop --compose own.yaml --archive tree project-files.tar");
        let output = bench.run(&line);
        assert!(output.status.success(), "{output:?}");
        assert!(fs::read(bench.path("project-files.tar")).unwrap() == image, "the user's file was changed: {line}");
    }
    bench.write("other/shop.tar", b"");
    let archive = fs::File::create(bench.path("other/shop.tar")).unwrap();
    let tar = Command::new("tar").arg("-cC").arg(bench.path("tree")).arg("file").stdout(archive).status().unwrap();
    assert!(tar.success());
    let line =
        format!("container {COMMON} --dry-run --project shop --compose own.yaml --archive other/shop.tar shop.tar");
    let output = bench.run(&line);
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("shop-2.tar"), "{output:?}");
}

#[test]
fn an_ignored_key_and_a_missing_health_check_are_shown() {
    let bench = Bench::new();
    let shown = |meta_data: &[u8]| {
        bench.write("more.json", meta_data);
        let output = bench.run(&format!("web-file {COMMON} --dry-run --meta-data more.json index.html"));
        assert!(output.status.success(), "{output:?}");
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap())
    };
    let [table, notes] = shown(br#"{"heatlh": {"tcp": "127.0.0.1:80"}}"#);
    assert!(table.contains("\nhealth check  none\n"), "{table}");
    let note = "note: meta-data key heatlh: the module ignores it: use units, health, or a key of the module\n";
    assert_eq!(notes, note);
    let [table, notes] = shown(br#"{"health": {"tcp": "127.0.0.1:80"}, "units": {}}"#);
    assert!(table.contains("\nhealth check  {\"tcp\":\"127.0.0.1:80\"}\n") && notes.is_empty(), "{table}{notes}");
}

#[test]
fn an_empty_payload_file_is_shown() {
    let bench = Bench::new();
    bench.write("empty.html", b"");
    let output = bench.run(&format!("web-file {COMMON} --dry-run index.html empty.html"));
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(notes.starts_with("note: payload file empty.html is empty: client 5.1.0 ends with an error"), "{notes}");
}

#[test]
fn an_artifact_is_written_to_the_current_directory_whatever_its_name_is() {
    let bench = Bench::new();
    let output = bench.run("web-file -n ../other/r-2 -t raspberrypi3 index.html");
    assert!(output.status.success(), "{output:?}");
    assert!(bench.path(".._other_r-2.mender").exists(), "{:?}", bench.names());
}

#[test]
fn a_failing_mender_artifact_leaves_the_previous_artifact() {
    let bench = Bench::new();
    bench.write("out.mender", b"previous");
    let before = bench.names();
    let output = bench.command(&format!("web-file {COMMON} index.html")).env("MOCK", "fail").output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("no space left on device") && output.status.code() == Some(1), "{message}");
    assert_eq!(fs::read(bench.path("out.mender")).unwrap(), b"previous");
    assert_eq!(bench.names(), before);
}

#[test]
fn a_signal_leaves_no_files_and_ends_mender_artifact() {
    let bench = Bench::new();
    let before = bench.names();
    let mut child = bench.command(&format!("web-file {COMMON} index.html")).env("MOCK", "hang").spawn().unwrap();
    wait_until(|| bench.path("started").exists());
    let kill = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
    fs::remove_file(bench.path("started")).unwrap();
    assert_eq!(bench.names(), before);
    let path = bench.path("mender-artifact");
    wait_until(|| !is_running(&path));
}

/// Whether a process has `path` in its command line.
#[cfg(test)]
fn is_running(path: &Path) -> bool {
    let processes =
        fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    let path = path.to_str().unwrap().as_bytes().to_vec();
    processes.into_iter().any(|line| line.windows(path.len()).any(|window| window == path))
}

/// The limit for the start of a process: on a loaded machine it may take seconds.
const LIMIT: Duration = Duration::from_secs(60);

/// Waits at most [`LIMIT`].
fn wait_until(mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < LIMIT, "the condition did not become true");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn device_types_are_given_as_the_installed_version_wants_them() {
    let bench = Bench::new();
    let output = bench.run(&format!("web-file {COMMON} --dry-run index.html"));
    let summary = String::from_utf8(output.stdout).unwrap();
    assert!(summary.contains("--compatible-types raspberrypi3") && !bench.path("out.mender").exists(), "{summary}");
    let output = bench.run(&format!("web-file {COMMON} --json index.html"));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&summary["provides"]["a.b"], &summary["size"]), (&"1".into(), &8.into()));
    assert_eq!(fs::read(bench.path("out.mender")).unwrap(), b"partial\n");
    let missing =
        bench.command(&format!("web-file {COMMON} index.html")).env("MENDER_ARTIFACT", "none").output().unwrap();
    let message = String::from_utf8(missing.stderr).unwrap();
    assert!(message.starts_with("error: none not found: install the package mender-artifact"), "{message}");
}
