//! Hostile input: the executable refuses it in bounded time and memory.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::device::{Device, executable, mocks, refused};

/// The memory limit of a call, in KiB.
const PEAK: u64 = 16 << 10;

/// The time limit of a call: many times what it takes on a busy machine, and less than a call without bounds takes.
const LIMIT: Duration = Duration::from_secs(120);

/// A size much larger than the peak.
const HUGE: usize = 64 << 20;

const TAG: &str = "localhost/shop:1";

fn id() -> String {
    "0".repeat(64)
}

/// A device with an engine that has no images and accepts every archive.
fn device() -> Device {
    let mut device = Device::new();
    let directory = device.client.device().to_owned();
    let engine = directory.join("podman");
    executable(
        &engine,
        &format!(
            "#!/bin/sh\ncase $1 in\ninfo) echo {0}; echo {0} ;;\nload) exec cat > /dev/null ;;\nesac\n",
            directory.to_str().unwrap()
        ),
    );
    device.client.set("container", &format!("engine = {engine:?}\nreserve_mib = 0\n")).unwrap();
    device.client.wrap([mocks().join("peak-memory"), directory.join("peak")]);
    device
}

/// Asserts that the download of an artifact is refused with `expected`.
fn is_refused(device: &mut Device, meta_data: &Value, file: &str, content: &[u8], expected: &str) {
    let begun = Instant::now();
    let outcome = device.download(meta_data, &[(file, content)]);
    let took = begun.elapsed();
    refused(&outcome, expected);
    assert!(outcome.stderr.len() < 16 << 10, "a message of {} bytes", outcome.stderr.len());
    let peak: u64 = fs::read_to_string(device.client.device().join("peak")).unwrap().parse().unwrap();
    assert!(peak < PEAK, "{peak} KiB of memory for {expected:?}");
    assert!(took < LIMIT, "{took:?} for {expected:?}");
    device.ok("Cleanup");
}

/// A tar header of any type, with any size.
fn header(path: &str, type_flag: u8, size: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..path.len()].copy_from_slice(path.as_bytes());
    header[100..107].copy_from_slice(b"0000644");
    header[124..124 + size.len()].copy_from_slice(size);
    header[156] = type_flag;
    header[257..262].copy_from_slice(b"ustar");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    header
}

fn entry(path: &str, type_flag: u8, content: &[u8]) -> Vec<u8> {
    let mut entry = header(path, type_flag, format!("{:011o}", content.len()).as_bytes());
    entry.extend_from_slice(content);
    entry.resize(entry.len().next_multiple_of(512), 0);
    entry
}

fn images(definition: Value) -> Value {
    let mut meta_data = definition;
    meta_data["project"] = json!("shop");
    meta_data["images"] = json!([{"file": "app.tar", "id": id(), "ref": TAG}]);
    meta_data
}

/// Tar archives that exceed a limit, or claim to be huge.
fn archives() -> Vec<(&'static str, Vec<u8>)> {
    let huge_size = b"00400000000";
    let mut long_name = header("x", b'L', huge_size);
    long_name.resize(HUGE, b'a');
    let mut extension = header("x", b'x', huge_size);
    extension.resize(HUGE, b'1');
    let mut global = header("x", b'g', huge_size);
    global.resize(HUGE, b'1');
    let record = "6 a=b\n".repeat(10_000);
    let records = entry("x", b'g', record.as_bytes()).repeat(600);
    vec![
        ("extension header", long_name),
        ("extension header", extension),
        ("extension header", global),
        ("too many extension headers", records),
        ("more than 20000 entries", entry("a/b", b'5', b"").repeat(60_000)),
        ("truncated", header("x", b'0', b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff")),
        ("a size of", header("x", b'0', b"\x80\0\0\0\x80\0\0\0\0\0\0\0")),
        ("too large", header("x", b'0', b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")),
        ("truncated", vec![b'x'; 100]),
        ("not a tar archive", vec![b'x'; HUGE]),
    ]
}

#[test]
fn archives_of_images() {
    let mut device = device();
    let meta_data = images(json!({"run": {"web": {"image": TAG}}}));
    let list = |images: usize| {
        let image = format!("{{\"Config\": \"{}.json\"}}", id());
        format!("[{}]", vec![image; images].join(","))
    };
    let mut large = header("manifest.json", b'0', b"00400000000");
    large.resize(HUGE, b' ');
    let described = |number: usize| entry(&format!("{number}"), b'0', format!("{{\"a\": {number}}}").as_bytes());
    let more = [
        ("more than 1048576", large),
        ("more than 256", entry("manifest.json", b'0', list(5000).as_bytes())),
        ("recursion", entry("manifest.json", b'0', "[".repeat(1 << 20).as_bytes())),
        ("recursion", entry("index.json", b'0', "{\"a\":".repeat(100_000).as_bytes())),
        ("not a regular file", entry("manifest.json", b'2', b"")),
        ("more than 1024 links", (0..5000).flat_map(|number| entry(&format!("{number}"), b'2', b"")).collect()),
        ("more than 1024 files", (0..5000).flat_map(described).collect()),
        ("neither manifest.json nor index.json", vec![0; 1024]),
        ("compressed with gzip", b"\x1f\x8b\x08\0\0\0\0\0".to_vec()),
    ];
    for (words, archive) in archives().into_iter().chain(more) {
        is_refused(&mut device, &meta_data, "app.tar", &archive, words);
    }
}

#[test]
fn archives_of_files() {
    let mut device = device();
    let meta_data = images(json!({"compose": "compose.yaml", "archive": "files.tar"}));
    let files: Vec<u8> = (0..5000).flat_map(|number| entry(&number.to_string(), b'0', b"")).collect();
    let more = [("more than 2000", files), ("neither a regular file", entry("x", b'2', b""))];
    // Many entries of one directory are one directory.
    let all = archives().into_iter().filter(|(words, _)| !words.contains("entries"));
    for (words, archive) in all.chain(more) {
        // A file larger than the limit for all files is not read.
        let words = if archive.len() == 512 && words == "truncated" { "more than 268435456 bytes" } else { words };
        is_refused(&mut device, &meta_data, "files.tar", &archive, words);
    }
}

#[test]
fn compose_files_and_quadlets() {
    // The image is on the device already, so that no archive is loaded first.
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..20 {
        let names = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb += &format!("a{level}: &a{level} [{names}]\n");
    }
    let merges = "<<: [*a, *a, *a]\n".repeat(1000);
    let with_merges = format!("x: &a {{{}}}\nservices:\n  web:\n    {}", "b: 1, c: 2", merges.replace('\n', "\n    "));
    let long_scalar = format!("a: {}\n", "x".repeat(300 << 10));
    let texts = [
        ("more than 20000 nodes", bomb),
        ("YAML", "[".repeat(200 << 10)),
        ("nested", "- ".repeat(100 << 10)),
        ("more than 20000 nodes", "- x\n".repeat(60 << 10)),
        ("no image", with_merges),
        ("definition too long", long_scalar),
        ("definition too long", "x".repeat(HUGE)),
    ];
    let mut device = device();
    let meta_data = json!({
        "project": "shop",
        "images": [{"id": id(), "ref": TAG}],
        "compose": "compose.yaml",
    });
    let engine = device.client.device().join("podman");
    let script = fs::read_to_string(&engine).unwrap();
    let with_image = format!("images) echo sha256:{} {TAG} ;;\nesac", id());
    fs::write(&engine, script.replace("esac", &with_image)).unwrap();
    for (words, text) in texts {
        is_refused(&mut device, &meta_data, "compose.yaml", text.as_bytes(), words);
    }
    let in_archive = json!({
        "project": "shop",
        "images": [{"id": id(), "ref": TAG}],
        "compose": "compose.yaml",
        "archive": "files.tar",
    });
    let archive = [entry("compose.yaml", b'0', &[b'x'; (256 << 10) + 1]), vec![0; 1024]].concat();
    is_refused(&mut device, &in_archive, "files.tar", &archive, "definition too long");
    if !["/usr/libexec/podman/quadlet", "/usr/lib/podman/quadlet"].iter().any(|path| fs::exists(path).unwrap()) {
        return; // cargo xtask engines has one
    }
    let meta_data = json!({"project": "shop", "images": [{"id": id(), "ref": TAG}], "quadlet": ["web.container"]});
    is_refused(&mut device, &meta_data, "web.container", "a\\\n".repeat(80 << 10).as_bytes(), "no Image");
}

#[test]
fn meta_data() {
    let mut device = device();
    let long = json!({"project": "shop", "padding": "x".repeat(HUGE)});
    is_refused(&mut device, &long, "app.tar", b"", "larger than");
    let many = json!({"project": "shop", "images": vec![json!({"id": id(), "ref": TAG}); 3000], "run": {}});
    is_refused(&mut device, &many, "app.tar", b"", "more than 100");
    let services: serde_json::Map<_, _> = (0..3000)
        .map(|number| (format!("s{number}"), json!({"image": TAG, "after": [format!("s{}", (number + 1) % 3000)]})))
        .collect();
    is_refused(&mut device, &images(json!({"run": services})), "app.tar", b"", "truncated");
    for project in ["../etc", "", "a/b", &"x".repeat(10_000)] {
        let mut meta_data = images(json!({"run": {"web": {"image": TAG}}}));
        meta_data["project"] = json!(project);
        is_refused(&mut device, &meta_data, "app.tar", b"", "invalid name of a project");
    }
}
