//! Makes the tar archives in `fuzz/corpus/`. The other files there are text, written by hand, and what libFuzzer has
//! found.

use std::fs;
use std::io;
use std::path::Path;

use tar::{EntryType, Header};

/// The block size of tar archives.
const BLOCK: usize = 512;

/// A configuration of an image, and the sha256 of it.
const CONFIG: &[u8] = br#"{"architecture":"arm64","os":"linux","config":{"Volumes":{"/data":{}}}}"#;
const DIGEST: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (target, name, entries) in seeds() {
        let mut archive = entries.concat();
        archive.resize(archive.len() + BLOCK, 0);
        fs::write(corpus.join(target).join(name), archive)?;
    }
    Ok(())
}

/// Each target, with the names and the entries of its archives.
fn seeds() -> Vec<(&'static str, &'static str, Vec<Vec<u8>>)> {
    let manifest = br#"[{"Config":"c.json","RepoTags":["app:1"],"Layers":["l"]}]"#;
    let index = format!(r#"{{"manifests":[{{"digest":"{DIGEST}","annotations":{{"a":"b"}}}}]}}"#);
    let blob = format!(r#"{{"config":{{"digest":"{DIGEST}"}},"layers":[]}}"#);
    vec![
        ("directory-tar", "ustar.tar", tree()),
        (
            "directory-tar",
            "pax.tar",
            vec![
                pax(b'g', &[("comment", "x"), ("gid", "7")]),
                pax(
                    b'x',
                    &[
                        ("path", "./b"),
                        ("mtime", "1234567890.5"),
                        ("uname", "root"),
                        ("SCHILY.xattr.user.a", "\n\u{1}"),
                        ("SCHILY.acl.access", "user::rw-,user:7:r--,group::r--,mask::r--,other::---"),
                    ],
                ),
                entry(EntryType::Regular, "short", "", b"content"),
            ],
        ),
        ("directory-tar", "gnu.tar", long_names()),
        ("directory-tar", "sparse-gnu.tar", sparse()),
        (
            "directory-tar",
            "sparse-pax-1.0.tar",
            vec![
                pax(
                    b'x',
                    &[
                        ("GNU.sparse.major", "1"),
                        ("GNU.sparse.minor", "0"),
                        ("GNU.sparse.name", "s"),
                        ("GNU.sparse.realsize", "4096"),
                    ],
                ),
                entry(EntryType::Regular, "s", "", &[padded(b"2\n0\n3\n4000\n4\n"), b"onetwo.".to_vec()].concat()),
            ],
        ),
        (
            "directory-tar",
            "sparse-pax-0.1.tar",
            vec![
                pax(b'x', &[("GNU.sparse.size", "4096"), ("GNU.sparse.map", "0,3,4000,4"), ("GNU.sparse.name", "s")]),
                entry(EntryType::Regular, "s", "", b"onetwo."),
            ],
        ),
        (
            "deb-tar",
            "packages.tar",
            vec![
                entry(EntryType::Directory, "d/", "", b""),
                pax(b'x', &[("path", "d/one.deb")]),
                entry(EntryType::Regular, "short", "", b"!<arch>\ncontent"),
            ],
        ),
        (
            "deb-tar",
            "control.tar",
            vec![
                entry(EntryType::Directory, "./", "", b""),
                entry(EntryType::Regular, "./control", "", CONTROL),
                entry(EntryType::Regular, "./conffiles", "", b"/etc/app.conf\nremove-on-upgrade /etc/old.conf\n"),
                entry(EntryType::Regular, "./preinst", "", b"#!/bin/sh\ndpkg-divert --add /x\n"),
            ],
        ),
        ("deb-tar", "files.tar", long_names()),
        (
            "container-tar",
            "docker.tar",
            vec![
                entry(EntryType::Regular, "c.json", "", CONFIG),
                entry(EntryType::Regular, "manifest.json", "", manifest),
                entry(EntryType::Regular, "repositories", "", b"{}"),
            ],
        ),
        (
            "container-tar",
            "oci.tar",
            vec![
                entry(EntryType::Directory, "blobs/", "", b""),
                entry(EntryType::Regular, "blobs/1", "", blob.as_bytes()),
                entry(EntryType::Regular, "index.json", "", index.as_bytes()),
            ],
        ),
        (
            "container-tar",
            "files.tar",
            vec![
                pax(b'x', &[("path", "conf/app.conf"), ("mtime", "1.5")]),
                entry(EntryType::Regular, "short", "", b"a=1\n"),
                entry(EntryType::GNULongName, "././@LongLink", "", b"conf/long\0"),
                entry(EntryType::Regular, "conf/", "", b""),
            ],
        ),
    ]
}

const CONTROL: &[u8] = b"Package: app\nVersion: 1:2.0~rc1\nArchitecture: arm64\nDepends: libc6 (>= 2.36), a | b\n\
    Description: text\n more\n";

fn tree() -> Vec<Vec<u8>> {
    vec![
        entry(EntryType::Directory, "./", "", b""),
        entry(EntryType::Regular, "./a", "", b"content"),
        entry(EntryType::Symlink, "./s", "a", b""),
        entry(EntryType::Link, "./h", "./a", b""),
        entry(EntryType::Fifo, "./f", "", b""),
    ]
}

fn long_names() -> Vec<Vec<u8>> {
    vec![
        entry(EntryType::GNULongName, "././@LongLink", "", b"usr/bin/long\0"),
        entry(EntryType::GNULongLink, "././@LongLink", "", b"target\0"),
        entry(EntryType::Symlink, "usr/bin/short", "t", b""),
    ]
}

/// A sparse file in the old format of GNU tar, with two parts in its header, and an extension of the header.
fn sparse() -> Vec<Vec<u8>> {
    let mut header = header(EntryType::GNUSparse, "s", "", 7);
    let gnu = header.as_gnu_mut().expect("a GNU header");
    gnu.sparse[0].set_offset(0);
    gnu.sparse[0].set_length(3);
    gnu.sparse[1].set_offset(4000);
    gnu.sparse[1].set_length(4);
    gnu.set_is_extended(true);
    gnu.set_real_size(4096);
    header.set_cksum();
    vec![header.as_bytes().to_vec(), vec![0; BLOCK], padded(b"onetwo.")]
}

fn header(kind: EntryType, path: &str, link: &str, size: u64) -> Header {
    let mut header = Header::new_gnu();
    let gnu = header.as_gnu_mut().expect("a GNU header");
    // Unlike the functions for paths, this takes any.
    gnu.name[..path.len()].copy_from_slice(path.as_bytes());
    gnu.linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    header.set_cksum();
    header
}

fn entry(kind: EntryType, path: &str, link: &str, content: &[u8]) -> Vec<u8> {
    [header(kind, path, link, content.len() as u64).as_bytes().to_vec(), padded(content)].concat()
}

/// An extended header with `records`.
fn pax(kind: u8, records: &[(&str, &str)]) -> Vec<u8> {
    let mut content = String::new();
    for (key, value) in records {
        let rest = format!(" {key}={value}\n");
        let digits = if rest.len() + 2 < 100 { 2 } else { 3 };
        content += &format!("{}{rest}", rest.len() + digits);
    }
    entry(EntryType::new(kind), "x", "", content.as_bytes())
}

/// `content` up to a whole block.
fn padded(content: &[u8]) -> Vec<u8> {
    let mut content = content.to_vec();
    content.resize(content.len().next_multiple_of(BLOCK), 0);
    content
}
