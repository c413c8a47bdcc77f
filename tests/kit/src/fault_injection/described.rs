//! Subjects from a payload directory: an update over the previous version, and a first install.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use crate::conformance::Payload;
use crate::fault_injection::{Subject, directory_for_devices};
use crate::{Generation, MockClient, Snapshot};

/// The subjects of the executable `module` with the payload in the directory `payload`.
///
/// # Errors
/// When the payload cannot be read, or is for a Debian system.
pub fn described(module: &Path, payload: &Path) -> Result<Vec<Box<dyn Subject + Send>>> {
    let name = module.file_name().context("the path of the module has no file name")?;
    let name = name.to_string_lossy().into_owned();
    let payload = Arc::new(Payload::read(payload)?);
    ensure!(
        !payload.needs_debian(),
        "the payload of {name} is for a Debian system: implement Subject for it, as tests/crash/src/deb.rs does"
    );
    let subject = |previous| -> Box<dyn Subject + Send> {
        let (name, module, payload) = (name.clone(), module.into(), Arc::clone(&payload));
        Box::new(Described { name, module, payload, previous })
    };
    let kinds = if payload.has_previous() { &[true, false][..] } else { &[false] };
    Ok(kinds.iter().copied().map(subject).collect())
}

struct Described {
    name: String,
    module: Box<Path>,
    payload: Arc<Payload>,
    /// Whether the previous version is on the device before the update.
    previous: bool,
}

impl Subject for Described {
    fn name(&self) -> &'static str {
        if self.previous { "update" } else { "first install" }
    }

    fn device(&self) -> Result<MockClient> {
        let mut device = MockClient::new_in(directory_for_devices(), self.module.to_path_buf(), Generation::V5)?;
        let beside = self.module.parent().unwrap_or(Path::new(""));
        self.payload.set_up(&mut device, &self.name, beside)?;
        if self.previous {
            self.payload.put_previous(&device)?;
        }
        Ok(device)
    }

    /// The whole device, apart from the client's data and the settings, so that any file that a module leaves is found.
    /// Without the times of directories, which the client changes too.
    fn active(&self, device: &MockClient) -> Result<Snapshot> {
        let all = Snapshot::of(device.device())?;
        Ok(all.except(&device.datastore()).except(&device.settings()).without_directory_times())
    }

    /// Without the staging directories of the library, whose names are `.DESTINATION.MODULE`.
    fn visible(&self, device: &MockClient) -> Result<Snapshot> {
        let ending = format!(".{}", self.name);
        let is_staging = |name: &str| name.starts_with('.') && name.ends_with(&ending);
        let staged = |path: &Path| path.iter().any(|name| name.to_str().is_some_and(is_staging));
        Ok(self.active(device)?.without(staged))
    }

    fn require_new(&self, device: &MockClient) -> Result<()> {
        let Some(new) = self.payload.new_contents()? else { return Ok(()) };
        let active = self.active(device)?.below(device.device()).contents();
        let different = active.shown_differences(&new);
        ensure!(different.is_empty(), "the device is not as new/ in the payload directory: {different}");
        Ok(())
    }

    fn payload(&self, device: &MockClient) -> Result<Vec<(String, Vec<u8>)>> {
        let files = self.payload.files(device)?.into_iter();
        let named = files.map(|(name, content)| Some((name.into_string().ok()?, content)));
        named.collect::<Option<_>>().context("a file of the payload has a name that is not UTF-8")
    }

    fn is_clean(&self, device: &MockClient) -> Result<()> {
        let journal = device.datastore().join("update-modules").join(&self.name).join("journal.json");
        ensure!(!journal.exists(), "the update is not ended: its journal is left");
        Ok(())
    }
}
