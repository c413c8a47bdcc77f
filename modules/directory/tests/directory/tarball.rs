//! Archives made by hand, with entries that tar does not write.

use std::fs;
use std::os::unix::fs::MetadataExt;

/// The header of an entry of the type `kind`, with `size` bytes. It belongs to the user of the test, because only root
/// can install files of others.
pub fn header(name: &str, kind: u8, size: u64, link: &str) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    let process = fs::metadata("/proc/self").unwrap();
    let mode = if matches!(kind, b'5' | b'D') { 0o755 } else { 0o644 };
    for (at, number) in [(100, mode), (108, process.uid()), (116, process.gid())] {
        block[at..at + 8].copy_from_slice(format!("{number:07o}\0").as_bytes());
    }
    block[136..148].copy_from_slice(b"00000000000\0");
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link.as_bytes());
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// `content`, padded to whole blocks.
pub fn padded(content: &[u8]) -> Vec<u8> {
    let mut padded = content.to_vec();
    padded.resize(content.len().next_multiple_of(512), 0);
    padded
}

/// An entry with content.
pub fn entry(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
    [header(name, kind, content.len() as u64, ""), padded(content)].concat()
}

/// A record of an extended header.
pub fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len();
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    format!("{length}{rest}").into_bytes()
}

/// The end marker.
pub fn end() -> Vec<u8> {
    vec![0; 1024]
}
