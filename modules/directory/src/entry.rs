//! One entry of a tar archive: where it belongs in the tree, and what it is.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use mender_update_module::durable::{Attributes, Node};
use mender_update_module::{Accounts, FileName};
use tar::{EntryType, Header};

use crate::acl;
use crate::pax::Records;
use crate::settings::UnknownXattrs;
use crate::sparse::Part;

/// The longest path that Linux takes, in bytes.
const PATH_MAX: usize = 4096;

/// An entry's place in the tree: the names of the directories that lead to it, and its own. Empty for the tree itself.
pub type Names = Vec<FileName>;

/// One entry.
pub struct Entry {
    /// Its path as the archive has it: for errors.
    pub shown: String,
    /// Its place.
    pub names: Names,
    /// What it is.
    pub kind: Kind,
    owner: Account,
    group: Account,
    mode: u32,
    modified: (i64, i64),
    extended: Vec<(OsString, Vec<u8>)>,
    acls: Vec<(&'static str, String)>,
}

/// What an entry is.
pub enum Kind {
    /// A directory.
    Directory,
    /// A file: its size in bytes, and the parts of it that the archive has.
    File(u64, Vec<Part>),
    /// Another name of the file at this place.
    HardLink(Names),
    /// A symlink to anything.
    Symlink(PathBuf),
    /// A FIFO or device file.
    Node(Node),
}

/// An owner or group: by name where the device knows it, else by number, as tar does it.
struct Account {
    name: Option<String>,
    number: u32,
}

impl Entry {
    /// The entry that `header` and the extended `records` tell of.
    ///
    /// # Errors
    /// When its path leads out of the tree, its kind is unknown, or a field is malformed.
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
                kind: kind(header, link, size, parts)?,
                owner: account(records, "uname", "uid", header.username_bytes(), header.uid())?,
                group: account(records, "gname", "gid", header.groupname_bytes(), header.gid())?,
                mode: header.mode().context("its mode is malformed")? & 0o7777,
                modified: modified(header, records)?,
                extended: extended(records),
                acls: acls(records)?,
            })
        };
        entry().with_context(|| format!("the entry {shown}"))
    }

    /// Its attributes on a device with `accounts`.
    ///
    /// # Errors
    /// When an ACL is malformed or names somebody unknown.
    pub fn attributes(&self, accounts: &Accounts, unknown_xattrs: UnknownXattrs) -> Result<Attributes> {
        let number = |account: &Account, look_up: fn(&Accounts, &str) -> Option<u32>| {
            account.name.as_ref().and_then(|name| look_up(accounts, name)).unwrap_or(account.number)
        };
        let mut extended = self.extended.clone();
        match unknown_xattrs {
            UnknownXattrs::Ignore => extended.retain(|(name, _)| is_known(name)),
            UnknownXattrs::Refuse => {
                if let Some((name, _)) = extended.iter().find(|(name, _)| !is_known(name)) {
                    bail!(
                        "Linux has no namespace for the extended attribute {name:?}: make the archive without it (with tar: \
                         --no-xattrs), or set unknown_xattrs = \"ignore\" in /etc/mender-modules/directory.toml"
                    );
                }
            }
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

/// Whether Linux has the namespace of the extended attribute `name` (xattr(7)); ACLs are the ones of `system` that tar
/// archives have.
fn is_known(name: &OsStr) -> bool {
    let known = ["user.", "security.", "trusted.", "system.posix_acl_"];
    known.iter().any(|namespace| name.as_bytes().starts_with(namespace.as_bytes()))
}

/// Takes a path apart, and refuses one that leads out of the tree.
fn names(path: &[u8]) -> Result<Names> {
    ensure!(
        path.len() <= PATH_MAX,
        "its path has {} bytes, more than the {PATH_MAX} that Linux takes",
        path.len()
    );
    if path.first() == Some(&b'/') {
        bail!("it has an absolute path: make the archive with 'tar --create --directory DIRECTORY .'");
    }
    let mut names = Vec::new();
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => bail!("its path {:?} leads out of the tree", OsStr::from_bytes(path)),
            name => names.push(FileName::new(OsStr::from_bytes(name))?),
        }
    }
    Ok(names)
}

fn kind(header: &Header, link: Vec<u8>, size: u64, parts: Vec<Part>) -> Result<Kind> {
    let device = || -> Result<(u32, u32)> {
        let numbers = (header.device_major()?, header.device_minor()?);
        numbers.0.zip(numbers.1).context("a device file has no numbers")
    };
    Ok(match header.entry_type() {
        // The oldest form of archive knows directories by the slash at their end.
        EntryType::Regular if header.path_bytes().ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File(size, parts),
        EntryType::Directory => Kind::Directory,
        // A directory with a list of its names, of GNU tar's --incremental.
        other if other.as_byte() == b'D' => Kind::Directory,
        EntryType::Link => Kind::HardLink(names(&link).context("the file that it is another name of")?),
        EntryType::Symlink => Kind::Symlink(OsString::from_vec(link).into()),
        EntryType::Fifo => Kind::Node(Node::Fifo),
        EntryType::Char => device().map(|(major, minor)| Kind::Node(Node::Character { major, minor }))?,
        EntryType::Block => device().map(|(major, minor)| Kind::Node(Node::Block { major, minor }))?,
        other => bail!("it is of a kind that is not known here, {:?}", char::from(other.as_byte())),
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
    let number = records.number(number_key)?.map_or(number, Ok).context("its owner or group is malformed")?;
    let number: u32 = number.try_into().context("its owner's or group's number is too large")?;
    // It means "as it is" to the kernel: the file would be root's.
    ensure!(number != u32::MAX, "its owner's or group's number {number} is no account");
    Ok(Account { name: name.map(|name| String::from_utf8_lossy(name).into_owned()), number })
}

fn modified(header: &Header, records: &Records) -> Result<(i64, i64)> {
    match records.text("mtime")? {
        Some(text) => {
            moment(text).with_context(|| format!("its time of modification, {text:?}, is malformed"))
        }
        None => {
            let seconds = header.mtime().context("its time of modification is malformed")?;
            // Before 1970, GNU tar writes a negative number in binary.
            Ok((seconds as i64, 0))
        }
    }
}

/// Seconds and nanoseconds of `text`, a decimal number that may be negative and have a fraction.
fn moment(text: &str) -> Result<(i64, i64)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: i64 = digits.parse::<u32>()?.into();
    Ok(match (whole.starts_with('-'), nanoseconds) {
        (true, 1..) => (seconds.checked_sub(1).context("it is too long ago")?, 1_000_000_000 - nanoseconds),
        _ => (seconds, nanoseconds),
    })
}

/// Extended attributes, as GNU tar, star and bsdtar write them.
fn extended(records: &Records) -> Vec<(OsString, Vec<u8>)> {
    let selinux = records.get("RHT.security.selinux").map(|value| ("security.selinux", value));
    let all = records.with_prefix("SCHILY.xattr.").chain(selinux);
    all.map(|(name, value)| (name.into(), value.to_vec())).collect()
}

fn acls(records: &Records) -> Result<Vec<(&'static str, String)>> {
    let known = [
        ("SCHILY.acl.access", "system.posix_acl_access"),
        ("SCHILY.acl.default", "system.posix_acl_default"),
    ];
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
            assert!(names(outside.as_bytes()).is_err(), "{outside} was taken");
        }
    }

    #[test]
    fn moments_are_exact() {
        assert_eq!(moment("1234567890.987654321").unwrap(), (1_234_567_890, 987_654_321));
        assert_eq!(moment("5.5").unwrap(), (5, 500_000_000));
        assert_eq!(moment("-1.25").unwrap(), (-2, 750_000_000));
        assert_eq!(moment("-3").unwrap(), (-3, 0));
        for bad in ["", "x", "1.x", "1e3"] {
            assert!(moment(bad).is_err(), "{bad:?} was taken");
        }
    }
}
