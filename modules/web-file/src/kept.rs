//! The previous files: each has a second name in `kept/` before it loses its first.

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};
use update_module::durable::{Dir, Kind};
use update_module::{FileName, say};

/// How many files an error lists.
const LISTED: usize = 10;

/// How many names are tried for what has to make room.
const NAMES: u32 = 1000;

/// A file of the destination that the activation replaces or removes.
#[derive(Serialize, Deserialize)]
#[serde(from = "Form")]
pub struct Kept {
    /// Its name, in the destination and in `kept/`.
    pub name: FileName,
    /// The number of the file; `None` where the file system has others after a boot.
    inode: Option<u64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Form {
    Whole {
        name: FileName,
        inode: Option<u64>,
    },
    /// A journal of version 0.1.0 had names only.
    Name(FileName),
}

impl From<Form> for Kept {
    fn from(form: Form) -> Self {
        match form {
            Form::Whole { name, inode } => Self { name, inode },
            Form::Name(name) => Self { name, inode: None },
        }
    }
}

impl Kept {
    /// The file `name` of `destination`.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn find(destination: &Dir, name: FileName) -> Result<Self> {
        let inode = if destination.keeps_inodes()? { destination.inode_of(&name)? } else { None };
        Ok(Self { name, inode })
    }

    fn is(&self, inode: Option<u64>) -> bool {
        self.inode.is_none() || self.inode == inode
    }
}

/// Whether `name` is among `keep`, which is sorted.
pub fn is_in(keep: &[Kept], name: &FileName) -> bool {
    keep.binary_search_by(|kept| kept.name.cmp(name)).is_ok()
}

/// Puts back what has its second name in `old`. One that has none was not touched yet, or is back already.
///
/// # Errors
/// When a file cannot be put back, or `old` has another one of its name.
pub fn put_back(keep: &[Kept], old: Option<&Dir>, destination: &Dir) -> Result<()> {
    let Some(old) = old else { return Ok(()) };
    for kept in keep {
        let name = &kept.name;
        if old.kind(name)?.is_none() {
            continue;
        }
        ensure!(
            kept.is(old.inode_of(name)?),
            "{name} in {} is not the file that was kept: somebody has replaced it",
            old.path().display()
        );
        if destination.kind(name)? == Some(Kind::Folder) {
            make_room(destination, name)?;
        }
        old.rename(name, destination, name)?;
    }
    Ok(())
}

/// Gives a directory that somebody has made where a previous file belongs another name.
fn make_room(destination: &Dir, name: &FileName) -> Result<()> {
    for number in 1..=NAMES {
        let mut aside = name.as_ref().as_os_str().to_owned();
        aside.push(format!(".aside-{number}"));
        let Ok(aside) = FileName::new(aside) else { continue };
        if destination.kind(&aside)?.is_none()
            && destination.rename_to_free(name, destination, &aside).is_ok()
        {
            say(format_args!(
                "moved aside: {}: the directory {name} is in the place of a previous file, and is called {aside} now: look \
                 at what is in it, and remove it",
                destination.path().display()
            ));
            return Ok(());
        }
    }
    bail!(
        "the directory {name} in {} is in the place of a previous file, and cannot be renamed: move it away",
        destination.path().display()
    )
}

/// Refuses to call a rollback complete while one of `keep` is not in `destination`. Where nothing had been `activated`, one
/// that is missing was removed by somebody else, before it got its second name.
///
/// # Errors
/// The files that are missing or others than before.
pub fn require_back(keep: &[Kept], destination: &Dir, activated: bool) -> Result<()> {
    let mut wrong = Vec::new();
    for kept in keep {
        match destination.inode_of(&kept.name)? {
            None if activated => wrong.push(format!("{} is missing", kept.name)),
            found if found.is_some() && activated && !kept.is(found) => {
                wrong.push(format!("{} is another file", kept.name));
            }
            _ => {}
        }
    }
    ensure!(
        wrong.is_empty(),
        "rollback incomplete: {}: {} of {} previous files are not back: {}",
        destination.path().display(),
        wrong.len(),
        keep.len(),
        wrong[..wrong.len().min(LISTED)].join(", ")
    );
    Ok(())
}
