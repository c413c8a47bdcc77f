//! What is in a package, read within limits before dpkg or apt may read it.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use tar::EntryType;

use crate::archive::{self, Of};
use crate::control::Stanza;
use crate::dpkg;

/// The most bytes that a package's control archive may have when it is unpacked. Debian's largest have some MiB of checksums.
const CONTROL_LIMIT: u64 = 32 << 20;

/// The most bytes of a package's description and of its list of configuration files, which are kept in memory. Debian's
/// largest have some 20 KiB.
const TEXT_LIMIT: u64 = 128 << 10;

/// The most bytes of a `preinst`, which is read into memory.
const SCRIPT_LIMIT: u64 = 1 << 20;

/// The longest name of a file: dpkg appends `.dpkg-new` while it installs it.
const FILE_NAME_LIMIT: usize = 255 - ".dpkg-new".len();

/// The most bytes of the names of files, for each file that is accepted.
const NAME_BYTES: usize = 100;

/// What the control archive of a package says.
pub struct Control {
    pub description: Stanza,
    /// The configuration files.
    pub conffiles: Vec<PathBuf>,
    /// Whether its `preinst` has to do with diversions: a file of another package need not be in the way then.
    pub diverts: bool,
}

/// What is at one path of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Directory,
    File,
    Symlink,
    HardLink,
    Node,
}

/// One path of a package.
#[derive(Clone, Debug)]
pub struct Item {
    pub path: PathBuf,
    pub kind: Kind,
}

/// Reads the control archive of the package `deb`.
///
/// # Errors
/// When it is damaged, exceeds a limit, or has no description.
pub fn control(deb: &Path) -> Result<Control> {
    let (mut description, mut conffiles, mut preinst) = (None, Vec::new(), Vec::new());
    each_member(deb, |name, size, content| {
        let (into, limit) = match name {
            "control" => (description.insert(Vec::new()), TEXT_LIMIT),
            "conffiles" => (&mut conffiles, TEXT_LIMIT),
            "preinst" => (&mut preinst, SCRIPT_LIMIT),
            _ => return Ok(()),
        };
        ensure!(size <= limit, "{name} has {size} bytes: more than {limit} bytes are not accepted");
        into.clear();
        content.read_to_end(into)?;
        Ok(())
    })
    .with_context(|| format!("invalid package {}", deb.display()))?;
    let text = description.with_context(|| format!("invalid package {}: no control file", deb.display()))?;
    let text =
        String::from_utf8(text).with_context(|| format!("invalid package {}: control", deb.display()))?;
    let description = Stanza(text.trim_matches('\n').to_owned());
    ensure!(!description.0.contains("\n\n"), "invalid package {}: two paragraphs in control", deb.display());
    let conffiles = String::from_utf8(conffiles).context("the list of configuration files is not UTF-8")?;
    // A flag may come before the path.
    let paths =
        conffiles.lines().filter_map(|line| line.find('/').map(|at| PathBuf::from(line[at..].trim_end())));
    let diverts = preinst.windows(DIVERT.len()).any(|window| window == DIVERT);
    Ok(Control { description, conffiles: paths.collect(), diverts })
}

const DIVERT: &[u8] = b"dpkg-divert";

/// Hands every file in the control archive of `deb` to `take`: its name, size and content.
///
/// # Errors
/// Those of `take`; when the archive is damaged or exceeds [`CONTROL_LIMIT`].
pub fn each_member(deb: &Path, mut take: impl FnMut(&str, u64, &mut dyn Read) -> Result<()>) -> Result<()> {
    dpkg::look("dpkg-deb").arg("--ctrl-tarfile").arg(deb).stream(|archive| {
        let mut total = 0_u64;
        archive::read(archive.take(2 * CONTROL_LIMIT), Of::Package, |entry| {
            total = total.saturating_add(entry.size).saturating_add(512);
            ensure!(
                total <= CONTROL_LIMIT,
                "its control archive has more than {CONTROL_LIMIT} bytes when it is unpacked, which is not accepted"
            );
            let path = archive::installed_path(&entry.name)?;
            match path.file_name().and_then(|name| name.to_str()) {
                Some(name) if entry.kind == EntryType::Regular => take(name, entry.size, entry.content),
                _ => Ok(()),
            }
        })
    })
}

/// The paths of the package `deb`, at most `files`, and the bytes of all its files, at most `limit`.
///
/// # Errors
/// When it is damaged or exceeds a limit.
pub fn items(deb: &Path, files: usize, limit: u64) -> Result<(Vec<Item>, u64)> {
    let listed = dpkg::look("dpkg-deb").arg("--fsys-tarfile").arg(deb).stream(|archive| {
        let (mut items, mut bytes, mut names) = (Vec::new(), 0_u64, 0);
        archive::read(archive, Of::Package, |entry| {
            bytes = bytes.saturating_add(entry.size);
            names += entry.name.len();
            ensure!(bytes <= limit, "it unpacks to more than the {limit} bytes that are free: free some space");
            ensure!(
                items.len() < files && names <= files.saturating_mul(NAME_BYTES),
                "too many files: of the files and directories in this artifact's packages that are accepted, {files} are left for \
                 it, and {NAME_BYTES} bytes of its names for each: raise max_files"
            );
            let path = archive::installed_path(&entry.name)?;
            ensure!(
                path.file_name().is_none_or(|name| name.len() <= FILE_NAME_LIMIT),
                "dpkg cannot install {}: its name is longer than {FILE_NAME_LIMIT} bytes",
                path.display()
            );
            items.push(Item { path, kind: kind(entry.kind)? });
            Ok(())
        })?;
        Ok((items, bytes))
    });
    listed.with_context(|| format!("invalid package {}", deb.display()))
}

fn kind(of: EntryType) -> Result<Kind> {
    Ok(match of {
        EntryType::Directory => Kind::Directory,
        EntryType::Regular => Kind::File,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Link => Kind::HardLink,
        EntryType::Char | EntryType::Block | EntryType::Fifo => Kind::Node,
        other => bail!("an entry of the type {:?} is not supported", char::from(other.as_byte())),
    })
}
