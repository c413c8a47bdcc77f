//! The scenarios' helpers for `web-file` and `directory`, which both replace files in a destination directory.

use anyhow::{Context, Result, ensure};

use crate::device::{Device, journal};

/// A destination directory on the device.
pub struct Destination {
    /// The module that updates it.
    pub module: &'static str,
    /// Its path.
    pub path: &'static str,
    /// The staging directory beside it.
    pub staging: &'static str,
    /// The options of `find` for the files that an artifact replaces.
    pub find: &'static str,
    /// A format of `stat` for an installed file, and the expected output.
    pub stat: (&'static str, &'static str),
}

impl Destination {
    /// Starts the device with the package, and makes a previous version whose owners, modes, times and attributes are
    /// not the default ones. Runs `commands` in the destination in addition. Returns the contents of the destination.
    pub fn with_previous_version(&self, device: &mut Device, commands: &str) -> Result<String> {
        let path = self.path;
        device.power_on_with_package(self.module)?;
        device.ok(&format!(
            "mkdir -p '{path}/uploads' && cd '{path}' && echo old > index.html && echo gone > gone.html \
             && echo me > uploads/photo && {commands} && chown 33:33 gone.html \
             && setfattr -n user.origin -v factory index.html \
             && touch -d 2001-02-03T04:05:06.789 index.html gone.html uploads . && sync"
        ))?;
        device.contents(path)
    }

    /// Fails unless `files` are the version in the destination: all of them, and no others.
    pub fn is_active(&self, device: &Device, files: &[(&str, &str)]) -> Result<()> {
        let (path, (format, attributes)) = (self.path, self.stat);
        let names = device.ok(&format!("cd '{path}' && find . {} -type f | sort", self.find))?;
        let mut expected: Vec<_> = files.iter().map(|(name, _)| format!("./{name}")).collect();
        expected.sort();
        ensure!(names.lines().eq(expected.iter()), "unexpected files in {path}: {names:?} instead of {expected:?}");
        for (name, content) in files {
            let found = device.ok(&format!("stat -c '{format}' '{path}/{name}' && cat '{path}/{name}'"))?;
            ensure!(found == format!("{attributes}\n{content}"), "unexpected file {path}/{name}: {found:?}");
        }
        Ok(())
    }

    /// Fails unless the contents of the destination are the same as `before`.
    pub fn is_unchanged(&self, device: &Device, before: &str) -> Result<()> {
        device.is_unchanged(self.path, before)
    }

    /// Fails if an update has left files behind.
    pub fn is_clean(&self, device: &Device) -> Result<()> {
        device.is_clean(self.module, &[self.staging])
    }

    /// Installs and commits `artifact`, whose files must be active afterwards.
    pub fn update(&self, device: &Device, artifact: &str, files: &[(&str, &str)]) -> Result<()> {
        device.install_and_commit(artifact)?;
        self.is_active(device, files)?;
        self.is_clean(device)
    }

    /// Installs `artifact` and rolls back. Its files must be active in between, and the contents of the destination
    /// must be the same as `before` afterwards.
    pub fn roll_back(&self, device: &Device, artifact: &str, files: &[(&str, &str)], before: &str) -> Result<()> {
        device.install(artifact)?;
        self.is_active(device, files)?;
        device.client("rollback", 0)?;
        self.is_unchanged(device, before)
    }

    /// Makes the device lose power. After the boot the contents of the destination must be the same as `before`.
    pub fn survives_power_loss(&self, device: &mut Device, before: &str) -> Result<()> {
        device.reboot_by_power_loss()?;
        self.is_unchanged(device, before).context("after the boot")
    }

    /// Installs `artifact` and makes the device lose power in ArtifactCommit. The new version must be active after the
    /// boot, and the commit can be repeated.
    pub fn power_loss_in_commit(&self, device: &mut Device, artifact: &str, files: &[(&str, &str)]) -> Result<()> {
        device.install(artifact)?;
        let journal = journal(self.module);
        let condition = format!("test -e {journal}.new && grep -q Committed {journal}.new");
        device.start_client_delayed("commit", "renameat2", 1, &condition)?;
        device.reboot_by_power_loss()?;
        self.is_active(device, files).context("after the boot")?;
        device.client("commit", 0)?;
        self.is_active(device, files)?;
        self.is_clean(device)
    }
}

/// The contents of text files, for [`Device::artifact`].
pub fn bytes<'a>(files: &[(&'a str, &str)]) -> Vec<(&'a str, Vec<u8>)> {
    files.iter().map(|(name, content)| (*name, content.as_bytes().to_vec())).collect()
}
