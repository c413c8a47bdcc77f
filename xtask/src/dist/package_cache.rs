//! Packages that were built before, in the user's cache directory, by the key of their inputs: another work tree of the
//! same sources does not build them again.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use host::{cache, directory};

use super::record::{self, Files};

/// The time after which an entry is removed: each change of the sources makes about 15 MB of entries.
const AGE: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// The cached packages: a directory for each, with its files and its record.
pub struct PackageCache {
    directory: PathBuf,
}

impl PackageCache {
    /// That of the user.
    pub fn of_user() -> Result<Self> {
        Ok(Self { directory: cache::directory()?.join("packages") })
    }

    /// The directory of the package whose first file is `files[0]`, made of the inputs with this key.
    fn entry(&self, key: &str, files: Files) -> PathBuf {
        let name = files[0].file_name().unwrap_or_default();
        self.directory.join(cache::key([key.as_bytes(), name.as_encoded_bytes()]))
    }

    /// Copies `files` from the cache, and their record to `target`. Returns whether they are there, complete and
    /// unaltered.
    pub fn restore(&self, target: &Path, files: Files, key: &str) -> Result<bool> {
        let _lock = self.lock()?;
        let entry = self.entry(key, files);
        let record = record::path(target, files[0]);
        for path in files.into_iter().chain([record.as_path()]) {
            match fs::copy(entry.join(path.file_name().unwrap_or_default()), path) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
                Err(error) => {
                    return Err(error).with_context(|| format!("copying {} from the cache failed", path.display()));
                }
            }
        }
        let is_unaltered = record::matches(target, files, key);
        if is_unaltered {
            record::mark_restored(target, files[0])?;
        }
        Ok(is_unaltered)
    }

    /// Adds `files` and their record in `target`, and removes old entries.
    pub fn store(&self, target: &Path, files: Files, key: &str) -> Result<()> {
        let _lock = self.lock()?;
        let entry = self.entry(key, files);
        // An entry is complete, or not there.
        let partial = entry.with_extension("partial");
        directory::empty(&partial)?;
        let record = record::path(target, files[0]);
        for path in files.into_iter().chain([record.as_path()]) {
            let copy = partial.join(path.file_name().unwrap_or_default());
            fs::copy(path, copy).with_context(|| format!("copying {} to the cache failed", path.display()))?;
        }
        directory::remove(&entry)?;
        fs::rename(&partial, &entry).with_context(|| format!("renaming {} failed", partial.display()))?;
        self.remove_old(SystemTime::now())
    }

    /// Locks the cache until the value is dropped.
    fn lock(&self) -> Result<File> {
        cache::lock(&self.directory.with_extension("lock"))
    }

    /// Removes the entries that are older than [`AGE`] at the time `now`.
    fn remove_old(&self, now: SystemTime) -> Result<()> {
        let is_old = |path: &Path| {
            let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
            modified.is_ok_and(|modified| now.duration_since(modified).is_ok_and(|age| age > AGE))
        };
        let entries = directory::entries(&self.directory)?;
        entries.iter().filter(|entry| is_old(entry)).try_for_each(|entry| directory::remove(entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dist::record::Content;

    #[test]
    fn unaltered_packages_of_the_same_inputs_are_restored_and_old_ones_removed() {
        let directory = tempfile::tempdir().unwrap();
        let [built, other] = ["built", "other"].map(|name| directory.path().join(name));
        [&built, &other].into_iter().for_each(|path| fs::create_dir(path).unwrap());
        let names = ["a_1_arm64.deb", "a_1_arm64.spdx.json", "a_1_arm64.cdx.json"];
        let [made, restored] = [&built, &other].map(|directory| names.map(|name| directory.join(name)));
        let [made, restored] = [&made, &restored].map(|files| files.each_ref().map(PathBuf::as_path));
        for path in made {
            fs::write(path, format!("content of {}", path.display())).unwrap();
        }
        let cached = PackageCache { directory: directory.path().join("cache") };
        record::write(&built, made, "key", &Content { size: 12, libc: "musl".into() }).unwrap();
        cached.store(&built, made, "key").unwrap();
        cached.store(&built, made, "key").unwrap();
        assert!(!cached.restore(&other, restored, "other key").unwrap());
        assert!(cached.restore(&other, restored, "key").unwrap());
        for (path, original) in restored.iter().zip(made) {
            assert_eq!(fs::read(path).unwrap(), fs::read(original).unwrap());
        }
        assert_eq!(record::content(&other, restored[0]).unwrap().size, 12);
        assert!(record::is_restored(&other, restored[0]) && !record::is_restored(&built, made[0]));
        assert!(record::matches(&other, restored, "key"));
        fs::write(cached.entry("key", made).join(names[2]), "altered").unwrap();
        assert!(!cached.restore(&other, restored, "key").unwrap());
        cached.remove_old(SystemTime::now() + AGE / 2).unwrap();
        assert!(cached.entry("key", made).exists());
        cached.remove_old(SystemTime::now() + AGE * 2).unwrap();
        assert!(!cached.entry("key", made).exists());
        assert!(!cached.restore(&other, restored, "key").unwrap());
    }
}
