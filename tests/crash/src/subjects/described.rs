//! A module that has no file of its own here: it is tried on its payload of the conformance suite, over what that says is old,
//! and where nothing was.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use conformance::Payload;
use mock_client::{MockClient, Snapshot};

use super::{Module, is_ended};
use crate::Subject;

pub fn subjects(name: &str, module: &Module) -> Result<Vec<Box<dyn Subject>>> {
    let payload = Arc::new(Payload::read(&module.payload)?);
    ensure!(
        !payload.needs_debian(),
        "the payload of {name} is for a Debian system: describe one in tests/crash/src/subjects, as deb.rs does"
    );
    let subject = |old| -> Box<dyn Subject> {
        let (name, module, payload) = (name.to_owned(), module.clone(), Arc::clone(&payload));
        Box::new(Described { name, module, payload, old })
    };
    let olds = if payload.says_what_is_old() { &[true, false][..] } else { &[false] };
    Ok(olds.iter().copied().map(subject).collect())
}

struct Described {
    name: String,
    module: Module,
    payload: Arc<Payload>,
    /// Whether there is something before the update.
    old: bool,
}

impl Subject for Described {
    fn name(&self) -> &'static str {
        if self.old { "update" } else { "first install" }
    }

    fn device(&self) -> Result<MockClient> {
        let mut device = self.module.device()?;
        let beside = self.module.executable.parent().unwrap_or(Path::new(""));
        self.payload.set_up(&mut device, &self.name, beside)?;
        if self.old {
            self.payload.put_old(&device)?;
        }
        Ok(device)
    }

    /// The whole device but for what belongs to the client: whatever a module leaves anywhere is found. The client leaves
    /// traces in the times of directories, too.
    fn live(&self, device: &MockClient) -> Result<Snapshot> {
        let all = Snapshot::of(device.device())?;
        Ok(all.except(&device.datastore()).except(&device.settings()).without_directory_times())
    }

    fn payload(&self, device: &MockClient) -> Result<Vec<(String, Vec<u8>)>> {
        let files = self.payload.files(device)?.into_iter();
        let named = files.map(|(name, content)| Some((name.into_string().ok()?, content)));
        named.collect::<Option<_>>().context("a file of the payload has a name that is not UTF-8")
    }

    fn is_clean(&self, device: &MockClient) -> Result<()> {
        is_ended(device, &self.name)
    }
}
