//! What each state does by default, and that a module may override any of them.

use std::fs;

use anyhow::{bail, ensure};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::*;
use crate::update::Trigger;

/// An update that renames the files `new`, `active` and `previous` of a directory.
#[derive(Serialize, Deserialize)]
struct Renames {
    directory: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Prepared {
    prepared: bool,
}

impl Renames {
    fn rename(&self, from: &str, to: &str) -> Result<()> {
        Ok(fs::rename(self.directory.join(from), self.directory.join(to))?)
    }
}

impl Update for Renames {
    type Prepared = Prepared;

    fn prepare(&mut self) -> Result<Prepared> {
        Ok(Prepared { prepared: true })
    }

    fn activate(&self, _: &Prepared) -> Result<()> {
        ensure!(!self.directory.join("broken").exists(), "activation has to fail");
        self.rename("active", "previous")?;
        self.rename("new", "active")
    }

    fn roll_back(&self, _: &Prepared, _: Trigger) -> Result<()> {
        ensure!(!self.directory.join("stuck").exists(), "rollback has to fail");
        if self.directory.join("previous").exists() { self.rename("previous", "active") } else { Ok(()) }
    }

    fn discard(&self, _: Option<&Prepared>) -> Result<()> {
        ensure!(!self.directory.join("stuck").exists(), "discarding has to fail");
        ["new", "previous"].into_iter().try_for_each(|name| durable::remove_file(&self.directory.join(name)))
    }

    fn needs_reboot(&self, _: &Prepared) -> Result<NeedsReboot> {
        Ok(NeedsReboot::Automatic)
    }

    fn conflicts_with(&self, _: &Self) -> bool {
        true
    }

    fn ended(&self, prepared: Option<&Prepared>) {
        fs::write(self.directory.join("ended"), format!("{:?}", prepared.is_some())).unwrap();
    }
}

/// A module with the defaults.
struct Defaults;

impl Transactional for Defaults {
    const NAME: &'static str = "test-of-the-defaults";
    const VERSION: &'static str = "1.2";
    type Update = Renames;

    fn plan(&self, tree: &WorkTree, _: &mut Payloads) -> Result<Renames> {
        Ok(Renames { directory: tree.datastore().to_owned() })
    }

    fn stage(&self, update: &mut Renames, _: &mut Payloads) -> Result<()> {
        Ok(fs::write(update.directory.join("new"), "2")?)
    }

    fn booted(&self, tree: &WorkTree) -> Result<()> {
        fs::write(tree.datastore().join("booted"), "")?;
        ensure!(!tree.datastore().join("stuck").exists(), "the start has to fail");
        Ok(())
    }
}

/// A device with version 1.
struct Device {
    directory: TempDir,
    tree: WorkTree,
}

/// The module as the client sees it.
const MODULE: InTransactions<Defaults> = InTransactions(Defaults);

impl Device {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("tree/tmp")).unwrap();
        fs::write(directory.path().join("active"), "1").unwrap();
        let tree = WorkTree::new(directory.path().join("tree"));
        Self { directory, tree }
    }

    /// A device with version 2 in the phase before the commit.
    fn installed() -> Self {
        let device = Self::new();
        device.download().unwrap();
        MODULE.artifact_install(&device.tree).unwrap();
        assert_eq!(device.active(), "2");
        device
    }

    fn download(&self) -> Result<()> {
        MODULE.download(&self.tree, Payloads::without_sizes(self.tree.path()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn active(&self) -> String {
        fs::read_to_string(self.path("active")).unwrap()
    }

    fn phase(&self) -> Option<String> {
        MODULE.pending(&self.tree).unwrap().map(|pending| pending.phase)
    }

    /// Calls Cleanup, after which the update must have ended.
    fn clean_up(&self) {
        MODULE.cleanup(&self.tree).unwrap();
        assert_eq!(self.phase(), None);
        assert!(!self.path("new").exists() && !self.path("previous").exists());
        assert_eq!(fs::read_to_string(self.path("ended")).unwrap(), "true");
    }
}

#[test]
fn an_update_goes_through_its_phases() {
    let device = Device::new();
    let tree = &device.tree;
    assert!(MODULE.provides_payload_file_sizes(tree).unwrap() && MODULE.supports_rollback(tree).unwrap());
    assert_eq!(device.phase(), None);
    device.download().unwrap();
    assert_eq!((device.phase().as_deref(), device.active().as_str()), (Some("Staged"), "1"));
    MODULE.artifact_install(tree).unwrap();
    assert_eq!((device.phase().as_deref(), device.active().as_str()), (Some("Active"), "2"));
    assert_eq!(MODULE.needs_artifact_reboot(tree).unwrap(), NeedsReboot::Automatic);
    MODULE.artifact_commit(tree).unwrap();
    assert_eq!(device.phase().as_deref(), Some("Committed"));
    device.clean_up();
    assert_eq!(device.active(), "2");
}

#[test]
fn a_commit_that_is_repeated_after_cleanup_succeeds_only_after_a_commit() {
    let device = Device::installed();
    MODULE.artifact_commit(&device.tree).unwrap();
    device.clean_up();
    MODULE.artifact_commit(&device.tree).unwrap();
    // A file of an earlier update says nothing about the next one.
    device.download().unwrap();
    assert!(MODULE.artifact_commit(&device.tree).is_err());
    MODULE.artifact_install(&device.tree).unwrap();
    MODULE.artifact_commit(&device.tree).unwrap();
    assert_eq!(device.phase().as_deref(), Some("Committed"));

    let device = Device::installed();
    MODULE.artifact_rollback(&device.tree).unwrap();
    device.clean_up();
    assert!(MODULE.artifact_commit(&device.tree).is_err());
    assert_eq!(device.active(), "1");
}

#[test]
fn a_rollback_and_a_failure_activate_the_previous_version() {
    let device = Device::installed();
    MODULE.artifact_rollback(&device.tree).unwrap();
    assert_eq!((device.phase().as_deref(), device.active().as_str()), (Some("RolledBack"), "1"));
    device.clean_up();

    let device = Device::installed();
    fs::write(device.path("stuck"), "").unwrap();
    assert!(MODULE.artifact_rollback(&device.tree).is_err());
    MODULE.artifact_failure(&device.tree).unwrap();
    assert_eq!(device.active(), "2", "the failure is only logged");
    fs::remove_file(device.path("stuck")).unwrap();
    MODULE.artifact_failure(&device.tree).unwrap();
    assert_eq!(device.active(), "1");
    device.clean_up();
}

#[test]
fn a_boot_rolls_back_an_interrupted_install_and_calls_the_module_in_any_case() {
    let device = Device::new();
    device.download().unwrap();
    fs::write(device.path("broken"), "").unwrap();
    fs::write(device.path("stuck"), "").unwrap();
    assert!(MODULE.artifact_install(&device.tree).is_err());
    let error = format!("{:#}", MODULE.recover(&device.tree).unwrap_err());
    assert!(error.contains("rollback has to fail"), "{error}");
    assert!(device.path("booted").exists(), "the active version has to start");
    fs::remove_file(device.path("stuck")).unwrap();
    MODULE.recover(&device.tree).unwrap();
    assert_eq!((device.phase().as_deref(), device.active().as_str()), (Some("RolledBack"), "1"));
    // Without an update, too.
    fs::write(device.path("stuck"), "").unwrap();
    let error = format!("{:#}", MODULE.recover(&device.tree).unwrap_err());
    assert_eq!(error, "the start has to fail");
}

#[test]
fn a_cleanup_that_fails_is_only_logged_and_the_next_download_repeats_it() {
    let device = Device::installed();
    MODULE.artifact_commit(&device.tree).unwrap();
    fs::write(device.path("stuck"), "").unwrap();
    MODULE.cleanup(&device.tree).unwrap();
    assert!(device.path("previous").exists());
    fs::remove_file(device.path("stuck")).unwrap();
    device.download().unwrap();
    assert!(!device.path("previous").exists());
    assert_eq!(device.phase().as_deref(), Some("Staged"));
}

#[test]
fn a_module_without_settings_refuses_any() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("settings.toml");
    fs::write(&file, "").unwrap();
    MODULE.check_settings(&file).unwrap();
    fs::write(&file, "color = 1").unwrap();
    let error = format!("{:#}", MODULE.check_settings(&file).unwrap_err());
    assert!(error.contains("settings.toml") && error.contains("color"), "{error}");
}

/// A module that overrides everything: each method fails with its name.
struct Overriding;

impl Transactional for Overriding {
    const NAME: &'static str = "test-of-overrides";
    const VERSION: &'static str = "1.2";
    type Update = Renames;

    fn plan(&self, _: &WorkTree, _: &mut Payloads) -> Result<Renames> {
        bail!("plan")
    }

    fn stage(&self, _: &mut Renames, _: &mut Payloads) -> Result<()> {
        bail!("stage")
    }

    fn check_settings(&self, _: &Path) -> Result<()> {
        bail!("check_settings")
    }

    fn provides_payload_file_sizes(&self, _: &WorkTree) -> Result<bool> {
        bail!("provides_payload_file_sizes")
    }

    fn download(&self, _: &WorkTree, _: Payloads) -> Result<()> {
        bail!("download")
    }

    fn artifact_install(&self, _: &WorkTree) -> Result<()> {
        bail!("artifact_install")
    }

    fn needs_artifact_reboot(&self, _: &WorkTree) -> Result<NeedsReboot> {
        bail!("needs_artifact_reboot")
    }

    fn artifact_reboot(&self, _: &WorkTree) -> Result<()> {
        bail!("artifact_reboot")
    }

    fn artifact_verify_reboot(&self, _: &WorkTree) -> Result<()> {
        bail!("artifact_verify_reboot")
    }

    fn artifact_commit(&self, _: &WorkTree) -> Result<()> {
        bail!("artifact_commit")
    }

    fn supports_rollback(&self, _: &WorkTree) -> Result<bool> {
        bail!("supports_rollback")
    }

    fn artifact_rollback(&self, _: &WorkTree) -> Result<()> {
        bail!("artifact_rollback")
    }

    fn artifact_rollback_reboot(&self, _: &WorkTree) -> Result<()> {
        bail!("artifact_rollback_reboot")
    }

    fn artifact_verify_rollback_reboot(&self, _: &WorkTree) -> Result<()> {
        bail!("artifact_verify_rollback_reboot")
    }

    fn artifact_failure(&self, _: &WorkTree) -> Result<()> {
        bail!("artifact_failure")
    }

    fn cleanup(&self, _: &WorkTree) -> Result<()> {
        bail!("cleanup")
    }

    fn recover(&self, _: &WorkTree) -> Result<()> {
        bail!("recover")
    }
}

#[test]
fn a_module_may_override_every_state() {
    let tree = WorkTree::new("/nowhere/tree");
    let module = InTransactions(Overriding);
    let results = [
        (module.check_settings(Path::new("/nowhere")), "check_settings"),
        (module.provides_payload_file_sizes(&tree).map(drop), "provides_payload_file_sizes"),
        (module.download(&tree, Payloads::without_sizes(tree.path())), "download"),
        (module.artifact_install(&tree), "artifact_install"),
        (module.needs_artifact_reboot(&tree).map(drop), "needs_artifact_reboot"),
        (module.artifact_reboot(&tree), "artifact_reboot"),
        (module.artifact_verify_reboot(&tree), "artifact_verify_reboot"),
        (module.artifact_commit(&tree), "artifact_commit"),
        (module.supports_rollback(&tree).map(drop), "supports_rollback"),
        (module.artifact_rollback(&tree), "artifact_rollback"),
        (module.artifact_rollback_reboot(&tree), "artifact_rollback_reboot"),
        (module.artifact_verify_rollback_reboot(&tree), "artifact_verify_rollback_reboot"),
        (module.artifact_failure(&tree), "artifact_failure"),
        (module.cleanup(&tree), "cleanup"),
        (module.recover(&tree), "recover"),
    ];
    for (result, method) in results {
        assert_eq!(result.unwrap_err().to_string(), method);
    }
}
