//! Builds packages entry by entry, also those that dpkg-deb would not build: links, pipes, unusual names.

use std::io::Write;

use tar::{Builder, EntryType, Header};

/// The contents of a package, built without a tool that would correct them.
#[derive(Clone)]
pub struct RawPackage {
    control: Vec<u8>,
    members: Vec<(String, Vec<u8>)>,
    data: Vec<Entry>,
    prefix: &'static str,
}

#[derive(Clone)]
struct Entry {
    name: String,
    kind: EntryType,
    content: Vec<u8>,
    target: String,
    mode: u32,
}

impl RawPackage {
    pub fn new(name: &str, version: &str) -> Self {
        let control = format!(
            "Package: {name}\nVersion: {version}\nMaintainer: Test <test@example.org>\nDescription: of a test\n"
        );
        Self { control: control.into(), members: Vec::new(), data: Vec::new(), prefix: "./" }
    }

    pub fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.control.extend([name.as_bytes(), b": ", value.as_ref(), b"\n"].concat());
        self
    }

    /// Sets the beginning of the names in `data.tar` from now on. Default: `./`.
    pub fn prefix(mut self, prefix: &'static str) -> Self {
        self.prefix = prefix;
        self
    }

    /// Adds a file to the control archive. A maintainer script gets its first line.
    pub fn member(mut self, name: &str, content: &str) -> Self {
        let is_script = ["preinst", "postinst", "prerm", "postrm"].contains(&name);
        let content = if is_script { format!("#!/bin/sh\nset -e\n{content}\n") } else { content.into() };
        self.members.push((name.into(), content.into()));
        self
    }

    pub fn file(self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        let content = content.into();
        let mode = if content.starts_with(b"#!") || content.starts_with(b"\x7fELF") { 0o755 } else { 0o644 };
        self.entry(path, EntryType::Regular, content, "", mode)
    }

    pub fn directory(self, path: &str) -> Self {
        self.entry(&format!("{path}/"), EntryType::Directory, Vec::new(), "", 0o755)
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, EntryType::Symlink, Vec::new(), target, 0o777)
    }

    /// Adds a file without its parent directories.
    pub fn entry_only(mut self, path: &str, content: &str) -> Self {
        let name = format!("{}{}", self.prefix, path.trim_start_matches('/'));
        let (kind, target) = (EntryType::Regular, String::new());
        self.data.push(Entry { name, kind, content: content.into(), target, mode: 0o644 });
        self
    }

    pub fn hard_link(self, path: &str, first: &str) -> Self {
        let first = format!("{}{}", self.prefix, first.trim_start_matches('/'));
        self.entry(path, EntryType::Link, Vec::new(), &first, 0o644)
    }

    pub fn fifo(self, path: &str) -> Self {
        self.entry(path, EntryType::Fifo, Vec::new(), "", 0o644)
    }

    pub fn entry(mut self, path: &str, kind: EntryType, content: Vec<u8>, target: &str, mode: u32) -> Self {
        let mut parent = String::new();
        let parts: Vec<_> = path.trim_matches('/').split('/').collect();
        for part in &parts[..parts.len() - 1] {
            parent = format!("{parent}{part}/");
            let name = format!("{}{parent}", self.prefix);
            if !self.data.iter().any(|entry| entry.name == name) {
                self.data.push(Entry {
                    name,
                    kind: EntryType::Directory,
                    content: Vec::new(),
                    target: String::new(),
                    mode: 0o755,
                });
            }
        }
        let name = format!("{}{}", self.prefix, path.trim_start_matches('/'));
        self.data.push(Entry { name, kind, content, target: target.into(), mode });
        self
    }

    pub fn build(&self) -> Vec<u8> {
        let mut control = Builder::new(Vec::new());
        let has_architecture =
            self.control.split(|byte| *byte == b'\n').any(|line| line.starts_with(b"Architecture: "));
        let architecture: &[u8] = if has_architecture { b"" } else { b"Architecture: all\n" };
        let members = [("control".to_owned(), [&self.control, architecture].concat())];
        for (name, content) in members.iter().chain(&self.members) {
            let mut header = header(EntryType::Regular, 0o755);
            header.set_size(content.len() as u64);
            control.append_data(&mut header, format!("./{name}"), content.as_slice()).unwrap();
        }
        let mut data = Vec::new();
        for entry in &self.data {
            let mut header = header(entry.kind, entry.mode);
            header.set_size(entry.content.len() as u64);
            header.as_gnu_mut().unwrap().name[..entry.name.len()].copy_from_slice(entry.name.as_bytes());
            header.set_link_name_literal(&entry.target).unwrap();
            append(&mut data, header, &entry.content);
        }
        data.extend([0; 1024]);
        archive(&control.into_inner().unwrap(), &data)
    }
}

/// A header that is the same on every machine.
pub fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(1_700_000_000);
    header.set_size(0);
    header
}

/// Appends an entry to a tar archive, even if the header is wrong.
pub fn append(tar: &mut Vec<u8>, mut header: Header, content: &[u8]) {
    header.set_cksum();
    tar.extend(header.as_bytes());
    tar.extend(content);
    tar.resize(tar.len().next_multiple_of(512), 0);
}

/// A package made of two tar archives.
pub fn archive(control: &[u8], data: &[u8]) -> Vec<u8> {
    members(&[("debian-binary", b"2.0\n"), ("control.tar", control), ("data.tar", data)])
}

/// An `ar` archive.
pub fn members(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut deb = b"!<arch>\n".to_vec();
    for (name, content) in members {
        writeln!(deb, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, 100_644, content.len()).unwrap();
        deb.extend(*content);
        if content.len() % 2 == 1 {
            deb.push(b'\n');
        }
    }
    deb
}
