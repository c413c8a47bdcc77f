//! One entry of a tar archive: its path, its type and its attributes.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use mender_update_module::durable::{Attributes, Node, PATH_MAX};
use mender_update_module::{Accounts, FileName};
use tar::{EntryType, Header};

use super::acl;
use super::pax::Records;
use super::sparse::Part;
use crate::settings::UnknownXattrs;

/// A path in the tree, split into names. Empty for the top of the tree.
pub type Names = Vec<FileName>;

/// One entry.
pub struct Entry {
    /// The path as in the archive, for messages.
    pub shown: String,
    /// The path.
    pub names: Names,
    /// The type and content.
    pub content: Content,
    owner: Account,
    group: Account,
    mode: u32,
    modified: (i64, i64),
    extended: Vec<(OsString, Vec<u8>)>,
    acls: Vec<(&'static str, String)>,
}

/// The type of an entry, with its content.
pub enum Content {
    /// A directory.
    Directory,
    /// A file: its size in bytes, and the parts that the archive contains.
    File(u64, Vec<Part>),
    /// A hard link to the file at this path.
    HardLink(Names),
    /// A symlink with this target.
    Symlink(PathBuf),
    /// A FIFO or device file.
    Node(Node),
}

/// An owner or group: by name if the device has it, otherwise by number, as tar does.
struct Account {
    name: Option<String>,
    number: u32,
}

impl Entry {
    /// The entry of `header` and the extended `records`.
    ///
    /// # Errors
    /// When the path leads out of the tree, the type is unknown, or a field is invalid.
    pub fn new(
        header: &Header,
        records: &Records,
        path: Vec<u8>,
        link: Vec<u8>,
        size: u64,
        parts: Vec<Part>,
    ) -> Result<Self> {
        let extended_path = records.get("GNU.sparse.name").or_else(|| records.get("path"));
        let path = extended_path.map_or(path, <[u8]>::to_vec);
        let link = records.get("linkpath").map_or(link, <[u8]>::to_vec);
        let shown = format!("{:?}", OsStr::from_bytes(&path));
        let entry = || -> Result<Self> {
            Ok(Self {
                shown: shown.clone(),
                names: names(&path)?,
                content: content(header, link, size, parts)?,
                owner: account(records, "uname", "uid", header.username_bytes(), header.uid())?,
                group: account(records, "gname", "gid", header.groupname_bytes(), header.gid())?,
                mode: header.mode().context("invalid mode")? & 0o7777,
                modified: modified(header, records)?,
                extended: extended(records),
                acls: acls(records)?,
            })
        };
        entry().with_context(|| format!("invalid archive: entry {shown}"))
    }

    /// Refuses extended attributes in a namespace that Linux does not have.
    ///
    /// # Errors
    /// The name of the attribute, and the remedy.
    pub fn refuse_unknown_xattrs(&self) -> Result<()> {
        if let Some((name, _)) = self.extended.iter().find(|(name, _)| !is_known(name)) {
            bail!(
                "extended attribute {name:?}: Linux has no such namespace: make the archive with tar's --no-xattrs, or \
                 set unknown_xattrs = \"ignore\" in /etc/mender-modules/directory.toml"
            );
        }
        Ok(())
    }

    /// The attributes, for a device with `accounts`.
    ///
    /// # Errors
    /// When an ACL is invalid or names an unknown account.
    pub fn attributes(&self, accounts: &Accounts, unknown_xattrs: UnknownXattrs) -> Result<Attributes> {
        let number = |account: &Account, look_up: fn(&Accounts, &str) -> Option<u32>| {
            account.name.as_ref().and_then(|name| look_up(accounts, name)).unwrap_or(account.number)
        };
        let mut extended = self.extended.clone();
        match unknown_xattrs {
            UnknownXattrs::Ignore => extended.retain(|(name, _)| is_known(name)),
            UnknownXattrs::Refuse => self.refuse_unknown_xattrs()?,
        }
        for (attribute, text) in &self.acls {
            extended.push((attribute.into(), acl::encode(text, accounts)?));
        }
        Ok(Attributes {
            owner: number(&self.owner, Accounts::user),
            group: number(&self.group, Accounts::group),
            mode: self.mode,
            modified: self.modified,
            extended,
        })
    }
}

/// Whether Linux has the namespace of the extended attribute `name` (xattr(7)). Of `system`, archives contain only
/// ACLs.
fn is_known(name: &OsStr) -> bool {
    let known = ["user.", "security.", "trusted.", "system.posix_acl_"];
    known.iter().any(|namespace| name.as_bytes().starts_with(namespace.as_bytes()))
}

/// Splits a path, and refuses one that leads out of the tree.
fn names(path: &[u8]) -> Result<Names> {
    ensure!(path.len() <= PATH_MAX, "path of {} bytes: the limit of Linux is {PATH_MAX}", path.len());
    if path.first() == Some(&b'/') {
        bail!("absolute path: make the archive with 'tar --create --directory DIRECTORY .'");
    }
    let mut names = Vec::new();
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => bail!("path {:?} leads out of the tree", OsStr::from_bytes(path)),
            name => names.push(FileName::new(OsStr::from_bytes(name))?),
        }
    }
    Ok(names)
}

fn content(header: &Header, link: Vec<u8>, size: u64, parts: Vec<Part>) -> Result<Content> {
    let device = || -> Result<(u32, u32)> {
        let numbers = (header.device_major()?, header.device_minor()?);
        numbers.0.zip(numbers.1).context("device file without device numbers")
    };
    Ok(match header.entry_type() {
        // In the oldest format, a slash at the end marks a directory.
        EntryType::Regular if header.path_bytes().ends_with(b"/") => Content::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Content::File(size, parts),
        EntryType::Directory => Content::Directory,
        // A directory with a list of its names, from GNU tar's --incremental.
        other if other.as_byte() == b'D' => Content::Directory,
        EntryType::Link => Content::HardLink(names(&link).context("hard link target")?),
        EntryType::Symlink => Content::Symlink(OsString::from_vec(link).into()),
        EntryType::Fifo => Content::Node(Node::Fifo),
        EntryType::Char => device().map(|(major, minor)| Content::Node(Node::Character { major, minor }))?,
        EntryType::Block => device().map(|(major, minor)| Content::Node(Node::Block { major, minor }))?,
        other => bail!("unknown type {:?}", char::from(other.as_byte())),
    })
}

fn account(
    records: &Records,
    name_key: &str,
    number_key: &str,
    name: Option<&[u8]>,
    number: std::io::Result<u64>,
) -> Result<Account> {
    let name = records.get(name_key).or(name).filter(|name| !name.is_empty());
    let number = records.number(number_key)?.map_or(number, Ok).context("invalid owner or group")?;
    let number: u32 = number.try_into().context("invalid owner or group: number too large")?;
    // To the kernel, this number means "unchanged": the file would belong to root.
    ensure!(number != u32::MAX, "invalid owner or group: {number}");
    Ok(Account { name: name.map(|name| String::from_utf8_lossy(name).into_owned()), number })
}

fn modified(header: &Header, records: &Records) -> Result<(i64, i64)> {
    match records.text("mtime")? {
        Some(text) => time(text).with_context(|| format!("invalid modification time {text:?}")),
        None => {
            let seconds = header.mtime().context("invalid modification time")?;
            // For times before 1970, GNU tar writes a negative binary number.
            Ok((seconds as i64, 0))
        }
    }
}

/// Seconds and nanoseconds of `text`, a decimal number that may be negative and have a fraction.
fn time(text: &str) -> Result<(i64, i64)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: i64 = digits.parse::<u32>()?.into();
    Ok(match (whole.starts_with('-'), nanoseconds) {
        (true, 1..) => (seconds.checked_sub(1).context("too long ago")?, 1_000_000_000 - nanoseconds),
        _ => (seconds, nanoseconds),
    })
}

/// The extended attributes, as GNU tar, star and bsdtar write them.
fn extended(records: &Records) -> Vec<(OsString, Vec<u8>)> {
    let selinux = records.get("RHT.security.selinux").map(|value| ("security.selinux", value));
    let all = records.with_prefix("SCHILY.xattr.").chain(selinux);
    all.map(|(name, value)| (name.into(), value.to_vec())).collect()
}

fn acls(records: &Records) -> Result<Vec<(&'static str, String)>> {
    let known = [("SCHILY.acl.access", "system.posix_acl_access"), ("SCHILY.acl.default", "system.posix_acl_default")];
    let mut acls = Vec::new();
    for (key, attribute) in known {
        if let Some(text) = records.text(key)?.filter(|text| !text.is_empty()) {
            acls.push((attribute, text.to_owned()));
        }
    }
    Ok(acls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_the_tree_are_refused() {
        for inside in ["./", ".", "", "a", "./a/b/", "a//b", "a/./b", "..a/b.."] {
            names(inside.as_bytes()).unwrap();
        }
        for outside in ["/", "/etc/passwd", "..", "../x", "a/../../x", "a/..", "./../x"] {
            assert!(names(outside.as_bytes()).is_err(), "{outside} was accepted");
        }
    }

    #[test]
    fn modification_times_are_exact() {
        assert_eq!(time("1234567890.987654321").unwrap(), (1_234_567_890, 987_654_321));
        assert_eq!(time("5.5").unwrap(), (5, 500_000_000));
        assert_eq!(time("-1.25").unwrap(), (-2, 750_000_000));
        assert_eq!(time("-3").unwrap(), (-3, 0));
        for bad in ["", "x", "1.x", "1e3"] {
            assert!(time(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
