//! The exchange of two directories: the staged one becomes active, and the previous one is kept in its stead.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::{Dir, parent_and_name};
use crate::name::FileName;

/// The two names of an exchange. Before the activation, the staged name is the new version's; after it, the previous
/// version's.
pub trait ExchangeNames {
    /// The path that is active.
    fn destination(&self) -> PathBuf;

    /// The staged path, on the same mount.
    fn staged(&self) -> PathBuf;

    /// Opens the parent directory of the destination; `None` if it is missing.
    ///
    /// # Errors
    /// When it is another directory than the journal says.
    fn open_parent(&self) -> Result<Option<Dir>>;

    /// Opens the parent directory of the staged path.
    ///
    /// # Errors
    /// When it is missing, or another directory than the journal says.
    fn open_staging(&self) -> Result<Dir>;
}

/// An exchange, as the journal has it. The inode numbers of the two directories tell how far an interrupted exchange
/// went.
///
/// The activation is one `RENAME_EXCHANGE`, or one rename where there is no previous version; the rollback is the same
/// in reverse. Both check that the directories are those of the journal, and are durable on return.
///
/// ```
/// use std::path::PathBuf;
///
/// use mender_update_module::durable::{Dir, DirectoryExchange, ExchangeNames};
///
/// struct Site(PathBuf);
///
/// impl ExchangeNames for Site {
///     fn destination(&self) -> PathBuf {
///         self.0.join("site")
///     }
///
///     fn staged(&self) -> PathBuf {
///         self.0.join("staging/new")
///     }
///
///     fn open_parent(&self) -> anyhow::Result<Option<Dir>> {
///         Dir::open(&self.0).map(Some)
///     }
///
///     fn open_staging(&self) -> anyhow::Result<Dir> {
///         Dir::open(&self.0.join("staging"))
///     }
/// }
///
/// # fn main() -> anyhow::Result<()> {
/// let directory = tempfile::tempdir()?;
/// let site = Site(directory.path().to_owned());
/// std::fs::create_dir_all(site.staged().join("version-2"))?;
/// std::fs::create_dir_all(site.destination().join("version-1"))?;
///
/// let inode = |path: PathBuf| Dir::open(&path)?.inode();
/// let exchange = DirectoryExchange::new(inode(site.staged())?, Some(inode(site.destination())?));
/// exchange.activate(&site)?;
/// assert!(site.destination().join("version-2").exists());
/// exchange.roll_back(&site)?;
/// assert!(site.destination().join("version-1").exists());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Serialize, Deserialize)]
pub struct DirectoryExchange {
    new_inode: u64,
    /// `None` where there is no previous version.
    #[serde(rename = "old_inode")]
    previous_inode: Option<u64>,
}

impl DirectoryExchange {
    /// The exchange of the directories with these inode numbers.
    pub fn new(new_inode: u64, previous_inode: Option<u64>) -> Self {
        Self { new_inode, previous_inode }
    }

    /// Whether there is a previous version.
    pub fn has_previous(&self) -> bool {
        self.previous_inode.is_some()
    }

    /// Whether the new version is at the destination.
    ///
    /// # Errors
    /// When the destination cannot be read.
    pub fn is_active(&self, names: &impl ExchangeNames) -> Result<bool> {
        Ok(found(names)? == Some(self.new_inode))
    }

    /// Activates the new version.
    ///
    /// # Errors
    /// When a rename fails, or the directory at the destination is not the previous version: that one is then put back.
    pub fn activate(&self, names: &impl ExchangeNames) -> Result<()> {
        let opened = Opened::of(names)?;
        if self.has_previous() {
            opened.exchange()?;
            if opened.staged_inode()? != self.previous_inode {
                opened.exchange()?;
                bail!("{} refused: it was replaced during the update: install again", names.destination().display());
            }
        } else {
            opened.move_to_destination()?;
        }
        opened.sync()
    }

    /// Activates the previous version, however far [`activate`](Self::activate) or an earlier rollback went. A previous
    /// version that was removed from the destination after an interrupted call is restored.
    ///
    /// # Errors
    /// When a rename fails, or a directory is neither the new nor the previous version.
    pub fn roll_back(&self, names: &impl ExchangeNames) -> Result<()> {
        let active = found(names)?;
        if active == Some(self.new_inode) {
            self.deactivate(names)?;
        } else if active.is_none() && self.has_previous() {
            self.put_back(names)?;
        } else if active == self.previous_inode {
            sync_names(names)?;
        } else {
            bail!(
                "{}: it was replaced after the activation: move it away, and rename the previous version {} to it",
                names.destination().display(),
                names.staged().display()
            );
        }
        ensure!(found(names)? == self.previous_inode, "{}: not the previous version", names.destination().display());
        Ok(())
    }

    fn deactivate(&self, names: &impl ExchangeNames) -> Result<()> {
        let opened = Opened::of(names)?;
        if self.has_previous() {
            let found = opened.staged_inode()?;
            ensure!(
                found == self.previous_inode,
                "{}: {}: it is not the previous version: put that back, and roll back again",
                names.staged().display(),
                if found.is_some() { "replaced after the activation" } else { "removed after the activation" }
            );
            opened.exchange()?;
        } else {
            opened.move_to_staging()?;
        }
        opened.sync()
    }

    fn put_back(&self, names: &impl ExchangeNames) -> Result<()> {
        let opened = Opened::of(names)?;
        ensure!(
            opened.staged_inode()? == self.previous_inode,
            "{}: missing, and the previous version is not in {}",
            names.destination().display(),
            names.staged().display()
        );
        opened.move_to_destination()?;
        opened.sync()
    }
}

/// Makes the names durable that an interrupted call has left without a sync. The staging directory may be gone, or be
/// another one: then no name in it belongs to this update.
fn sync_names(names: &impl ExchangeNames) -> Result<()> {
    names.open_parent()?.map_or(Ok(()), |parent| parent.sync())?;
    names.open_staging().map_or(Ok(()), |staging| staging.sync())
}

/// The inode number of what has the name of the destination.
fn found(names: &impl ExchangeNames) -> Result<Option<u64>> {
    let destination = names.destination();
    let reading = || format!("reading the destination {} failed", destination.display());
    match names.open_parent().with_context(reading)? {
        Some(parent) => parent.inode_of(&parent_and_name(&destination)?.1),
        None => Ok(None),
    }
}

/// The open parent directories, with the names in them.
struct Opened {
    parent: Dir,
    name: FileName,
    staging: Dir,
    staged_name: FileName,
}

impl Opened {
    fn of(names: &impl ExchangeNames) -> Result<Self> {
        let (destination, staged) = (names.destination(), names.staged());
        let ((directory, name), (_, staged_name)) = (parent_and_name(&destination)?, parent_and_name(&staged)?);
        let parent = names.open_parent()?.with_context(|| format!("{} is missing", directory.display()))?;
        Ok(Self { parent, name, staging: names.open_staging()?, staged_name })
    }

    fn staged_inode(&self) -> Result<Option<u64>> {
        self.staging.inode_of(&self.staged_name)
    }

    fn exchange(&self) -> Result<()> {
        self.staging.exchange(&self.staged_name, &self.parent, &self.name)
    }

    fn move_to_destination(&self) -> Result<()> {
        self.staging.rename_to_free(&self.staged_name, &self.parent, &self.name)
    }

    fn move_to_staging(&self) -> Result<()> {
        self.parent.rename_to_free(&self.name, &self.staging, &self.staged_name)
    }

    fn sync(&self) -> Result<()> {
        self.parent.sync()?;
        self.staging.sync()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Site(tempfile::TempDir);

    impl ExchangeNames for Site {
        fn destination(&self) -> PathBuf {
            self.0.path().join("www/site")
        }

        fn staged(&self) -> PathBuf {
            self.0.path().join("staging/new")
        }

        fn open_parent(&self) -> Result<Option<Dir>> {
            Dir::open(&self.0.path().join("www")).map(Some)
        }

        fn open_staging(&self) -> Result<Dir> {
            Dir::open(&self.0.path().join("staging"))
        }
    }

    impl Site {
        /// A site with a staged version, and a previous one if `has_previous`.
        fn new(has_previous: bool) -> (Self, DirectoryExchange) {
            let site = Self(tempfile::tempdir().unwrap());
            fs::create_dir_all(site.staged().join("version-2")).unwrap();
            fs::create_dir(site.0.path().join("www")).unwrap();
            if has_previous {
                fs::create_dir_all(site.destination().join("version-1")).unwrap();
            }
            let inode = |path: PathBuf| Dir::open(&path).and_then(|directory| directory.inode());
            let previous = has_previous.then(|| inode(site.destination()).unwrap());
            let exchange = DirectoryExchange::new(inode(site.staged()).unwrap(), previous);
            (site, exchange)
        }

        fn has(&self, version: u8) -> bool {
            self.destination().join(format!("version-{version}")).exists()
        }
    }

    /// The names of an update whose parent and staging directory are these.
    struct Unsynced([PathBuf; 2]);

    impl ExchangeNames for Unsynced {
        fn destination(&self) -> PathBuf {
            self.0[0].join("site")
        }

        fn staged(&self) -> PathBuf {
            self.0[1].join("new")
        }

        fn open_parent(&self) -> Result<Option<Dir>> {
            Dir::open(&self.0[0]).map(Some)
        }

        fn open_staging(&self) -> Result<Dir> {
            Dir::open(&self.0[1])
        }
    }

    #[test]
    fn a_directory_that_cannot_be_synced_is_an_error() {
        let temporary = tempfile::tempdir().unwrap();
        // The kernel refuses to sync a directory of this file system.
        let (synced, unsynced) = (temporary.path().to_owned(), PathBuf::from("/proc"));
        for directories in [[synced.clone(), unsynced.clone()], [unsynced, synced.clone()]] {
            let names = Unsynced(directories);
            for done in [sync_names(&names), Opened::of(&names).unwrap().sync()] {
                let error = format!("{:#}", done.unwrap_err());
                assert!(error.contains("syncing the directory /proc failed"), "{error}");
            }
        }
        let names = Unsynced([synced.clone(), synced.clone()]);
        sync_names(&names).and_then(|()| Opened::of(&names)?.sync()).unwrap();
        sync_names(&Unsynced([synced.clone(), synced.join("gone")])).unwrap();
    }

    #[test]
    fn activation_and_rollback_are_repeatable() {
        let (site, exchange) = Site::new(true);
        exchange.roll_back(&site).unwrap();
        exchange.activate(&site).unwrap();
        assert!(site.has(2) && exchange.is_active(&site).unwrap());
        for _ in 0..2 {
            exchange.roll_back(&site).unwrap();
            assert!(site.has(1) && !exchange.is_active(&site).unwrap());
        }
    }

    #[test]
    fn without_a_previous_version_the_rollback_leaves_no_destination() {
        let (site, exchange) = Site::new(false);
        exchange.activate(&site).unwrap();
        assert!(site.has(2));
        for _ in 0..2 {
            exchange.roll_back(&site).unwrap();
            assert!(!site.destination().exists() && site.staged().exists());
        }
    }

    #[test]
    fn a_removed_previous_version_is_put_back() {
        let (site, exchange) = Site::new(true);
        exchange.activate(&site).unwrap();
        fs::remove_dir_all(site.destination()).unwrap();
        exchange.roll_back(&site).unwrap();
        assert!(site.has(1));
    }

    #[test]
    fn a_version_that_is_not_the_previous_one_is_not_put_back() {
        let (site, exchange) = Site::new(true);
        fs::remove_dir_all(site.destination()).unwrap();
        for _ in 0..2 {
            let error = exchange.roll_back(&site).unwrap_err().to_string();
            assert!(error.contains("missing, and the previous version is not in"), "{error}");
            assert!(!site.destination().exists() && site.staged().join("version-2").exists());
        }
    }

    #[test]
    fn a_removed_version_and_a_replaced_one_are_distinguished() {
        let (site, exchange) = Site::new(true);
        exchange.activate(&site).unwrap();
        fs::rename(site.staged(), site.0.path().join("aside")).unwrap();
        let error = exchange.roll_back(&site).unwrap_err().to_string();
        assert!(error.contains("removed after the activation"), "{error}");
        fs::create_dir(site.staged()).unwrap();
        let error = exchange.roll_back(&site).unwrap_err().to_string();
        assert!(error.contains("replaced after the activation"), "{error}");
        assert!(site.has(2));
    }

    #[test]
    fn a_replaced_directory_is_refused_and_left_in_place() {
        let (site, exchange) = Site::new(true);
        fs::rename(site.destination(), site.0.path().join("www/aside")).unwrap();
        fs::create_dir_all(site.destination().join("version-3")).unwrap();
        for error in [exchange.activate(&site), exchange.roll_back(&site)].map(Result::unwrap_err) {
            assert!(format!("{error:#}").contains("was replaced"), "{error:#}");
            assert!(site.has(3));
        }
    }

    #[test]
    fn the_journal_keeps_its_field_names() {
        let exchange: DirectoryExchange = serde_json::from_str(r#"{"new_inode":2,"old_inode":1}"#).unwrap();
        assert_eq!(serde_json::to_string(&exchange).unwrap(), r#"{"new_inode":2,"old_inode":1}"#);
    }
}
